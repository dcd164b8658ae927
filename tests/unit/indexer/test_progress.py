"""How far jobs are, how fast, and when they end: pure numbers with the time given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from indexer.progress import JobSum, SizedJob, eta_s, fraction, queue_progress, x_real_time
from indexer.records import Job, JobProgress, JobStatus, QueueProgress

QUEUED = Job("j", "index_video", "v", "queued", "queued", JobProgress(), 0, 3, 0.0, None, None, None, None)
NOW_S = 1000.0


def running(done_s: float, total_s: float, *, since: float = 990.0, until: float = NOW_S, frames: int = 0) -> Job:
    """A job in work, `done_s` of `total_s` seconds of video done between `since` and `until`."""
    progress = JobProgress(1, 9, frames, done_s, total_s)
    return replace(
        QUEUED,
        status="running",
        stage="encode",
        progress=progress,
        working_since=since,
        updated_at=until,
        started_at=1.0,
    )


def succeeded(total_s: float, *, since: float, until: float, frames: int = 0) -> Job:
    """A job that has ended well."""
    progress = JobProgress(9, 9, frames, total_s, total_s)
    return replace(QUEUED, status="succeeded", progress=progress, working_since=since, finished_at=until)


def queue(
    *,
    queued: int = 0,
    queued_bytes: int = 0,
    in_work: list[Job | SizedJob] | None = None,
    done: list[Job | SizedJob] | None = None,
    num_succeeded: int | None = None,
    ended: dict[str, int] | None = None,
) -> QueueProgress:
    """The progress of such a queue at NOW_S; a bare job has a file of 100 bytes."""
    sized: list[list[Any]] = [
        [job if isinstance(job, SizedJob) else SizedJob(job, 100, None) for job in jobs or []]
        for jobs in (in_work, done)
    ]
    counts: dict[JobStatus, tuple[int, int]] = {
        "queued": (queued, queued_bytes),
        "running": (len(sized[0]), 0),
        "succeeded": (len(sized[1]) if num_succeeded is None else num_succeeded, 0),
        "failed": (0, 0),
        "cancelled": (0, 0),
    }
    sums = {status: JobSum(jobs, size, (ended or {}).get(status, 0)) for status, (jobs, size) in counts.items()}
    return queue_progress(NOW_S, sums, sized[0], sized[1])


def test_a_job_in_work_shows_its_speed_and_its_end() -> None:
    job = running(30.0, 90.0)
    assert (fraction(job), x_real_time(job), eta_s(job)) == (30 / 90, 3.0, 20.0)


def test_a_job_that_has_ended_shows_its_speed_and_no_end() -> None:
    job = succeeded(90.0, since=980.0, until=995.0)
    assert (fraction(job), x_real_time(job), eta_s(job)) == (1.0, 6.0, None)


@pytest.mark.parametrize(
    "job",
    [
        QUEUED,
        running(0.0, 90.0),
        running(30.0, 90.0, since=999.5),
        replace(running(30.0, 90.0), status="failed"),
        replace(running(30.0, 90.0), working_since=None),
        replace(succeeded(90.0, since=5.0, until=5.0), working_since=5.0),
    ],
    ids=["queued", "nothing done", "just begun", "failed", "of an older format", "in no time"],
)
def test_a_speed_that_cannot_be_known_is_none(job: Job) -> None:
    assert (x_real_time(job), eta_s(job)) == (None, None)


def test_before_seconds_are_known_segments_are_counted() -> None:
    job = replace(QUEUED, status="running", progress=JobProgress(segments_done=2, segments_total=5))
    assert fraction(job) == 0.4 and fraction(QUEUED) == 0.0
    assert fraction(running(91.0, 90.0)) == 1.0, "a container may promise less than it holds"


def test_the_end_of_a_queue_that_never_moved_is_unknown() -> None:
    found = queue(queued=3, queued_bytes=300)
    assert (found.seconds_left, found.x_real_time, found.frames_per_s, found.eta_s) == (None, None, None, None)
    assert queue().eta_s == 0.0, "an empty queue has ended"


def test_queued_files_are_estimated_from_their_bytes() -> None:
    """60 s in 100 bytes and 20 s left, then 200 bytes in the queue, of 0.8 s each."""
    found = queue(
        queued=2, queued_bytes=200, in_work=[running(80.0, 100.0)], done=[succeeded(60.0, since=980, until=990)]
    )
    assert found.seconds_per_byte == (100 + 60) / 200
    assert found.seconds_left == 20.0 + 200 * 0.8
    assert found.x_real_time == (60 + 80) / 20
    assert found.eta_s == pytest.approx(180 / 7)


def test_a_file_that_is_not_probed_yet_is_estimated_too_unless_it_was_indexed_before() -> None:
    new, again = (
        SizedJob(replace(QUEUED, status="running", working_since=999.0, updated_at=999.0), 50, duration_s)
        for duration_s in (None, 7.0)
    )
    done = succeeded(60.0, since=980, until=990)
    assert queue(in_work=[new], done=[done]).seconds_left == pytest.approx(50 * 0.6)
    assert queue(in_work=[again], done=[done]).seconds_left == 7.0


def test_workers_side_by_side_add_up_and_pauses_do_not_count() -> None:
    first, second = (succeeded(40.0, since=900, until=910, frames=20) for _ in range(2))
    third = running(30.0, 50.0, since=995, until=1000, frames=10)
    found = queue(in_work=[third], done=[first, second])
    assert found.x_real_time == (40 + 40 + 30) / (10 + 5)
    assert found.frames_per_s == 50 / 15


def test_only_the_last_minutes_count() -> None:
    """Half of a job's work lies within the window; one before it is forgotten."""
    straddling, old = succeeded(80.0, since=860.0, until=900.0), succeeded(9000.0, since=700.0, until=710.0)
    found = queue(done=[straddling, old])
    assert found.x_real_time == pytest.approx(40 / 20)
    assert queue(done=[old]).x_real_time is None


def test_where_not_all_recent_jobs_were_read_speed_is_measured_from_the_oldest_of_them() -> None:
    """Jobs that ended before it may have worked at the same time: what they did is unknown."""
    jobs = [succeeded(10.0, since=990.0, until=1000.0), succeeded(50.0, since=900.0, until=995.0)]
    assert queue(done=list(jobs), num_succeeded=9).x_real_time == pytest.approx(5.0 / 5.0)


def test_a_job_that_is_nearly_done_leaves_nothing_below_zero() -> None:
    found = queue(in_work=[running(91.0, 90.0)])
    assert (found.seconds_left, found.eta_s) == (0.0, 0.0)


def test_what_ended_is_counted() -> None:
    found = queue(queued=2, in_work=[running(1.0, 2.0)], ended={"succeeded": 5, "failed": 2, "cancelled": 1})
    assert (found.queued, found.running, found.num_ended) == (2, 1, 8)
