"""Locks that the standard library lacks: many readers or one writer, and one holder among all processes of a folder.

They know nothing of what they guard.
"""

from __future__ import annotations

import fcntl
import os
import threading
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


class ReadersWriterLock:
    """Many readers or one writer; a waiting writer goes before new readers. Not re-entrant."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_readers = 0
        self._num_writers_waiting = 0
        self._is_writing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold off writers."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_writing and not self._num_writers_waiting)
            self._num_readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold off everyone."""
        with self._changed:
            self._num_writers_waiting += 1
            self._changed.wait_for(lambda: not self._is_writing and not self._num_readers)
            self._num_writers_waiting -= 1
            self._is_writing = True
        try:
            yield
        finally:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
