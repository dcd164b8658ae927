"""What `vidgrain index` makes of files: which are found, and what becomes of each. A real index under a fake model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.index import VideoIndex
from service.cli.indexing import find_videos, index_files
from service.cli.printing import clock
from tests.support.clips import write_clip
from tests.support.fakes import FakeModel


@pytest.fixture
def index(tmp_path: Path) -> Iterator[VideoIndex]:
    with VideoIndex.open(tmp_path / "data", FakeModel()) as opened:
        yield opened


def test_folders_are_searched_for_videos_and_named_files_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.MKV", "notes.txt", ".hidden.mp4", "sub/c.webm", ".cache/d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [p.relative_to(tmp_path).as_posix() for p in find_videos([tmp_path, tmp_path / "notes.txt"])]
    assert found == ["a.MKV", "b.mp4", "sub/c.webm", "notes.txt"]


def test_each_file_is_counted_once_with_its_reason(index: VideoIndex, tmp_path: Path) -> None:
    red = _clip(tmp_path / "red.mp4", (220, 30, 30))
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(red.read_bytes())
    text, gone = tmp_path / "text.mp4", tmp_path / "gone.mp4"
    text.write_text("words " * 200)
    report = index_files(index, [red, copy, text, gone], titles=["a red one", "a copy", "words", "nothing"])
    assert (report.indexed, report.already_there, report.waiting) == (1, 1, 0)
    codes = {Path(failure.path).name: failure.error.code for failure in report.failed}
    assert codes == {"text.mp4": "unsupported_media", "gone.mp4": "file_missing"}
    assert [v.title for v in index.list(status="ready")[0]] == ["a red one"]


def test_what_failed_before_is_reported_again_and_tried_again_only_when_asked(
    index: VideoIndex, tmp_path: Path
) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("words " * 200)
    index_files(index, [text])
    (job,), _ = index.jobs()
    again = index_files(index, [text])
    assert [failure.path for failure in again.failed] == [str(text)]
    assert index.job(job.id).finished_at == job.finished_at, "it was not worked on again"
    asked = index_files(index, [text], retry_failed=True)
    assert len(asked.failed) == 1
    assert index.job(job.id).finished_at != job.finished_at


def test_ctrl_c_ends_decoding_in_the_middle_of_a_file(
    index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Titles(list[str]):
        def __getitem__(self, number: object) -> str:  # type: ignore[override]
            if number == 1:
                raise KeyboardInterrupt
            return "a red one"

    worker = index.worker()
    monkeypatch.setattr(index, "worker", lambda: worker)
    red = _clip(tmp_path / "red.mp4", (220, 30, 30))
    blue = _clip(tmp_path / "blue.mp4", (30, 30, 220))
    index_files(index, [red, blue], titles=Titles())
    index.add(blue)
    given_back = worker.run_once()
    assert given_back is not None and given_back.status == "queued", "its decode children are closed"


def test_a_worker_that_cannot_go_on_ends_the_command(
    index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def run(self, stop: object) -> None:
            raise RuntimeError("the catalogue is gone")

    monkeypatch.setattr(index, "worker", lambda: Broken())
    with pytest.raises(RuntimeError, match="the catalogue is gone"):
        index_files(index, [_clip(tmp_path / "red.mp4", (220, 30, 30))])


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00.0"), (7.25, "0:07.2"), (59.96, "1:00.0"), (3725, "1:02:05.0")]
)
def test_times_read_like_a_player(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def _clip(path: Path, colour: tuple[int, int, int]) -> Path:
    return write_clip(path, [np.full((48, 64, 3), colour, np.uint8)] * 8, fps=8)
