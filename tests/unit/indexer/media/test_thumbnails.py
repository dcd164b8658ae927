"""Pictures kept as files: made once, bounded, the ones in use spared."""

from __future__ import annotations

import os
from pathlib import Path

from indexer.media.thumbnails import Thumbnails


def made_on(path: Path, day: int) -> None:
    os.utime(path, (day * 86400, day * 86400))


def test_whoever_asks_for_every_millisecond_does_not_fill_the_disk(tmp_path: Path) -> None:
    pictures = Thumbnails(tmp_path, max_per_video=3)
    for ms in range(10):
        made_on(pictures.get("a", ms / 1000, lambda: b"jpeg"), ms)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["7.jpg", "8.jpg", "9.jpg"]


def test_what_is_in_use_is_spared_and_not_made_again(tmp_path: Path) -> None:
    pictures = Thumbnails(tmp_path, max_per_video=3)
    calls: list[int] = []

    def make() -> bytes:
        calls.append(1)
        return b"jpeg"

    for ms in range(3):
        made_on(pictures.get("a", ms / 1000, make), ms)
    assert pictures.get("a", 0.0, make).read_bytes() == b"jpeg" and len(calls) == 3
    pictures.get("a", 5.0, make)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["0.jpg", "2.jpg", "5000.jpg"]


def test_a_picture_without_bytes_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.jpg").touch()
    assert Thumbnails(tmp_path).get("a", 0.0, lambda: b"jpeg").read_bytes() == b"jpeg"


def test_each_video_has_its_own_and_they_go_with_it(tmp_path: Path) -> None:
    pictures = Thumbnails(tmp_path, max_per_video=1)
    kept = pictures.get("b", 1.0, lambda: b"jpeg")
    pictures.get("a", 1.0, lambda: b"jpeg")
    pictures.remove("a")
    pictures.remove("unknown")
    assert kept.exists() and not (tmp_path / "a").exists()
