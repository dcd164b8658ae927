"""The progress of jobs in the catalogue: what a worker's reports leave, and what all jobs together come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue import jobs, queue
from indexer.catalogue.rows import Transaction
from indexer.records import JobProgress
from tests.support.catalogues import MEDIA, SPEC, Catalogue, Clock, add, add_ready, claim, features


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalogue(tmp_path: Path, clock: Clock) -> Iterator[Catalogue]:
    with Catalogue(tmp_path / "catalogue.sqlite", clock=clock) as opened:
        opened.bind_model(SPEC)
        yield opened


def test_speed_is_measured_from_the_first_report_after_probing(catalogue: Catalogue, clock: Clock) -> None:
    add(catalogue, "a")
    job = claim(catalogue)
    clock.pass_s(3)
    catalogue.heartbeat(job, 10, "probe", JobProgress())
    clock.pass_s(1)
    began_s = clock()
    catalogue.heartbeat(job, 10, "encode", JobProgress(segments_total=5, seconds_total=50.0))
    clock.pass_s(2)
    after = catalogue.heartbeat(job, 10, "encode", JobProgress(2, 5, 24, 20.0, 50.0))
    assert (after.working_since, after.updated_at) == (began_s, clock())
    assert after.progress == JobProgress(2, 5, 24, 20.0, 50.0)
    queue = catalogue.queue()
    assert (queue.x_real_time, queue.frames_per_s, queue.eta_s) == (10.0, 12.0, 3.0)


def test_a_short_clip_that_was_encoded_before_its_first_report_has_worked_since_it_was_probed(
    catalogue: Catalogue, clock: Clock
) -> None:
    add(catalogue, "a")
    job = claim(catalogue)
    clock.pass_s(1)
    after = catalogue.heartbeat(job, 10, "encode", JobProgress(1, 1, 12, 4.0, 4.0), 0.75)
    assert after.working_since == clock() - 0.75


def test_each_attempt_starts_from_nothing(catalogue: Catalogue, clock: Clock) -> None:
    add(catalogue, "a")
    half = JobProgress(1, 2, 12, 4.0, 8.0)
    job = claim(catalogue)
    catalogue.heartbeat(job, 10, "encode", half)
    catalogue.release_job(job)
    assert catalogue.get_job(job.id).progress == JobProgress()
    job = claim(catalogue)
    catalogue.heartbeat(job, 10, "encode", half)
    catalogue.fail_job(job, "internal", "boom", True)
    assert catalogue.get_job(job.id).progress == JobProgress()
    clock.pass_s(100)
    job = claim(catalogue, lease_s=1)
    catalogue.heartbeat(job, 1, "encode", half)
    clock.pass_s(2)
    taken = claim(catalogue, "another")
    assert (taken.progress, taken.working_since, taken.updated_at) == (JobProgress(), clock(), clock())
    catalogue.heartbeat(taken, 10, "encode", half)
    catalogue.fail_job(taken, "video_undecodable", "no", False)
    assert catalogue.get_job(job.id).progress == half, "how far it came"


def test_what_ended_is_counted_from_when_the_queue_was_last_empty(catalogue: Catalogue, clock: Clock) -> None:
    add_ready(catalogue, "before")
    first, second, third = (add(catalogue, name) for name in ("a", "b", "c"))
    catalogue.publish(claim(catalogue), MEDIA, features(1), SPEC.fingerprint)
    catalogue.fail_job(claim(catalogue), "video_undecodable", "no", False)
    catalogue.cancel_job(third.job_id)
    ended = catalogue.queue()
    assert (ended.succeeded, ended.failed, ended.cancelled, ended.num_ended) == (1, 1, 1, 3)
    assert (ended.queued, ended.running, ended.seconds_left) == (0, 0, 0.0)
    catalogue.retry_job(second.job_id)
    assert (catalogue.queue().num_ended, catalogue.queue().queued) == (0, 1), "the queue had been empty"
    catalogue.publish(claim(catalogue), MEDIA, features(1), SPEC.fingerprint)
    assert catalogue.queue().succeeded == 1
    assert first.job_id


def scans(catalogue: Catalogue, ask: Callable[[Transaction], object]) -> set[str]:
    """The steps of a request's queries that walk through something from its beginning, in SQLite's words."""
    found: set[str] = set()
    with catalogue.read() as tx:
        execute = tx._execute

        def watched(sql: str, parameters: Any) -> Any:
            found.update(row["detail"] for row in execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall())
            return execute(sql, parameters)

        ask(Transaction(watched, tx.now_s, tx.folder))
    return {step for step in found if step.startswith("SCAN")}


def test_the_progress_of_a_long_queue_reads_a_few_rows(catalogue: Catalogue) -> None:
    """The running jobs, the newest that succeeded, one row for each status."""
    few = {"SCAN j USING INDEX jobs_one_running", "SCAN j USING INDEX jobs_succeeded", "SCAN job_sums"}
    assert scans(catalogue, queue.progress) == few


def test_jobs_are_listed_by_id_without_walking_through_all(catalogue: Catalogue) -> None:
    first, second = (add(catalogue, name).job_id for name in ("a", "b"))
    add(catalogue, "c")
    assert [job.id for job in catalogue.list_jobs(ids=[first, second, "unknown"])[0]] == [second, first]
    assert catalogue.list_jobs(ids=[])[0] == ()
    steps = scans(catalogue, lambda tx: jobs.list_page(tx, ids=[first, second]))
    assert steps == {"SCAN json_each VIRTUAL TABLE INDEX 1:"}


def test_a_video_records_which_frames_it_was_made_of(catalogue: Catalogue) -> None:
    added = add(catalogue, "a")
    catalogue.publish(claim(catalogue), MEDIA, features(1), SPEC.fingerprint, sampling="keyframes")
    assert catalogue.get_video(added.video_id).sampling == "keyframes"
    add(catalogue, "a", on_duplicate="replace")
    catalogue.publish(claim(catalogue), MEDIA, features(1), SPEC.fingerprint)
    assert catalogue.get_video(added.video_id).sampling == "exact"
