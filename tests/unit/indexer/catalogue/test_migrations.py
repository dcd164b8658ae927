"""Files of every older format are brought up whole, or left as they were."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue import migrations, shard_tokens
from indexer.catalogue.database import Database
from indexer.catalogue.reader import CatalogueReader
from indexer.catalogue.rows import Transaction
from indexer.errors import CatalogueUnreadable, StorageFull
from indexer.records import JobProgress
from indexer.vectors import VectorIndex
from tests.support.catalogues import MEDIA, SPEC, Catalogue, add, add_ready
from tests.support.views import held

FIRST_TABLES = resources.files("indexer.catalogue").joinpath("sql", "0001_first_tables.sql")


def first_format(path: Path) -> None:
    """A file as the first release made it, with an uploaded video, a named one and a removed one in it."""
    db = sqlite3.connect(path)
    db.executescript(FIRST_TABLES.read_text(encoding="utf-8"))
    db.execute("PRAGMA user_version = 1")
    columns = "id, sha256, seq, title, path, is_managed, size_bytes, metadata, status, created_at, removed_at"
    rows = [
        ("up", "a" * 64, 1, "uploaded", b"/old/place/media/" + b"a" * 64 + b".mp4", 1, 7, "{}", "failed", 1.0, None),
        ("named", "b" * 64, 2, "named", b"/videos/\xff.mp4", 0, 8, '{"k": 1}', "failed", 2.0, None),
        ("gone", "c" * 64, 3, "gone", b"/old/place/media/c.mp4", 1, 9, "{}", "failed", 3.0, 4.0),
    ]
    db.executemany(f"INSERT INTO videos ({columns}) VALUES ({', '.join('?' * 11)})", rows)
    db.execute("UPDATE state SET value = '3' WHERE key = 'seq'")
    db.commit()
    db.close()


def version(path: Path) -> int:
    """The format of a file."""
    db = sqlite3.connect(path)
    (found,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return int(found)


def dump(path: Path) -> list[str]:
    """Everything that is in a file."""
    db = sqlite3.connect(path)
    lines = list(db.iterdump())
    db.close()
    return lines


def test_the_first_format_is_brought_up_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    first_format(path)
    with Catalogue(path) as catalogue:
        videos = {video.id: video for video in catalogue.list_videos()[0]}
        assert videos["up"].path == tmp_path / "media" / f"{'a' * 64}.mp4", "relative to the folder, wherever it lies"
        assert videos["named"].path == Path(os.fsdecode(b"/videos/\xff.mp4"))
        assert (videos["named"].metadata, videos["named"].mtime_ns) == ({"k": 1}, None)
        assert set(videos) == {"up", "named"}
        assert catalogue.last_seq() == 3
        catalogue.bind_model(SPEC)
        add_ready(catalogue, "new")
        numbers = [(change.video_id, change.number, change.features_seq) for change in catalogue.changes(0)]
        assert numbers[:3] == [("up", 1, 1), ("named", 2, 2), ("gone", 3, 3)], "in the order in which they were added"
        assert numbers[3][1:] == (4, 4)
    assert version(path) == migrations.LATEST


def test_videos_of_the_fourth_format_get_numbers_and_stay_searchable(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    with Catalogue(path) as catalogue:
        catalogue.bind_model(SPEC)
        a, b, c = (add_ready(catalogue, name, 2, seed=n) for n, name in enumerate("abc"))
        catalogue.remove_video(b)
        catalogue.update_video(a, title="new")
        add(catalogue, "pending")
        with catalogue.write() as tx:
            shard_tokens.renew(tx)
    fourth_format(path)
    with Catalogue(path) as catalogue:
        assert catalogue.published().tolist() == [[1, 5, 2], [3, 3, 2]], "what came before counts as new features"
        assert [change.number for change in catalogue.changes(0)] == [3, 2, 1]
        vectors = VectorIndex(SPEC.embed_dim, SPEC.num_frames)
        vectors.follow(CatalogueReader(catalogue))
        assert (set(held(vectors.view())), vectors.is_whole) == ({a, c}, True)
        with catalogue.read() as tx:
            assert shard_tokens.known(tx) == (), "files of before would skip the first reading of the new tables"
        add(catalogue, "next")
        assert max(row[0] for row in rows(path, "SELECT number FROM videos")) == 5


def test_jobs_of_the_fifth_format_are_summed_and_show_what_a_byte_holds(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    with Catalogue(path) as catalogue:
        catalogue.bind_model(SPEC)
        ready, queued = add_ready(catalogue, "ready"), add(catalogue, "twice as long")
        catalogue.cancel_job(add(catalogue, "cancelled").job_id)
    fifth_format(path)
    with Catalogue(path) as catalogue:
        counts = {"queued": 1, "running": 0, "succeeded": 1, "failed": 0, "cancelled": 1}
        assert catalogue.count_jobs() == counts
        assert catalogue.get_video(ready).sampling == "exact"
        assert catalogue.get_job(queued.job_id).progress == JobProgress()
        queue = catalogue.queue()
        assert queue.seconds_per_byte == MEDIA.duration_s / len("ready"), "from videos that were indexed before"
        assert queue.seconds_left == queue.seconds_per_byte * len("twice as long")
        assert (queue.num_ended, queue.x_real_time, queue.eta_s) == (0, None, None)


def fifth_format(path: Path) -> None:
    """Take back what the sixth format brought."""
    columns = {
        "videos": ["sampling"],
        "jobs": ["frames_done", "seconds_done", "seconds_total", "working_since", "updated_at"],
    }
    db = sqlite3.connect(path)
    for statement in (
        "DROP TRIGGER job_added",
        "DROP TRIGGER job_changed_status",
        "DROP TABLE job_sums",
        "DROP INDEX jobs_succeeded",
        *(f"ALTER TABLE {table} DROP COLUMN {name}" for table, names in columns.items() for name in names),
        "UPDATE state SET value = replace(value, '\"format\": 6', '\"format\": 5') WHERE key = 'shards'",
        "PRAGMA user_version = 5",
    ):
        db.execute(statement)
    db.commit()
    db.close()


def fourth_format(path: Path) -> None:
    """Take back what the fifth format and those after it brought."""
    fifth_format(path)
    db = sqlite3.connect(path)
    for statement in (
        "DROP INDEX videos_number",
        "DROP INDEX videos_published",
        "ALTER TABLE videos DROP COLUMN number",
        "ALTER TABLE videos DROP COLUMN features_seq",
        "UPDATE state SET value = replace(value, '\"format\": 5', '\"format\": 4') WHERE key = 'shards'",
        "PRAGMA user_version = 4",
    ):
        db.execute(statement)
    db.commit()
    db.close()


def rows(path: Path, sql: str) -> list[Any]:
    """What a query finds in a file."""
    db = sqlite3.connect(path)
    found = db.execute(sql).fetchall()
    db.close()
    return found


def test_a_new_file_has_the_tables_that_an_upgraded_one_has(tmp_path: Path) -> None:
    Database(tmp_path / "new.sqlite").close()
    first_format(tmp_path / "old.sqlite")
    Database(tmp_path / "old.sqlite").close()
    new, old = (
        [line for line in dump(tmp_path / name) if line.startswith("CREATE")] for name in ("new.sqlite", "old.sqlite")
    )
    assert new == old
    assert not list(tmp_path.glob("new.sqlite.format-*"))


def test_a_copy_of_the_older_file_is_kept_until_everything_was_read_well(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    first_format(path)
    before = dump(path)
    with Database(path) as database:
        copy = tmp_path / "catalogue.sqlite.format-1"
        assert dump(copy) == before and version(copy) == 1
    Database(path).close()
    assert copy.exists(), "opening alone says nothing of the features"
    with Database(path) as database:
        database.drop_old_copy()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["catalogue.sqlite"]


def test_a_step_that_fails_leaves_the_file_at_the_step_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "catalogue.sqlite"
    first_format(path)
    before = dump(path)

    def fail(tx: Transaction) -> None:
        tx.change("UPDATE videos SET title = 'half'")
        raise ValueError("a step with a fault")

    with monkeypatch.context() as patched:
        patched.setattr(migrations, "MIGRATIONS", (migrations.MIGRATIONS[0], fail))
        patched.setattr(migrations, "LATEST", 2)
        with pytest.raises(ValueError, match="fault"):
            Database(path)
    assert (version(path), dump(path)) == (1, before)
    Database(path).close()
    assert version(path) == migrations.LATEST


@pytest.mark.parametrize("at", range(1, 13))
def test_an_upgrade_that_is_killed_goes_on_at_the_next_start(tmp_path: Path, at: int) -> None:
    """kill -9 in the copy (1, 2), in each step, and between the steps."""
    path = tmp_path / "catalogue.sqlite"
    first_format(path)
    child = multiprocessing.get_context("fork").Process(target=_killed_upgrade, args=(path, at))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with Catalogue(path) as catalogue:
        assert {video.id for video in catalogue.list_videos()[0]} == {"up", "named"}
        assert catalogue.get_video("up").path == tmp_path / "media" / f"{'a' * 64}.mp4"
    assert version(path) == migrations.LATEST
    assert version(tmp_path / "catalogue.sqlite.format-1") == 1


def _killed_upgrade(path: Path, at: int) -> None:
    """Open the file, and be killed when the at-th event of the upgrade comes."""
    num_events = 0

    def event() -> None:
        nonlocal num_events
        num_events += 1
        if num_events == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def killed_in(step: migrations.Migration) -> migrations.Migration:
        def run(tx: Transaction) -> None:
            step(tx)
            event()

        return run

    class Watched(Database):
        def _copy_to(self, place: Path) -> None:
            event()
            super()._copy_to(place)
            event()

        def write(self) -> Any:
            if num_events >= 2:
                event()
            return super().write()

    migrations.MIGRATIONS = tuple(killed_in(step) for step in migrations.MIGRATIONS)
    Watched(path)


def test_without_room_for_the_copy_nothing_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "catalogue.sqlite"
    first_format(path)
    before = dump(path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(StorageFull, match=r"bytes must be free.*nothing was changed"):
        Database(path)
    assert (version(path), dump(path)) == (1, before)
    assert not list(tmp_path.glob("*.format-*"))


def test_a_file_of_a_newer_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    first_format(path)
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {migrations.LATEST + 1}")
    db.close()
    before = dump(path)
    with pytest.raises(CatalogueUnreadable, match="newer version of Vidgrain"):
        Database(path)
    assert dump(path) == before


def test_several_may_upgrade_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    first_format(path)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_upgrade, args=(path,)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    assert version(path) == migrations.LATEST


def _upgrade(path: Path) -> None:
    Database(path).close()
