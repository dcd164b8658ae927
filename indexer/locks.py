"""A lock that the standard library lacks: one holder among all processes of a folder. It knows no purpose."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FolderLock:
    """One holder at a time among the threads of all processes that lock the same folder, which must be there.

    The kernel releases the lock of a process that dies. Not re-entrant.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold off everyone else."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
