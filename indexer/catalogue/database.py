"""SQLite's door: the one file DATA/catalogue.sqlite, the only truth of an index.

Opens connections, runs transactions and translates SQLite's errors into ours. What happens inside a transaction is in
videos.py, segments.py, jobs.py and bound_model.py; the tables and their history are in migrations.py and sql/.

Safe for threads (each transaction takes a connection of its own from a pool) and for processes (WAL, a write lock from
the start of each write). A commit is on the disk when it returns (synchronous=FULL). Knows no media, no FAISS, no HTTP.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import quote

from indexer.catalogue import migrations
from indexer.catalogue.rows import Transaction
from indexer.errors import CatalogueBusy, CatalogueUnreadable, IndexerError, StorageFull

PAGE_BYTES = 16384
FREE_BYTES_OF_A_FULL_DISK = 2**20


class Database:
    """An open catalogue file. `read` and `write` start transactions.

    Any transaction may raise CatalogueUnreadable or CatalogueBusy, a write also StorageFull; then nothing has changed.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time, busy_timeout_s: float = 30.0) -> None:
        """Open the file; create it if there is none, and upgrade an older one.

        clock: UTC epoch seconds. busy_timeout_s: how long to wait for other writers.
        """
        self._path = Path(path).absolute()
        self._clock = clock
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._is_closed = False
        self._identity: tuple[int, int] | None = None
        """Device and inode of the file, once it is open."""
        try:
            with self._translated():
                self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections; transactions under way finish. Closing twice is fine."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The catalogue's file."""
        return self._path

    def read(self) -> AbstractContextManager[Transaction]:
        """A transaction that sees one consistent state, whatever others write."""
        return self._transaction("BEGIN")

    def write(self) -> AbstractContextManager[Transaction]:
        """A transaction that commits as a whole or not at all; other writers wait."""
        return self._transaction("BEGIN IMMEDIATE")

    def drop_old_copy(self) -> None:
        """Delete the copy that an upgrade kept; call it once everything has been read without errors."""
        migrations.drop_copies(self._path)

    # ---- connections and transactions

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Transaction]:
        with self._translated():
            connection = self._take()
            try:
                self._check_identity()
                connection.execute(begin)
                yield Transaction(connection.execute, self._clock(), self._path.parent)
                connection.execute("COMMIT")
                self._check_identity()  # a commit into a deleted file must not be acknowledged
            except sqlite3.Error:
                connection.close()  # rolls back; the next transaction starts with a fresh connection
                raise
            except BaseException:
                connection.rollback()
                self._give_back(connection)
                raise
            self._give_back(connection)

    def _check_identity(self) -> None:
        """Raises: CatalogueUnreadable if the file was deleted or replaced since it was opened."""
        if self._identity is None or _identity(self._path) == self._identity:
            return
        raise CatalogueUnreadable(
            "The catalogue was deleted or replaced while it was in use.",
            "Put the data folder back, or restart Vidgrain to use what is there now.",
            path=self._path,
        )

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._is_closed:
                raise CatalogueUnreadable("The catalogue is closed.")
            if self._idle:
                return self._idle.pop()
        return self._connect("rw")

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self, mode: str) -> sqlite3.Connection:
        """mode: "rwc" creates the file where there is none, "rw" doesn't."""
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(self._path))}?mode={mode}",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # takes effect only while the file is empty
            self._enter_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        """Wait for the lock that the change to WAL needs: SQLite doesn't, and several processes may start at once."""
        give_up_at = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if _primary(error) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                    raise
                time.sleep(0.01)

    def _prepare(self) -> None:
        """Make a new file's tables, upgrade an older file, refuse a newer one."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CatalogueUnreadable(f"The folder can't be made: {error.strerror}.", path=self._path.parent) from error
        self._give_back(self._connect("rwc"))
        with self.read() as tx:
            version = migrations.version_of(tx)
        if version != migrations.LATEST:
            migrations.upgrade(self._path, version, self.write, self._copy_to)
        self._identity = _identity(self._path)

    def _copy_to(self, place: Path) -> None:
        """Make a complete copy of the file as it is now; it is on the disk when this returns."""
        connection = self._take()
        try:
            copy = sqlite3.connect(place)
            try:
                connection.backup(copy)
            finally:
                copy.close()
        finally:
            self._give_back(connection)

    # ---- errors

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._translate(error) from error

    def _translate(self, error: sqlite3.Error) -> IndexerError:
        code = _primary(error)
        kind = ERRORS.get(code, IndexerError)
        if code in DISK_MAY_BE_FULL and self._is_disk_full():
            kind = StorageFull
        if kind is StorageFull:
            return StorageFull(
                "No room left on the catalogue's disk.",
                "Free some space; nothing accepted before is lost.",
                path=self._path,
            )
        if kind is CatalogueBusy:
            return CatalogueBusy(
                f"Another process has held the catalogue for over {self._busy_timeout_s:g} s.",
                "Try again.",
                path=self._path,
            )
        if kind is CatalogueUnreadable and code in DAMAGED:
            return CatalogueUnreadable(
                f"The catalogue is damaged ({error}).",
                "Restore it from a backup, or index into another data folder.",
                path=self._path,
            )
        if kind is CatalogueUnreadable:
            return CatalogueUnreadable(
                f"The catalogue can't be opened or written ({error}).",
                "Check that it is there and that its folder may be written.",
                path=self._path,
            )
        text = f"The catalogue refused a request ({type(error).__name__}: {error})."
        return IndexerError(text, path=self._path)

    def _is_disk_full(self) -> bool:
        try:
            return shutil.disk_usage(self._path.parent).free < FREE_BYTES_OF_A_FULL_DISK
        except OSError:
            return False


# SQLite's primary result codes -> what they mean to us. IndexerError: a fault of this program or of the SQLite library.
ERRORS: dict[int, type[IndexerError]] = {
    sqlite3.SQLITE_FULL: StorageFull,
    sqlite3.SQLITE_BUSY: CatalogueBusy,
    sqlite3.SQLITE_LOCKED: CatalogueBusy,
    sqlite3.SQLITE_PROTOCOL: CatalogueBusy,  # the WAL's locks were contended for too long
    sqlite3.SQLITE_CORRUPT: CatalogueUnreadable,
    sqlite3.SQLITE_NOTADB: CatalogueUnreadable,
    sqlite3.SQLITE_FORMAT: CatalogueUnreadable,
    sqlite3.SQLITE_READONLY: CatalogueUnreadable,
    sqlite3.SQLITE_CANTOPEN: CatalogueUnreadable,
    sqlite3.SQLITE_PERM: CatalogueUnreadable,
    sqlite3.SQLITE_AUTH: CatalogueUnreadable,
    sqlite3.SQLITE_IOERR: CatalogueUnreadable,
    sqlite3.SQLITE_NOLFS: CatalogueUnreadable,  # the file is larger than this system's files may be
    sqlite3.SQLITE_ABORT: IndexerError,
    sqlite3.SQLITE_CONSTRAINT: IndexerError,
    sqlite3.SQLITE_EMPTY: IndexerError,
    sqlite3.SQLITE_ERROR: IndexerError,
    sqlite3.SQLITE_INTERNAL: IndexerError,
    sqlite3.SQLITE_INTERRUPT: IndexerError,
    sqlite3.SQLITE_MISMATCH: IndexerError,
    sqlite3.SQLITE_MISUSE: IndexerError,
    sqlite3.SQLITE_NOMEM: IndexerError,
    sqlite3.SQLITE_NOTFOUND: IndexerError,
    sqlite3.SQLITE_RANGE: IndexerError,
    sqlite3.SQLITE_SCHEMA: IndexerError,
    sqlite3.SQLITE_TOOBIG: IndexerError,
}
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
DISK_MAY_BE_FULL = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
"""What SQLite reports where a full disk keeps it from growing its WAL or its shared memory."""


def _primary(error: sqlite3.Error) -> int:
    """SQLite's primary result code of an error, 0 where the Python layer raised it."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
