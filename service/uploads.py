"""Uploads: a multipart body streamed to disk under a limit and hashed on the way.

A file in flight is DATA/incoming/<uuid>, locked by its receiver. Whatever goes wrong (a client that leaves, a full
disk, a broken body), it is removed, and `sweep` removes what a killed process left. This file knows no index.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from indexer.errors import StorageFull
from service.errors import InvalidRequest, PayloadTooLarge
from service.forms import MAX_FIELDS_BYTES, FormParts, too_large

_FLUSH_BYTES = 2**20
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

VIDEO_TYPES = {
    ".3gp": "video/3gpp",
    ".avi": "video/x-msvideo",
    ".flv": "video/x-flv",
    ".gif": "image/gif",
    ".m2ts": "video/mp2t",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp4": "video/mp4",
    ".mpeg": "video/mpeg",
    ".mpg": "video/mpeg",
    ".mts": "video/mp2t",
    ".ogv": "video/ogg",
    ".ts": "video/mp2t",
    ".webm": "video/webm",
    ".wmv": "video/x-ms-wmv",
}
"""Suffixes that a kept upload may have -> the content type that it is served with. Any other suffix is dropped."""


@dataclass
class Upload:
    """A file that was received completely."""

    path: Path
    """Where it is until it is moved."""
    sha256: str
    size_bytes: int
    file_name: str
    """The last part of the name that the client gave, cleaned."""


@dataclass
class Form:
    """A multipart body that was received."""

    fields: dict[str, str]
    """Their text, by name."""
    upload: Upload
    """Its one file."""


@contextlib.asynccontextmanager
async def receive(
    request: Request, incoming: Callable[[], Path], *, max_upload_bytes: int, allowed: frozenset[str]
) -> AsyncIterator[Form]:
    """The multipart body: one part `file`, and fields of the `allowed` names.

    When the block ends the file is deleted, unless it was moved. incoming: returns the folder, which exists, that files
    arrive in.
    Raises: PayloadTooLarge, MalformedBody, InvalidRequest, StorageFull; ClientDisconnect is passed on.
    """
    expected = _declared_bytes(request)
    if expected > max_upload_bytes + MAX_FIELDS_BYTES:
        raise PayloadTooLarge(*too_large(max_upload_bytes))
    folder = await run_in_threadpool(incoming)
    await run_in_threadpool(_require_room, folder, expected)
    parts = FormParts(request.headers.get("content-type", ""), max_upload_bytes, allowed)
    sink: _Sink | None = None
    try:
        async for chunk in request.stream():
            parts.feed(chunk)
            if parts.file_name is None:
                continue
            sink = sink or _Sink(folder)
            if len(parts.waiting) >= _FLUSH_BYTES:
                await run_in_threadpool(sink.write, parts.take())
        parts.finish()
        if sink is None or parts.file_name is None:
            raise InvalidRequest("file: the form has no part named file", fields=[("file", "missing")])
        await run_in_threadpool(sink.write, parts.take())
        yield Form(parts.fields, await run_in_threadpool(sink.finish, _clean_name(parts.file_name)))
    finally:
        if sink is not None:
            sink.discard()


def sweep(incoming: Path) -> int:
    """Remove the files whose receivers were killed; returns how many. A file that is being received stays."""
    removed = 0
    for path in incoming.iterdir() if incoming.is_dir() else ():
        if not path.is_file():
            continue  # not made by a receiver
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            removed += 1
    return removed


class _Sink:
    """The file in incoming/ that bytes are written to. `sweep` leaves it alone while it is locked."""

    def __init__(self, incoming: Path) -> None:
        self.path = incoming / uuid.uuid4().hex
        with _full_disk_reported():
            self._file = self.path.open("xb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    def write(self, data: bytes) -> None:
        """Append. Raises: StorageFull."""
        rest = memoryview(data)
        with _full_disk_reported():
            while rest:
                rest = rest[self._file.write(rest) :]
        self._digest.update(data)
        self._size_bytes += len(data)

    def finish(self, file_name: str) -> Upload:
        """Flush everything to the disk. Raises: StorageFull."""
        with _full_disk_reported():
            os.fsync(self._file.fileno())
        return Upload(self.path, self._digest.hexdigest(), self._size_bytes, file_name)

    def discard(self) -> None:
        """Remove the file unless it was kept."""
        self.path.unlink(missing_ok=True)
        self._file.close()


def _declared_bytes(request: Request) -> int:
    declared = request.headers.get("content-length", "")
    return int(declared) if re.fullmatch(r"[0-9]{1,18}", declared) else 0


def _require_room(incoming: Path, expected_bytes: int) -> None:
    with _full_disk_reported():
        if shutil.disk_usage(incoming).free < expected_bytes:
            raise OSError(errno.ENOSPC, "not enough room")


@contextlib.contextmanager
def _full_disk_reported() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL_DISK:
            raise
        raise StorageFull("there is no room for this file", "Free some disk space, then send it again.") from error


def _clean_name(name: str) -> str:
    """The last part of a client's file name without control characters, at most 200 characters; "video" for none."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(c for c in last if c.isprintable()).strip(" .")[-200:] or "video"
