"""The thumbnails made so far, as files: one folder per video, each with a limited number of them.

They can be made again at any time, so the least recently used give way to new ones: requests for every millisecond of
every video do not fill the disk. It knows no video and no decoder.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from indexer.errors import StorageFull
from model.files import write_atomic

MAX_PER_VIDEO = 256


class Thumbnails:
    """JPEG files FOLDER/<video>/<milliseconds>.jpg. Safe for threads and processes."""

    def __init__(self, folder: Path, max_per_video: int = MAX_PER_VIDEO) -> None:
        self._folder = folder
        self._max_per_video = max_per_video

    def get(self, video_id: str, at_s: float, make: Callable[[], bytes]) -> Path:
        """The picture of a time in seconds; `make` makes it if it isn't there. Raises: StorageFull, as make does."""
        place = self._folder / video_id / f"{round(at_s * 1000)}.jpg"
        if not _touch(place):
            _write(place, make())
            self._make_room(place)
        return place

    def remove(self, video_id: str) -> None:
        """All pictures of a video."""
        shutil.rmtree(self._folder / video_id, ignore_errors=True)

    def _make_room(self, newest: Path) -> None:
        """Delete those whose last use is longest ago, never `newest`."""
        used: list[tuple[int, Path]] = []
        for path in newest.parent.glob("*.jpg"):
            try:
                used.append((path.stat().st_atime_ns, path))
            except FileNotFoundError:
                continue  # another made room at the same time
        for _, path in sorted(used)[: max(0, len(used) - self._max_per_video)]:
            if path != newest:
                path.unlink(missing_ok=True)


def _write(place: Path, picture: bytes) -> None:
    try:
        write_atomic(place, picture)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("There is no room to write the file.", "Free some space.", path=place) from error
        raise


def _touch(place: Path) -> bool:
    """Whether a whole picture is there; if so, its time of last use is now."""
    try:
        status = place.stat()
        os.utime(place, ns=(time.time_ns(), status.st_mtime_ns))
    except FileNotFoundError:
        return False
    return status.st_size > 0  # a power cut may leave a name without bytes
