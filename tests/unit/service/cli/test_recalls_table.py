"""The table of an evaluation: our rows, slices, published rows marked; and the notes that go with it."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from model.evaluation.published import published_rows
from service.cli.printing import evaluation_notes, recalls_table

FIGURES = {"r1": 0.5, "r5": 0.625, "r10": 0.75, "r50": 0.875, "mdr": 2.5, "mnr": 11.25, "num": 8.0}


def answer(**changes: Any) -> dict[str, Any]:
    """What an evaluation gives, with round numbers."""
    return {
        "model": "a [bold]model[/bold]",
        "dataset": "shapes",
        "num_texts": 59_800,
        "num_videos": 8,
        "text_to_video": FIGURES,
        "video_to_text": FIGURES | {"r1": 0.25},
        "slices": {},
        "published": [],
        "warnings": [],
        "missing": {"count": 0, "names": []},
        "unreadable": {"count": 0, "reasons": {}},
        "cache": {"folder": None, "num_read": 0, "num_written": 0, "num_damaged": 0, "size_bytes": 0},
    } | changes


def lines_of(result: dict[str, Any], width: int = 160) -> list[list[str]]:
    """The cells of each line."""
    console = Console(width=width, color_system=None)
    with console.capture() as shown:
        console.print(recalls_table(result))
    return [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in shown.get().splitlines()]


def test_rows_and_slices() -> None:
    found = lines_of(answer(slices={"order": {"text_to_video": FIGURES, "video_to_text": FIGURES}}))
    assert found[0] == ["a [bold]model[/bold] on shapes, 59,800 texts, 8 videos"]
    assert ["text_to_video", "0.500", "0.625", "0.750", "0.875", "2.5", "11.2"] in found
    assert ["video_to_text", "0.250", "0.625", "0.750", "0.875", "2.5", "11.2"] in found
    assert [row[0] for row in found if len(row) == 7] == ["text_to_video", "video_to_text", "order"]


def test_published_rows_are_marked_and_leave_open_what_the_paper_does_not_say() -> None:
    rows = [row.as_dict() for row in published_rows("lsmdc")]
    result = answer(dataset="lsmdc", published=rows)
    found = [row for row in lines_of(result) if len(row) == 7 and "published" in row[0]]
    assert len(found) == 2 * len(rows) == 20
    best = "published, text to video: X-CLIP B/16 (arXiv:2207.07285)"
    assert [best, "0.261", "0.484", "", "", "", "46.7"] in found
    assert any("they were not measured here" in note for note in evaluation_notes(result))


def test_notes_count_and_name() -> None:
    names = [f"v{n}" for n in range(3)]
    notes = evaluation_notes(
        answer(
            warnings=["F differs."],
            missing={"count": 5, "names": names},
            unreadable={"count": 1, "reasons": {"v9": "clip v9: torn off."}},
            cache={"folder": "kept", "num_read": 3, "num_written": 5, "num_damaged": 0, "size_bytes": 3 * 2**20},
        )
    )
    assert notes == [
        "warning: F differs.",
        "5 missing, left out: v0, v1, v2, and 2 more",
        "1 unreadable, left out: clip v9: torn off.",
        "features: 3 of 8 videos from the cache; 8 kept, 3.0 MiB, in kept",
    ]
    assert evaluation_notes(answer()) == []
