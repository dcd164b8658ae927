"""kill -9 in the middle of an evaluation: what was encoded is kept, and the next run has the same figures."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from model.datasets.shapes import held_out
from tests.support.clips import write_clip
from tests.support.server import ROOT, command, environment, until

NUM_CLIPS = 160
"""Of eight frames each: five batches through the image tower."""


def run(folder: Path, cache: str) -> subprocess.Popen[bytes]:
    """The evaluation in a process of its own; the answer goes to a file."""
    arguments = ["evaluate", "--model", "tiny", "--dataset", "folder", "--device", "cpu", "--videos", folder / "videos"]
    arguments += ["--annotations", folder, "--cache", folder / cache, "--out", folder / f"{cache}.json"]
    settings = environment(data=folder / "data")
    with (folder / f"{cache}.log").open("ab") as log:
        return subprocess.Popen(
            command(*map(str, arguments)), cwd=ROOT, env=settings, stdout=subprocess.DEVNULL, stderr=log
        )


def answer(folder: Path, cache: str) -> dict[str, Any]:
    """Run to the end."""
    assert run(folder, cache).wait() == 0, (folder / f"{cache}.log").read_text()
    found: dict[str, Any] = json.loads((folder / f"{cache}.json").read_text(encoding="utf-8"))
    return found


def test_a_killed_evaluation_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    items, entries = held_out(8, 0), []
    for number in range(NUM_CLIPS):
        path = tmp_path / "videos" / f"{number}.mp4"
        if number < len(items):
            write_clip(path, items[number].pixels(8), 1)
        else:
            shutil.copyfile(tmp_path / "videos" / f"{number % len(items)}.mp4", path)
        entries.append(json.dumps({"video": str(number), "captions": [items[number % len(items)].sentence]}))
    (tmp_path / "test.jsonl").write_text("\n".join(entries) + "\n", encoding="utf-8")

    process = run(tmp_path, "killed")
    try:
        until(lambda: any((tmp_path / "killed").rglob("*.npz")) or process.poll() is not None, 120)
    finally:
        process.kill()
        process.wait()
    num_kept = len(list((tmp_path / "killed").rglob("*.npz")))
    found = answer(tmp_path, "killed")
    assert found["cache"]["num_read"] == num_kept > 0
    assert found["cache"]["num_read"] + found["cache"]["num_written"] == NUM_CLIPS
    assert found["cache"]["num_damaged"] == 0
    whole = answer(tmp_path, "whole")
    assert whole["cache"]["num_written"] == NUM_CLIPS
    for way in ("text_to_video", "video_to_text"):
        assert found[way] == whole[way]
