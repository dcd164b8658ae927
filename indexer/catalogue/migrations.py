"""Brings a catalogue of any earlier format to the current one: numbered steps, each in one transaction.

To change the tables, write sql/NNNN_what.sql (or a function of an open transaction, where SQL alone can't do it) and
add a line to MIGRATIONS; tests/unit/indexer/catalogue/test_migrations.py then opens files of every older format.
Before an older file is upgraded, a copy is kept beside it until everything has been read once without errors.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path, PurePath

from indexer.catalogue.rows import Transaction
from indexer.errors import CatalogueUnreadable, StorageFull
from indexer.locks import FolderLock

Migration = Callable[[Transaction], None]

SPARE_BYTES = 16 * 2**20
"""Room that an upgrade leaves free besides the copy and the write-ahead log."""


def _sql(name: str) -> Migration:
    """The statements of a file in sql/, one by one: sqlite3's executescript would commit on its own."""

    def run(tx: Transaction) -> None:
        text = resources.files("indexer.catalogue").joinpath("sql", name).read_text(encoding="utf-8")
        statement = ""
        for line in text.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                tx.change(statement)
                statement = ""
        if statement.strip():
            raise ValueError(f"{name} ends in the middle of a statement")

    return run


def _managed_paths_become_relative(tx: Transaction) -> None:
    """Format 1 kept the absolute path of an uploaded file, so a copied data folder pointed into the original."""
    for row in tx.rows("SELECT id, path FROM videos WHERE is_managed"):
        name = PurePath(os.fsdecode(row["path"])).name
        tx.change("UPDATE videos SET path = ? WHERE id = ?", os.fsencode(f"media/{name}"), row["id"])


MIGRATIONS: tuple[Migration, ...] = (
    _sql("0001_first_tables.sql"),
    _managed_paths_become_relative,
    _sql("0003_time_of_change.sql"),
    _sql("0004_messages_without_folders.sql"),
    _sql("0005_numbers_of_videos.sql"),
    _sql("0006_progress.sql"),
)
"""Step n brings format n - 1 to format n; format 0 is an empty file."""

LATEST = len(MIGRATIONS)


def version_of(tx: Transaction) -> int:
    """The format of the open file."""
    return int(tx.rows("PRAGMA user_version")[0][0])


def upgrade(
    path: Path,
    version: int,
    write: Callable[[], AbstractContextManager[Transaction]],
    copy_to: Callable[[Path], None],
) -> None:
    """Upgrade the file at `path` from format `version` to LATEST. Several processes may try at once.

    write: opens a transaction. copy_to: makes a complete copy of the file.
    Raises: CatalogueUnreadable for a newer format or another program's file, StorageFull if there is no room.
    """
    if version > LATEST:
        raise CatalogueUnreadable(
            f"The catalogue has the format {version}; this program knows the formats up to {LATEST}.",
            "Use the newer version of Vidgrain that made it, or another data folder.",
            path=path,
        )
    with FolderLock(path.parent).holding():
        with write() as tx:
            version = version_of(tx)
            if version == 0:
                _create(tx, path)
                return
        if version < LATEST:
            _keep_copy(path, version, copy_to)
        while version < LATEST:
            with write() as tx:
                version = _step(tx, version_of(tx))


def drop_copies(path: Path) -> None:
    """Delete the copies that upgrades of this file have kept."""
    for copy in path.parent.glob(f"{path.name}.format-*"):
        copy.unlink(missing_ok=True)


def _create(tx: Transaction, path: Path) -> None:
    if tx.row("SELECT 1 FROM sqlite_master"):
        raise CatalogueUnreadable("This is an SQLite file, but not a catalogue of Vidgrain.", path=path)
    version = 0
    while version < LATEST:
        version = _step(tx, version)


def _step(tx: Transaction, version: int) -> int:
    """Run the next step; returns the format reached."""
    MIGRATIONS[version](tx)
    tx.change(f"PRAGMA user_version = {version + 1}")
    return version + 1


def _keep_copy(path: Path, version: int, copy_to: Callable[[Path], None]) -> None:
    """Make a copy beside the file, complete or not at all. Raises: StorageFull."""
    size_bytes = sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}-wal")) if file.exists())
    needed_bytes = 2 * size_bytes + SPARE_BYTES
    free_bytes = shutil.disk_usage(path.parent).free
    if free_bytes < needed_bytes:
        raise StorageFull(
            f"To upgrade the catalogue, {needed_bytes:,} bytes must be free on its disk; there are {free_bytes:,}.",
            "Free some space and start again; nothing was changed.",
            path=path,
        )
    copy = path.with_name(f"{path.name}.format-{version}")
    partial = copy.with_name(f"{copy.name}.part")
    try:
        partial.unlink(missing_ok=True)
        copy_to(partial)
        partial.replace(copy)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
