"""Whether a file still holds what was added: by its size and time of change, and by its hash where needed."""

from __future__ import annotations

import threading

from indexer.errors import FileChanged, FileMissing
from indexer.files import digest
from indexer.records import Video

ADD_AGAIN = "Add the file again: its new content is another video."


class ContentCheck:
    """Checks one video's file before and after it is read. Thread-safe.

    Making one raises FileMissing, and FileChanged if the size differs.
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
        """Whether the file must be hashed: its time of change differs from the one recorded when it was added."""
        return self._needs_hash

    @property
    def is_unchanged(self) -> bool:
        """Whether the file is known to hold what was added, without reading it."""
        try:
            return not self._needs_hash and self._stamp() == self._before
        except (FileMissing, OSError):  # look_again reports it
            return False

    def compare_hash(self) -> None:
        """Hash the whole file, unless its hash is known to be right. Raises: FileMissing, FileChanged, OSError."""
        with self._lock:
            if self._needs_hash and self._is_other():
                raise FileChanged(
                    "The file holds other content than when it was added.", ADD_AGAIN, path=self._video.path
                )
            self._needs_hash = False

    def look_again(self) -> None:
        """After the file was read: check that it is what was added, and that nothing was written to it meanwhile.

        Raises: FileMissing, FileChanged, OSError.
        """
        self.compare_hash()
        if self._stamp() != self._before and self._is_other():
            raise FileChanged(
                "The file was changed while it was read.", "Add it again once it is whole.", path=self._video.path
            )

    def _is_other(self) -> bool:
        size_bytes, _, _ = self._stamp()  # first, because an empty file has no digest
        return size_bytes != self._video.size_bytes or digest(self._video.path)[0] != self._video.sha256

    def _stamp(self) -> tuple[int, int, int]:
        """Size, time of change and identity of the file."""
        try:
            status = self._video.path.stat()
        except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError) as error:
            raise FileMissing("The file is not there, or may not be read.", path=self._video.path) from error
        return status.st_size, status.st_mtime_ns, status.st_ino
