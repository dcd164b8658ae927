"""The files of an index: the only owner of DATA/media, and a safe way to open any indexed file.

An uploaded file is moved to media/<sha256><suffix>, then its row is written; a removal deletes the row, then the file.
A process that is killed in between would leave a file without a row. So a marker of the same name is kept in
DATA/pending meanwhile, and where one was left behind, `sweep` deletes its file unless the catalogue has it. A file with
neither row nor marker is never deleted: the catalogue may have been restored from a backup.

Paths outside media/ are read, never written or deleted. It knows the catalogue, no video format and no HTTP.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from indexer.catalogue import videos
from indexer.catalogue.database import Database
from indexer.catalogue.videos import NewVideo
from indexer.errors import CatalogueUnreadable, FileMissing, StorageFull
from indexer.files import digest, total_bytes
from indexer.locks import FolderLock
from indexer.records import AddResult, OnDuplicate, Video
from model.files import sync

log = logging.getLogger("vidgrain.storage")

CATALOGUE_FILE = "catalogue.sqlite"
MEDIA_FOLDER = "media"
INCOMING_FOLDER = "incoming"
PENDING_FOLDER = "pending"

GONE_HINT = "Put it back, or remove the video and add it from where it is."

_SUFFIX = re.compile(r"\.[0-9a-z]{1,8}")
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file that was received completely, is on the disk of the data folder, and was hashed while it arrived."""

    path: Path
    sha256: str
    size_bytes: int
    suffix: str = ""
    """The end of its name in media/, such as ".mp4"; anything that doesn't look like a suffix is dropped."""


def open_catalogue(folder: Path) -> Database:
    """The catalogue of a data folder; both are made if absent.

    Raises: CatalogueUnreadable, also if there are uploaded videos without a catalogue; StorageFull for an upgrade.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CatalogueUnreadable(
            f"The data folder can't be made: {error.strerror}.",
            "Choose another with --data or VIDGRAIN_DATA.",
            path=folder,
        ) from error
    file, media = folder / CATALOGUE_FILE, folder / MEDIA_FOLDER
    is_new = not file.is_file() or not file.stat().st_size
    if is_new and any(path.is_file() for path in media.glob("*")):
        raise CatalogueUnreadable(
            f"The catalogue is missing or empty, but {MEDIA_FOLDER}/ beside it holds uploaded videos.",
            "Restore the catalogue from a backup. To start over with an empty index, move that folder away first.",
            path=file,
        )
    return Database(file)


class Storage:
    """Adds and removes managed files together with their rows. Safe for threads and processes."""

    def __init__(self, folder: Path, database: Database) -> None:
        """folder: the data folder, which must exist."""
        self._media = folder / MEDIA_FOLDER
        self._pending = folder / PENDING_FOLDER
        self._incoming = folder / INCOMING_FOLDER
        self._database = database
        self._lock = FolderLock(folder)

    def incoming(self) -> Path:
        """The folder for files that are being received, made if absent. Raises: CatalogueUnreadable if DATA is gone."""
        try:
            self._incoming.mkdir(exist_ok=True)
        except FileNotFoundError as error:
            raise self._gone() from error
        return self._incoming

    def size_bytes(self) -> int:
        """The total size of all managed files."""
        return total_bytes(self._media.glob("*"))

    def adopt(
        self,
        received: ReceivedFile,
        *,
        title: str,
        metadata: Mapping[str, Any],
        on_duplicate: OnDuplicate,
        max_attempts: int,
    ) -> AddResult:
        """Keep a received file and add its video; the file is moved, or left where it is if not needed.

        An intact file of the same content stays, or with "replace" gives way to one with the new suffix; a damaged one
        is replaced, and its video is indexed again.
        Raises: DuplicateVideo, InvalidMetadata, StorageFull, CatalogueUnreadable.
        """
        kept = self._kept(received.sha256)
        place = kept if kept is not None and on_duplicate != "replace" else self._media / _name(received)
        is_intact = _holds(place, received)  # before the lock, so that nothing waits while a large file is hashed
        with self._holding(), ExitStack() as marks:
            for path in {place, kept or place}:
                marks.enter_context(self._undecided(path))
            if not (is_intact and place.is_file()):
                received.path.replace(place)
                sync(self._media)
            new = NewVideo(
                path=place,
                sha256=received.sha256,
                size_bytes=received.size_bytes,
                title=title,
                metadata=metadata,
                is_managed=True,
                mtime_ns=place.stat().st_mtime_ns,
            )
            with self._database.write() as tx:
                is_renewed = kept is not None and not is_intact
                return videos.add(tx, new, on_duplicate, max_attempts, is_file_renewed=is_renewed)

    def add_in_place(self, new: NewVideo, on_duplicate: OnDuplicate, max_attempts: int) -> AddResult:
        """Index a file where it is, without managing it. Raises: FileMissing, DuplicateVideo, InvalidMetadata."""
        with self._holding(), ExitStack() as marks:
            if not new.path.is_file():
                raise FileMissing("The file was removed while it was added.", path=new.path)
            if (kept := self._kept(new.sha256)) is not None:
                marks.enter_context(self._undecided(kept))  # the video may leave it for the new file
            with self._database.write() as tx:
                return videos.add(tx, new, on_duplicate, max_attempts)

    def remove(self, video_id: str) -> Video:
        """Delete a video's row and, if its file is managed, the file. Raises: NotFound."""
        with self._holding(), ExitStack() as marks:
            with self._database.read() as tx:
                video = videos.get(tx, video_id)
            if video.is_managed and self._is_ours(video.path):
                marks.enter_context(self._undecided(video.path))
            with self._database.write() as tx:
                return videos.remove(tx, video_id)

    def sweep(self) -> int:
        """Clean up after killed processes: delete marked files that no video has. Returns how many.

        Files without a video and without a marker stay; the log names them.
        """
        num_deleted = 0
        with self._holding():
            for marker in list(self._pending.glob("*")):
                num_deleted += self._delete_if_unused(self._media / marker.name)
                marker.unlink(missing_ok=True)
            if unknown := self.unknown_files():
                extra = {"num_files": len(unknown), "size_bytes": total_bytes(unknown), "folder": str(self._media)}
                log.warning("media_unknown", extra=extra | {"first": [path.name for path in unknown[:5]]})
        return num_deleted

    def unknown_files(self) -> list[Path]:
        """The files in media/ that no video has: left by an older version, or newer than a restored catalogue."""
        with self._database.read() as tx:
            known = videos.managed_paths(tx)
        return sorted(path for path in self._media.glob("*") if path.is_file() and path not in known)

    def open_file(self, video: Video) -> BinaryIO:
        """A video's file, opened for reading. Links that lead to the data folder are its owner's; no other is followed.

        Raises: FileMissing.
        """
        if video.is_managed and self._is_ours(video.path):
            return open_without_links(self._media.resolve() / video.path.name)
        return open_without_links(video.path)

    # ---- helpers

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """Hold the data folder's lock, shared by all processes. Raises: CatalogueUnreadable if the folder is gone."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._lock.holding())
            except FileNotFoundError as error:
                raise self._gone() from error
            yield

    def _gone(self) -> CatalogueUnreadable:
        return CatalogueUnreadable(
            "The data folder is gone.", "Put it back, or restart Vidgrain to start over.", path=self._media.parent
        )

    def _kept(self, sha256: str) -> Path | None:
        """The managed file of the live video with this content; the file may be damaged or missing."""
        with self._database.read() as tx:
            known = videos.by_content(tx, sha256)
        is_kept = known is not None and known.is_managed and self._is_ours(known.path)
        return known.path if known is not None and is_kept else None

    def _is_ours(self, path: Path) -> bool:
        """Whether a path names a file directly in media/: nothing else is ever deleted, whatever the catalogue says."""
        return path.parent == self._media and path.name not in ("", ".", "..")

    @contextmanager
    def _undecided(self, place: Path) -> Iterator[None]:
        """Mark a file of media/ while its row is added or deleted; then delete the file unless a video has it.

        A kill in between leaves the marker for `sweep`. Call it under the lock.
        """
        with _full_disk_reported(place):
            for folder in (self._media, self._pending):
                if not folder.is_dir():
                    folder.mkdir()
                    sync(folder.parent)
            marker = self._pending / place.name
            marker.touch()
            sync(self._pending)
            try:
                yield
            finally:
                self._delete_if_unused(place)
                marker.unlink(missing_ok=True)

    def _delete_if_unused(self, path: Path) -> bool:
        """Delete a file of media/ that no live video has; returns whether there was one. Call it under the lock."""
        if not self._is_ours(path) or not path.is_file():
            return False
        with self._database.read() as tx:
            if videos.has_managed_file(tx, path):
                return False
        path.unlink(missing_ok=True)
        return True


def open_without_links(path: Path) -> BinaryIO:
    """Open the regular file at an absolute path for reading, without following any symbolic link in that path.

    A link that has taken the place of an indexed file, or of a folder above it, must not lead elsewhere.
    Raises: FileMissing, also for anything that isn't a regular file.
    """
    # O_PATH asks for the right to pass through a folder only, not to list it
    passing = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(path.anchor, passing)
    try:
        for part in path.parts[1:-1]:
            inner = os.open(part, passing, dir_fd=folder)
            os.close(folder)
            folder = inner
        file = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        raise FileMissing("There is no such file.", GONE_HINT, path=path) from error
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise FileMissing("This is not a file.", GONE_HINT, path=path)
    return cast(BinaryIO, os.fdopen(file, "rb", buffering=0))


def _name(received: ReceivedFile) -> str:
    """A file's name in media/."""
    suffix = received.suffix.lower()
    return f"{received.sha256}{suffix if _SUFFIX.fullmatch(suffix) else ''}"


def _holds(place: Path, received: ReceivedFile) -> bool:
    """Whether the file at `place` has the content of the received one."""
    try:
        if place.stat().st_size != received.size_bytes:
            return False
        return digest(place) == (received.sha256, received.size_bytes)
    except (OSError, FileMissing):
        return False


@contextmanager
def _full_disk_reported(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL_DISK:
            raise
        raise StorageFull(
            "There is no room to keep the file.", "Free some disk space and try again.", path=place
        ) from error
