"""Whether a file still holds what was added: by its size and time of change, and by its hash where those don't tell."""

from __future__ import annotations

import threading

from indexer.errors import FileChanged, FileMissing
from indexer.files import digest
from indexer.records import Video

ADD_AGAIN = "Add the file again: its new content is another video."


class ContentCheck:
    """The file of one video, looked at before and after it is read. Thread-safe.

    Raises from the start: FileMissing, FileChanged if the size is another.
    """

    def __init__(self, video: Video) -> None:
        self._video = video
        self._before = self._stamp()
        size_bytes, mtime_ns, _ = self._before
        if size_bytes != video.size_bytes:
            raise FileChanged(
                f"The file has {size_bytes} bytes; it had {video.size_bytes} when it was added.",
                ADD_AGAIN,
                path=video.path,
            )
        self._lock = threading.Lock()
        self._needs_hash = mtime_ns != video.mtime_ns

    @property
    def needs_hash(self) -> bool:
        """Whether only its hash can tell: its time of change isn't the one that it had when it was hashed."""
        return self._needs_hash

    @property
    def is_unchanged(self) -> bool:
        """Whether the file is known to hold what was added, without reading it."""
        try:
            return not self._needs_hash and self._stamp() == self._before
        except FileMissing:
            return False

    def compare_hash(self) -> None:
        """Read the whole file, unless that was done before. Raises: FileMissing, FileChanged."""
        with self._lock:
            if self._needs_hash and self._is_other():
                raise FileChanged(
                    "The file holds other content than when it was added.", ADD_AGAIN, path=self._video.path
                )
            self._needs_hash = False

    def look_again(self) -> None:
        """After the file was read: it is what was added, and nothing was written to it meanwhile.

        Raises: FileMissing, FileChanged.
        """
        self.compare_hash()
        if self._stamp() != self._before and self._is_other():
            raise FileChanged(
                "The file was changed while it was read.", "Add it again once it is whole.", path=self._video.path
            )

    def _is_other(self) -> bool:
        return digest(self._video.path) != (self._video.sha256, self._video.size_bytes)

    def _stamp(self) -> tuple[int, int, int]:
        """Size, time of change and identity of the file."""
        try:
            status = self._video.path.stat()
        except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError) as error:
            raise FileMissing("The file is not there, or may not be read.", path=self._video.path) from error
        return status.st_size, status.st_mtime_ns, status.st_ino
