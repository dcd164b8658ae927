"""What the catalogue's files share: an open transaction, records made from rows, text made storable, cursors.

It gets a function that runs SQL; SQLite itself is behind database.py.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from indexer.errors import InvalidMetadata, InvalidQuery, NotFound
from indexer.records import Job, JobProgress, MediaInfo, Video

Row = Any
"""A row of the database: a value by its column's name."""

MAX_METADATA_BYTES = 64 * 1024
MAX_METADATA_DEPTH = 16
MAX_TEXT_CHARS = 4000

_ID = re.compile(r"[0-9A-Za-z_-]{1,128}")


class Transaction:
    """An open transaction: SQL with bound parameters in, rows out."""

    def __init__(self, execute: Callable[[str, Sequence[Any]], Any], now_s: float, folder: Path) -> None:
        self._execute = execute
        self.now_s = now_s
        """UTC epoch seconds: one time for the whole transaction."""
        self.folder = folder
        """The data folder, to which the paths of managed files are relative."""

    def rows(self, sql: str, *parameters: Any) -> list[Row]:
        """All rows of a query."""
        found: list[Row] = self._execute(sql, parameters).fetchall()
        return found

    def stream(self, sql: str, *parameters: Any) -> Iterator[Row]:
        """The rows of a query, one after another: no more than one is in memory."""
        found: Iterator[Row] = self._execute(sql, parameters)
        return found

    def row(self, sql: str, *parameters: Any) -> Row | None:
        """The first row of a query, or None."""
        return self._execute(sql, parameters).fetchone()

    def change(self, sql: str, *parameters: Any) -> int:
        """Run a statement that writes; returns the number of rows it touched."""
        num_rows: int = self._execute(sql, parameters).rowcount
        return num_rows

    def next_seq(self) -> int:
        """The next number of the change feed. It rises in the order of commits, since there is one writer at a time."""
        self.change("UPDATE state SET value = CAST(value AS INTEGER) + 1 WHERE key = 'seq'")
        return self.last_seq()

    def last_seq(self) -> int:
        """The newest number of the change feed; 0 before the first."""
        row = self.row("SELECT CAST(value AS INTEGER) AS seq FROM state WHERE key = 'seq'")
        return 0 if row is None else int(row["seq"])


def known_id(what: str, given: object) -> str:
    """The id if it has the form of an id. Raises: NotFound for anything else, also for what isn't a string."""
    if isinstance(given, str) and _ID.fullmatch(given):
        return given
    raise not_found(what, given)


def not_found(what: str, given: object) -> NotFound:
    """The error to raise; it names the id in printable ASCII, cut if it is long."""
    return NotFound(f"No {what} with the id {ascii(given)[:80]}.")


def storable(text: str) -> str:
    """The text as UTF-8 can hold it: lone surrogates (from odd file names) and NUL become U+FFFD."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").replace("\0", "\ufffd")


def storable_line(text: str) -> str:
    """`storable`, cut to 4,000 characters: titles and messages."""
    return storable(text[:MAX_TEXT_CHARS])


def metadata_json(metadata: Mapping[str, Any]) -> str:
    """The JSON object to store. Raises: InvalidMetadata for what JSON can't hold, deeper than 16 or over 64 KiB."""
    try:
        text = json.dumps(_plain(metadata, MAX_METADATA_DEPTH), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise InvalidMetadata(f"The metadata isn't JSON: {error}.") from error
    if len(text.encode("utf-8")) > MAX_METADATA_BYTES:
        raise InvalidMetadata(f"The metadata is larger than {MAX_METADATA_BYTES} bytes.")
    return text


def _plain(value: Any, depth: int) -> Any:
    if depth < 0:
        raise InvalidMetadata(f"The metadata is nested deeper than {MAX_METADATA_DEPTH} levels.")
    if isinstance(value, str):
        return storable(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise InvalidMetadata("The keys of metadata must be text.")
        return {storable(key): _plain(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, depth - 1) for inner in value]
    raise InvalidMetadata(f"Metadata can't hold a {type(value).__name__}.")


def video_of(tx: Transaction, row: Row) -> Video:
    """The Video in a row of `videos`; its path is absolute, wherever the data folder is now."""
    media = None
    if row["duration_s"] is not None:
        media = MediaInfo(
            duration_s=row["duration_s"],
            fps=row["fps"],
            width=row["width"],
            height=row["height"],
            rotation_deg=row["rotation_deg"],
            codec=row["codec"],
            container=row["container"],
            has_audio=bool(row["has_audio"]),
        )
    return Video(
        id=row["id"],
        sha256=row["sha256"],
        title=row["title"],
        path=tx.folder / os.fsdecode(row["path"]),
        is_managed=bool(row["is_managed"]),
        size_bytes=row["size_bytes"],
        metadata=json.loads(row["metadata"]),
        status=row["status"],
        created_at=row["created_at"],
        indexed_at=row["indexed_at"],
        num_segments=row["num_segments"],
        media=media,
        mtime_ns=row["mtime_ns"],
        error_code=row["error_code"],
        error_message=row["error_message"],
        sampling=row["sampling"],
    )


def job_of(row: Row) -> Job:
    """The Job in a row of `jobs`."""
    return Job(
        id=row["id"],
        kind=row["kind"],
        video_id=row["video_id"],
        status=row["status"],
        stage=row["stage"],
        progress=JobProgress(
            segments_done=row["progress_done"],
            segments_total=row["progress_total"],
            frames_done=row["frames_done"],
            seconds_done=row["seconds_done"],
            seconds_total=row["seconds_total"],
        ),
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        error_code=row["error_code"],
        error_message=row["error_message"],
        owner=row["owner"],
        lease_expires_at=row["lease_expires_at"],
        is_cancel_requested=bool(row["is_cancel_requested"]),
        working_since=row["working_since"],
        updated_at=row["updated_at"],
    )


def cursor_of(*place: float | int | str) -> str:
    """An opaque cursor for a place in a list."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def place_of(cursor: str, *types: type) -> list[Any]:
    """The place of a cursor. Raises: InvalidQuery if `cursor_of` didn't make it from these types."""
    try:
        if not isinstance(cursor, str) or len(cursor) > 512:
            raise ValueError("not a cursor")
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = json.loads(data, parse_constant=_refuse_constant)
        if not isinstance(place, list) or [type(part) for part in place] != list(types):
            raise ValueError("not a place in this list")
        if any(isinstance(part, int) and abs(part) >= 2**63 for part in place):
            raise ValueError("too large a number")
        if any(isinstance(part, str) and storable(part) != part for part in place):
            raise ValueError("not an id")
    except (ValueError, RecursionError) as error:
        raise InvalidQuery("The cursor isn't one that this list gave out.", "Start again without a cursor.") from error
    return place


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a place")


def checked_limit(limit: int) -> int:
    """The page size. Raises: InvalidQuery outside 1..1000."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 1000:
        raise InvalidQuery(f"A page has 1 to 1000 rows, not {ascii(limit)[:40]}.")
    return limit
