"""A line chart on logarithmic axes as SVG, for the pictures of docs/. It knows no benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 160, 46, 56
LABEL_HEIGHT = 14.0
COLOURS = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce", "#57534e", "#be123c")

Points = Sequence[tuple[float, float]]


def log_chart(title: str, x_name: str, y_name: str, lines: Mapping[str, Points]) -> str:
    """lines: name -> points (x, y), both above 0. Returns: the text of the SVG."""
    every = [point for points in lines.values() for point in points]
    x_axis, y_axis = _decades([x for x, _ in every]), _decades([y for _, y in every])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15" fill="#1c1917">{escape(title)}</text>',
    ]
    for exponent in range(x_axis[0], x_axis[1] + 1):
        x = _x(10.0**exponent, x_axis)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#e7e5e4"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{10**exponent:,}</text>')
    for exponent in range(y_axis[0], y_axis[1] + 1):
        y = _y(10.0**exponent, y_axis)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e7e5e4"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**exponent:,.10g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle">{escape(x_name)}</text>')
    parts.append(
        f'<text transform="translate(18 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(y_name)}</text>'
    )
    for points, colour in zip(lines.values(), COLOURS, strict=False):
        path = " ".join(f"{_x(x, x_axis):.1f},{_y(y, y_axis):.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{_x(x, x_axis):.1f}" cy="{_y(y, y_axis):.1f}" r="3" fill="{colour}"/>' for x, y in points
        ]
    ends = {name: _y(points[-1][1], y_axis) for name, points in lines.items()}
    colours = dict(zip(lines, COLOURS, strict=False))
    for name, y in _apart(ends).items():
        x = _x(lines[name][-1][0], x_axis)
        parts.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" fill="{colours[name]}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _apart(ends: Mapping[str, float]) -> dict[str, float]:
    """The heights of the names at the ends of the lines, from the top, moved down where they would overlap."""
    placed: dict[str, float] = {}
    for name, y in sorted(ends.items(), key=lambda end: end[1]):
        placed[name] = max(y, max(placed.values(), default=0.0) + LABEL_HEIGHT)
    return placed


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around the values."""
    low, high = math.floor(math.log10(min(values)) + 1e-9), math.ceil(math.log10(max(values)) - 1e-9)
    return low, max(high, low + 1)


def _x(value: float, axis: tuple[int, int]) -> float:
    return LEFT + (math.log10(value) - axis[0]) / (axis[1] - axis[0]) * (WIDTH - LEFT - RIGHT)


def _y(value: float, axis: tuple[int, int]) -> float:
    return HEIGHT - BOTTOM - (math.log10(value) - axis[0]) / (axis[1] - axis[0]) * (HEIGHT - TOP - BOTTOM)
