"""A file is written whole or not at all, and nothing else is left beside it."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model.files import remove_partial, write_atomic


def test_the_new_content_takes_the_old_ones_place(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file.json"
    for content in (b"first", b"", b"third" * 1000):
        write_atomic(path, content)
        assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    (folder / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="taken"):
        write_atomic(folder, b"a folder's name can't become a file's")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
    with pytest.raises(OSError):
        write_atomic(Path(__file__) / "below a file", b"")


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([letter]) * 200_000 for letter in b"abcdef"]
    write_atomic(path, contents[0])
    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write_atomic, path, content) for content in contents * 5]
        seen = {path.read_bytes() for _ in range(50)}
        for one in writing:
            one.result()
    assert seen <= set(contents)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    """The writers of some libraries, and those of temporary files, let the owner alone read."""
    before = os.umask(0o022)
    try:
        write_atomic(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_a_name_as_long_as_a_name_can_be(tmp_path: Path) -> None:
    write_atomic(tmp_path / ("x" * 255), b"x")
    assert (tmp_path / ("x" * 255)).read_bytes() == b"x"


def test_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    write_atomic(tmp_path / "kept.partial", b"x")
    (tmp_path / ".0123456789abcdef.partial").write_bytes(b"half")
    remove_partial(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.partial"]
