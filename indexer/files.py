"""Files as the index meets them: is one there, what does it hold, has it changed. It knows nothing of video."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from pathlib import Path

from indexer.errors import FileMissing, UnsupportedMedia

RACY_NS = 2 * 10**9


def existing(path: Path) -> Path:
    """The path, if it is a file. Raises: FileMissing, UnsupportedMedia for a folder and the like."""
    if not path.exists():
        raise FileMissing(
            "There is no such file.", "Put it back, or remove the video and add it from where it is.", path=path
        )
    if not path.is_file():
        raise UnsupportedMedia("This is not a file.", "Name one video file.", path=path)
    return path


def unchanged_since_ns(path: Path, *, now_ns: int | None = None) -> int | None:
    """A file's time of change if it tells later changes apart, else None; to be asked before the content is read.

    Clocks of file systems tick coarsely: a file that was changed within the last two seconds may be changed again
    without its time showing it. Raises: OSError.
    """
    mtime_ns = path.stat().st_mtime_ns
    now_ns = time.time_ns() if now_ns is None else now_ns
    return mtime_ns if mtime_ns < now_ns - RACY_NS else None


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
