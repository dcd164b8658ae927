"""What the bundled model is promised to reach, over all 1,000 held-out clips, and that it is what its folder says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import model
from model.evaluation.run import evaluate_shapes
from model.registry import load_model

FOLDER = Path(model.__file__).parent / "tiny"


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return evaluate_shapes(load_model("tiny", device="cpu"))


def test_it_finds_the_held_out_clips(figures: dict[str, Any]) -> None:
    assert figures["num_videos"] == figures["num_texts"] == 1000
    assert figures["text_to_video"]["r1"] >= 0.80
    assert figures["text_to_video"]["r5"] >= 0.98
    assert figures["video_to_text"]["r1"] >= 0.75


def test_slices_are_reported_apart(figures: dict[str, Any]) -> None:
    slices = figures["slices"]
    assert slices["direction_and_order"]["text_to_video"]["num"] == 500
    assert slices["unseen_combinations"]["text_to_video"]["num"] > 300
    for found in slices.values():
        assert set(found) == {"text_to_video", "video_to_text"}


def test_the_readme_shows_what_is_measured(figures: dict[str, Any]) -> None:
    """The table of model/tiny/README.md, row by row, to the digits it shows."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = {"all 1,000": figures} | figures["slices"]
    for name, found in rows.items():
        line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        shown = [float(cell) for cell in line.split("|")[2:-1]]
        measured = [found[way][k] for way in ("text_to_video", "video_to_text") for k in ("r1", "r5", "r10")]
        assert shown == pytest.approx([found["text_to_video"].get("num", 1000.0), *measured], abs=0.011), name


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) <= 8_000_000
    assert json.loads((FOLDER / "training.json").read_text(encoding="utf-8"))["settings"]["seed"] == 7
