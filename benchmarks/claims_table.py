"""The tables of the claims, from the results of their runs: means and standard deviations over seeds.

Standard deviations are of the sample (n - 1), and left out of a single seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.claims_models import CONTESTANTS

Result = dict[str, Any]
COLUMNS = (
    ("T2V R@1", "all", "text_to_video"),
    ("V2T R@1", "all", "video_to_text"),
    ("few frames", "few_frames", "text_to_video"),
    ("direction", "direction", "text_to_video"),
    ("order", "order", "text_to_video"),
    ("mixed", "mixed", "text_to_video"),
)
"""Heading, slice, and way. The slices' queries are ranked among all clips."""
SLICES_BACK = ("few_frames", "direction", "order")


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """{"models": {name: {"title", "seeds", heading: {"mean", "std"}}}, "variants", "recall", "rates", "machine"}."""
    tables: dict[str, Any] = {"models": {}, "variants": {}}
    for name, contestant in CONTESTANTS.items():
        runs = _runs(results, name)
        if runs:
            tables[contestant.table][name] = _summary(runs)
    if "xclip" in tables["models"]:
        tables["variants"] = {"xclip": tables["models"]["xclip"], **tables["variants"]}
    tables["recall"] = _recall(_runs(results, "xclip"))
    tables["rates"] = {
        result["name"]: result["exams"]["validation"]["all"]["text_to_video"]["r1"]
        for result in results
        if result["name"].startswith("rate-") or (result["seed"] == 1 and result["table"] == "models")
    }
    if not any(name.startswith("rate-") for name in tables["rates"]):
        tables["rates"] = {}
    tables["machine"] = results[-1]["machine"] if results else None
    return tables


def as_markdown(results: Sequence[Result]) -> str:
    """The same as Markdown, in percent."""
    tables = as_json(results)
    parts = []
    for name in ("models", "variants"):
        if tables[name]:
            parts.append(_table(tables[name]))
    if tables["recall"]:
        parts.append(_recall_table(tables["recall"]))
    if tables["rates"]:
        lines = ["| learning rate and model, validation clips | T2V R@1 |", "|---|---|"]
        parts.append("\n".join(lines + [f"| {name} | {100 * r1:.1f} |" for name, r1 in tables["rates"].items()]))
    parts.append(f"{tables['machine']}")
    return "\n\n".join(parts)


def _runs(results: Sequence[Result], contestant: str) -> list[Result]:
    return [r for r in results if r["contestant"] == contestant and not r["name"].startswith("rate-")]


def _summary(runs: list[Result]) -> dict[str, Any]:
    found: dict[str, Any] = {"title": runs[0]["title"], "seeds": sorted(r["seed"] for r in runs)}
    for heading, part, way in COLUMNS:
        found[heading] = _over_seeds([r["exams"]["held_out"][part][way]["r1"] for r in runs])
    for part in SLICES_BACK:
        found[f"V2T {part}"] = _over_seeds([r["exams"]["held_out"][part]["video_to_text"]["r1"] for r in runs])
    found["loss"] = _over_seeds([r["last_losses"] for r in runs])
    found["temperature"] = _over_seeds([r["temperature"] for r in runs])
    found["train_s"] = _over_seeds([r["train_s"] for r in runs])
    return found


def _over_seeds(values: list[float]) -> dict[str, float | None]:
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None}


def _table(rows: dict[str, Any]) -> str:
    back = [f"V2T {part}" for part in SLICES_BACK]
    headings = [heading for heading, _, _ in COLUMNS] + back
    lines = [
        "| model | seeds | " + " | ".join(h.replace("_", " ") for h in headings) + " |",
        "|---" * (len(headings) + 2) + "|",
    ]
    for row in rows.values():
        cells = [_percent(row[heading]) for heading in headings]
        lines.append(f"| {row['title']} | {len(row['seeds'])} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _percent(value: dict[str, float | None]) -> str:
    mean, std = value["mean"], value["std"]
    assert mean is not None
    return f"{100 * mean:.1f}" + ("" if std is None else f" ± {100 * std:.1f}")


def _recall(runs: list[Result]) -> dict[str, dict[str, float]]:
    """Over the seeds of X-CLIP: how many candidates, how often the right one is among them, and first."""
    if not runs:
        return {}
    parts = [run["exams"]["held_out"]["recall"] for run in runs]
    return {
        key: {name: statistics.fmean(part[key][name] for part in parts) for name in parts[0][key]} for key in parts[0]
    }


def _recall_table(recall: dict[str, dict[str, float]]) -> str:
    lines = [
        "| candidates of 1,000 | how many | found | found, few frames | first after reranking |",
        "|---|---|---|---|---|",
    ]
    for key, part in recall.items():
        shares = [f"{100 * part[name]:.1f}" for name in ("found", "found_few_frames", "r1")]
        lines.append(f"| {key} | {part['num']:.1f} | " + " | ".join(shares) + " |")
    return "\n".join(lines)
