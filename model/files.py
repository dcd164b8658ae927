"""Files that are either whole or not there: the one atomic writer of every package. It knows no format and no owner."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PARTIAL_SUFFIX = ".partial"


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file that holds `data`, as `writing_atomic` does. Raises: OSError, and the old file stays as it was."""
    with writing_atomic(path) as file:
        file.write(data)


@contextmanager
def writing_atomic(path: Path) -> Iterator[BinaryIO]:
    """Write a file so that readers see all of it or what was there before, also after a kill or a power cut.

    Missing folders are made. The content is on the disk before the name points to it, and the name before this returns.
    Several processes may write one path: the last one wins. Permissions are those of any new file (the umask).
    Raises: OSError; then, as after any error in the block, the old file stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial(folder: Path) -> None:
    """Remove what a killed `write_atomic` left in a folder that nobody else writes to. Raises: OSError."""
    for left in folder.glob(f".*{PARTIAL_SUFFIX}"):
        left.unlink(missing_ok=True)
