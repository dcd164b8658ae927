"""A picture of a run: loss, learning rates and validation over the steps, as SVG.

Written by hand, since three line charts don't justify a plotting library in every installation; any browser shows it.
It knows a log's lines and nothing of training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 760, 220
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 30, 36
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#8250df", "#bf8700", "#57606a")
MAX_POINTS = 800

Series = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class Chart:
    """One panel: (step, value) by the name of the line. is_log: the values' axis is logarithmic."""

    title: str
    series: Series
    is_log: bool = False


def charts_of(lines: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The panels of a run from its log: loss, learning rates by group, recall at 1 both ways."""
    loss: Series = {"loss": []}
    rates: Series = {}
    recall: Series = {}
    for line in lines:
        step = float(line["step"])
        if line["event"] == "step_done":
            loss["loss"].append((step, float(line["loss"])))
            for name, rate in line["learning_rates"].items():
                if "_" not in name:  # groups without decay have the rate of their fellows
                    rates.setdefault(name, []).append((step, float(rate)))
        if line["event"] == "validated":
            for way in ("text_to_video", "video_to_text"):
                recall.setdefault(way.replace("_", " "), []).append((step, float(line[way]["r1"])))
    return [
        Chart("loss", loss),
        Chart("learning rate", rates, is_log=True),
        Chart("R@1 in validation", recall),
    ]


def svg_of(charts: Sequence[Chart], title: str) -> str:
    """The panels one below another. Values that aren't finite are left out."""
    steps = [x for chart in charts for points in chart.series.values() for x, _ in points]
    panels = "\n".join(
        _panel(chart, 28 + number * HEIGHT, max(steps, default=1.0)) for number, chart in enumerate(charts)
    )
    height = 28 + HEIGHT * len(charts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="600">{escape(title)}</text>\n{panels}\n</svg>\n'
    )


def _panel(chart: Chart, above: float, x_high: float) -> str:
    lines = {name: _usable(points, chart.is_log) for name, points in chart.series.items()}
    lines = {name: points for name, points in lines.items() if points}
    head = f'<text x="{LEFT}" y="{above + TOP - 8}" font-weight="600">{escape(chart.title)}</text>'
    if not lines:
        return f'{head}\n<text x="{LEFT}" y="{above + TOP + 20}" fill="#57606a">nothing yet</text>'
    x_low = 0.0
    y_low, y_high = _span([y for points in lines.values() for _, y in points])
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + width * (x - x_low) / (x_high - x_low),
            above + TOP + height * (1.0 - (y - y_low) / (y_high - y_low)),
        )

    parts = [head, f'<g stroke="#d0d7de">{"".join(_grid(place, x_low, x_high, y_low, y_high))}</g>']
    for value in _ticks(y_low, y_high):
        x, y = place(x_low, value)
        shown = _short(10.0**value if chart.is_log else value)
        parts.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end" fill="#57606a">{shown}</text>')
    for value in _ticks(x_low, x_high):
        x, y = place(value, y_low)
        parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle" fill="#57606a">{_short(value)}</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in _thinned(points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if len(points) == 1:
            x, y = place(*points[0])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        at = above + TOP + 12 + 18 * number
        parts.append(f'<text x="{WIDTH - RIGHT + 12}" y="{at}" fill="{colour}">{escape(name)}</text>')
    return "\n".join(parts)


def _grid(place: Any, x_low: float, x_high: float, y_low: float, y_high: float) -> list[str]:
    rows = [(place(x_low, y), place(x_high, y)) for y in _ticks(y_low, y_high)]
    return [f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>' for (a, b), (c, d) in rows]


def _usable(points: Sequence[tuple[float, float]], is_log: bool) -> list[tuple[float, float]]:
    """Finite points; of a logarithmic axis their logarithms, without what is not above 0."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    return [(x, math.log10(y)) for x, y in finite if y > 0] if is_log else finite


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS of them, the last one always there."""
    stride = max(1, math.ceil(len(points) / MAX_POINTS))
    kept = points[::stride]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.5 if low == high else 0.0
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers within."""
    step = 10.0 ** math.floor(math.log10(high - low))
    for share in (0.2, 0.25, 0.5, 1.0):
        if (high - low) / (step * share) <= 6:
            step *= share
            break
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
