"""What is written reads back: the same pictures, at the same times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexer.media.reading import probe, read_frames
from indexer.media.write import write_video
from tests.support.clips import numbered_frames, read_number


def test_written_frames_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, numbered_frames(20), fps=10.0)
    assert probe(path).duration_s == pytest.approx(2.0, abs=0.01)
    found = read_frames(path, [0.05, 0.75, 1.95])
    assert [read_number(picture) for picture in found.pixels] == [0, 7, 19]


def test_odd_sides_lose_their_last_line(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    write_video(path, np.zeros((3, 33, 65, 3), dtype=np.uint8), fps=5.0)
    found = probe(path)
    assert (found.width, found.height) == (64, 32)


def test_no_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no frames"):
        write_video(tmp_path / "none.mp4", [], fps=5.0)
