"""kill -9 at any moment: no video is lost, none is indexed twice, nothing is half there."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexer.indexing.pipeline import index_video
from indexer.indexing.worker import SPARE_JOBS, Worker, WorkerConfig
from indexer.media.frame_source import ReleasableSource
from tests.support.catalogues import Catalogue, Clock
from tests.support.clips import numbered_frames, write_clip
from tests.support.fake_sandbox import write_fake_video
from tests.support.fakes import COLOURS, FakeModel
from tests.support.killable import (
    UnhurriedSandbox,
    add_file,
    add_many,
    has_open_jobs,
    kill,
    pipeline_config,
    sandbox,
    start,
    work,
)

NUM_VIDEOS = 20
JOBS_IN_HAND = 2 + SPARE_JOBS
MAX_KILLS = 25
STUCK_S = 600


@pytest.mark.parametrize(("seed", "num_workers"), [(1, 1), (2, 1), (3, 3)])
def test_all_videos_are_indexed_once_whenever_the_workers_are_killed(
    tmp_path: Path, seed: int, num_workers: int
) -> None:
    dice = random.Random(seed)
    files = [
        write_fake_video(tmp_path / f"video {n}", dice.uniform(0.1, 9.0), dice.choice(sorted(COLOURS)))
        for n in range(NUM_VIDEOS)
    ]
    index_under_fire(tmp_path / "catalogue.sqlite", files, dice, num_workers, 0.015, (0.0, 0.2))


def test_real_clips_in_the_real_sandbox_are_indexed_once_too(tmp_path: Path) -> None:
    dice = random.Random(5)
    files = []
    for n in range(NUM_VIDEOS):
        pictures = numbered_frames(dice.randrange(1, 60), (96, 64), first=100 * n)
        files.append(write_clip(tmp_path / f"{n}.mp4", pictures, 10, "mpeg4"))
    index_under_fire(tmp_path / "catalogue.sqlite", files, dice, 1, None, (0.0, 0.08), max_kills=6)


def test_killed_decode_children_cost_attempts_and_nothing_else(tmp_path: Path) -> None:
    """Two children decode for one worker; again and again one of them is killed while it is at work."""
    dice = random.Random(6)
    files = [
        write_clip(tmp_path / f"{n}.mp4", numbered_frames(dice.randrange(20, 60), (96, 64), first=100 * n), 10, "mpeg4")
        for n in range(NUM_VIDEOS)
    ]
    clock, stop = Clock(), threading.Event()
    with (
        Catalogue(tmp_path / "catalogue.sqlite", clock=clock) as catalogue,
        UnhurriedSandbox() as one,
        UnhurriedSandbox() as other,
    ):
        ids = [add_file(catalogue, file, max_attempts=1000) for file in files]

        def wait(seconds: float) -> None:
            clock.pass_s(400.0)  # beyond every pause before the next attempt
            if not has_open_jobs(catalogue):
                stop.set()

        config = WorkerConfig(lease_s=3600.0, heartbeat_s=0.05, poll_s=0.02, pipeline=pipeline_config())
        worker = Worker(catalogue, [one, other], FakeModel(), config, wait=wait)
        thread = threading.Thread(target=worker.run, args=(stop,))
        thread.start()
        num_kills = 0
        while num_kills < 8 and thread.is_alive():
            time.sleep(dice.uniform(0.0, 0.3))
            if (pid := dice.choice([one, other]).child_pid) is not None:
                os.kill(pid, signal.SIGKILL)
                num_kills += 1
        thread.join(STUCK_S)
        assert not thread.is_alive(), "a job is stuck"
        assert num_kills == 8
        check_indexed_once(catalogue, ids, one)
    check_file(tmp_path / "catalogue.sqlite")


def index_under_fire(
    path: Path,
    files: list[Path],
    dice: random.Random,
    num_workers: int,
    delay_s: float | None,
    pause_s: tuple[float, float],
    max_kills: int = MAX_KILLS,
) -> None:
    """Index the files with workers that are killed after random pauses and started again, until all is done."""
    with Catalogue(path) as catalogue:
        ids = [add_file(catalogue, file, max_attempts=1000) for file in files]
        num_kills = 0
        workers = [start(work, path, delay_s) for _ in range(num_workers)]
        while num_kills < max_kills and has_open_jobs(catalogue):
            if dice.random() < 0.8:  # else perhaps in the middle of its start
                wait_for_a_claim(catalogue)
            time.sleep(dice.uniform(*pause_s))
            victim = dice.randrange(num_workers)
            kill(workers[victim])
            num_kills += 1
            check_nothing_is_half_there(path)
            workers[victim] = start(work, path, delay_s)
        for worker in workers:
            worker.join(STUCK_S)
            assert worker.exitcode == 0, "a job is stuck"
            worker.close()
        with sandbox(None if delay_s is None else 0.0) as source:
            check_indexed_once(catalogue, ids, source)
        attempts = num_attempts(catalogue)
        assert attempts > NUM_VIDEOS, "some kills hit a job at work"
        if num_workers == 1:  # of several, a starved one may lose its lease alive
            assert attempts <= NUM_VIDEOS + JOBS_IN_HAND * num_kills, "only kills cost attempts, and of held jobs only"
    check_file(path)


def num_attempts(catalogue: Catalogue) -> int:
    """How often a job was claimed so far."""
    return sum(job.attempt for job in catalogue.list_jobs(limit=1000)[0])


def wait_for_a_claim(catalogue: Catalogue) -> None:
    """Until some worker has taken a job, or all are done."""
    before = num_attempts(catalogue)
    give_up_at = time.monotonic() + STUCK_S
    while num_attempts(catalogue) == before and has_open_jobs(catalogue):
        assert time.monotonic() < give_up_at, "no worker takes a job"
        time.sleep(0.005)


def check_indexed_once(catalogue: Catalogue, ids: list[str], source: ReleasableSource) -> None:
    """Each video is ready with exactly the features that an undisturbed run makes; each job has succeeded."""
    assert catalogue.count_jobs() == {"queued": 0, "running": 0, "succeeded": len(ids), "failed": 0, "cancelled": 0}
    assert {video.id for video in catalogue.list_videos(limit=1000)[0]} == set(ids)
    assert [change.video_id for change in catalogue.changes(0) if change.is_live] != []
    assert {change.video_id for change in catalogue.changes(0)} == set(ids)
    num_segments = 0
    for video_id in ids:
        video, stored = catalogue.get_video(video_id), catalogue.segments(video_id)
        expected = index_video(video, [source], FakeModel(), pipeline_config())
        assert (video.status, video.num_segments, video.media) == ("ready", len(expected.segments), expected.media)
        assert [segment.position for segment in stored] == list(range(len(expected.segments)))
        for back, wanted in zip(stored, expected.segments, strict=True):
            assert (back.features.start_s, back.features.end_s) == (wanted.start_s, wanted.end_s)
            assert back.features.times_s == wanted.times_s
            np.testing.assert_array_equal(back.features.pooled, wanted.pooled)
            np.testing.assert_array_equal(back.features.frames, wanted.frames)
        num_segments += len(stored)
    assert catalogue.count() == (len(ids), num_segments)
    assert catalogue.published()[:, 2].sum() == num_segments


def check_nothing_is_half_there(path: Path) -> None:
    """At any moment: a job that is done has its video's features, one that is not has none, and counts are true."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT j.status = 'succeeded', v.status = 'ready', v.num_segments > 0, v.seq IS NOT NULL, "
            "v.num_segments, (SELECT COUNT(*) FROM segments AS s WHERE s.video_id = v.id) "
            "FROM jobs AS j JOIN videos AS v ON v.id = j.video_id"
        ).fetchall()
    assert len(rows) == NUM_VIDEOS
    for is_done, is_ready, has_segments, has_seq, num_segments, num_rows in rows:
        assert is_done == is_ready == has_segments == has_seq
        assert num_segments == num_rows


def check_file(path: Path) -> None:
    """SQLite finds nothing wrong with the file, and no row points nowhere."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_what_was_acknowledged_is_there_and_never_without_its_job(tmp_path: Path) -> None:
    dice = random.Random(4)
    path, acknowledged = tmp_path / "catalogue.sqlite", tmp_path / "acknowledged"
    acknowledged.touch()
    num_done = 0
    for _ in range(20):
        adders = [start(add_many, path, acknowledged, num_done + 10_000 * n, 10_000) for n in range(2)]
        time.sleep(dice.uniform(0.02, 0.2))
        for adder in adders:
            kill(adder)
        num_done += dice.randrange(5)  # some that are known already come again
    known = {tuple(line.split()) for line in acknowledged.read_text().splitlines()}
    assert len(known) > 20
    with Catalogue(path) as catalogue:
        jobs, cursor = catalogue.list_jobs(limit=1000)
        while cursor is not None:
            page, cursor = catalogue.list_jobs(limit=1000, cursor=cursor)
            jobs += page
        pairs = {(job.video_id, job.id) for job in jobs}
        assert known <= pairs
        assert len(pairs) == len({video_id for video_id, _ in pairs}), "no content has two jobs"
        for video_id, _ in pairs:
            assert catalogue.get_video(video_id).status == "pending"
    check_file(path)
    with closing(sqlite3.connect(path)) as connection:
        (num_videos,) = connection.execute("SELECT COUNT(*) FROM videos").fetchone()
    assert num_videos == len(pairs), "no video without a job"
