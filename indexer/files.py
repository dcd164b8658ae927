"""Files as the index meets them: is it there, what does it hold, and writing one whole. It knows nothing of video."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from indexer.errors import FileMissing, StorageFull, UnsupportedMedia


def existing(path: Path) -> Path:
    """The path, if it is a file. Raises: FileMissing, UnsupportedMedia for a folder and the like."""
    if not path.exists():
        raise FileMissing(
            "There is no such file.", "Put it back, or remove the video and add it from where it is.", path=path
        )
    if not path.is_file():
        raise UnsupportedMedia("This is not a file.", "Name one video file.", path=path)
    return path


def digest(path: Path) -> tuple[str, int]:
    """The SHA-256 of a file's content in hex, and its size in bytes; read in pieces.

    Raises: FileMissing (or unreadable), UnsupportedMedia for a folder or an empty file.
    """
    try:
        with existing(path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size_bytes = file.tell()
    except PermissionError as error:
        raise FileMissing(
            f"The file can't be read: {error.strerror}.", "Let this program's user read it.", path=path
        ) from error
    if not size_bytes:
        raise UnsupportedMedia("The file is empty.", "Is it still being written?", path=path)
    return sha256, size_bytes


def total_bytes(paths: Iterable[Path]) -> int:
    """The sizes of these files together; one that is deleted meanwhile counts nothing."""
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def write_whole(place: Path, data: bytes) -> None:
    """Write a file so that who reads `place` sees all of it or none. Raises: StorageFull."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).replace(place)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("There is no room to write the file.", "Free some space.", path=place) from error
        raise
