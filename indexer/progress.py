"""How fast indexing goes and when it ends, for one job and for the whole queue. Pure functions: no SQL and no clock.

"x real time" is seconds of video per second. Where nothing can be known yet, the answer is None, never a guess; the
length of a file that was not probed yet is estimated from its size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from indexer.records import Job, JobStatus, QueueProgress

WINDOW_S = 120.0
"""The speed of the queue is that of the last two minutes."""
LEAST_S = 1.0
"""Speed is unknown until so long was worked: the first segments come in lumps."""


@dataclass(frozen=True, slots=True)
class JobSum:
    """What all jobs of one status come to."""

    jobs: int
    size_bytes: int
    """Of their videos' files."""
    ended: int
    """How many ended with this status since the queue was last empty."""


@dataclass(frozen=True, slots=True)
class SizedJob:
    """A job and what is known about its file."""

    job: Job
    size_bytes: int
    duration_s: float | None
    """None unless the video was indexed before, or this job has done so."""


def fraction(job: Job) -> float:
    """The part of the job that is done, 0 to 1: in seconds of video once they are known, else in segments."""
    done = job.progress
    if job.status == "succeeded":
        return 1.0
    if done.seconds_total > 0:
        return min(1.0, done.seconds_done / done.seconds_total)
    return min(1.0, done.segments_done / done.segments_total) if done.segments_total else 0.0


def x_real_time(job: Job) -> float | None:
    """Seconds of video per second of a running job or of one that has succeeded; None where that is unknown."""
    until_s = job.updated_at if job.status == "running" else job.finished_at if job.status == "succeeded" else None
    if until_s is None or job.working_since is None or not job.progress.seconds_done:
        return None
    worked_s = until_s - job.working_since
    return job.progress.seconds_done / worked_s if worked_s >= (LEAST_S if job.status == "running" else 1e-3) else None


def eta_s(job: Job) -> float | None:
    """Seconds from its last report until a running job ends, at its speed so far; None where that is unknown."""
    speed = x_real_time(job)
    if job.status != "running" or speed is None or not job.progress.seconds_total:
        return None
    return max(0.0, job.progress.seconds_total - job.progress.seconds_done) / speed


def queue_progress(
    now_s: float, sums: Mapping[JobStatus, JobSum], running: Sequence[SizedJob], succeeded: Sequence[SizedJob]
) -> QueueProgress:
    """What is left to do and when it ends, over all workers.

    sums: over all jobs, one for each status. running: all of them. succeeded: the latest; those before the oldest of
    them are unknown, so that speed is measured from there on.
    """
    began_s = now_s - WINDOW_S
    if succeeded and len(succeeded) < sums["succeeded"].jobs:
        began_s = max(began_s, min(_until(sized.job) for sized in succeeded))
    seconds, frames, busy_s = _work_since(began_s, [sized.job for sized in (*running, *succeeded)])
    is_known = busy_s >= LEAST_S and seconds > 0
    speed = seconds / busy_s if is_known else None
    rate = _seconds_per_byte((*running, *succeeded))
    left_s = _seconds_left(running, sums["queued"].size_bytes, rate)
    return QueueProgress(
        queued=sums["queued"].jobs,
        running=sums["running"].jobs,
        succeeded=sums["succeeded"].ended,
        failed=sums["failed"].ended,
        cancelled=sums["cancelled"].ended,
        seconds_left=left_s,
        seconds_per_byte=rate,
        x_real_time=speed,
        frames_per_s=frames / busy_s if is_known else None,
        eta_s=0.0 if left_s == 0 else left_s / speed if left_s is not None and speed is not None else None,
    )


def _until(job: Job) -> float:
    """When the job's progress was as it is."""
    return (job.finished_at or 0.0) if job.status == "succeeded" else (job.updated_at or 0.0)


def _work_since(began_s: float, jobs: Iterable[Job]) -> tuple[float, float, float]:
    """Seconds of video and frames that were done since then, and how long any of these jobs was worked on."""
    seconds = frames = 0.0
    stretches: list[tuple[float, float]] = []
    for job in jobs:
        until_s = _until(job)
        if job.working_since is None or until_s <= began_s or not job.progress.seconds_done:
            continue
        since_s = min(job.working_since, until_s)
        part = (until_s - max(since_s, began_s)) / (until_s - since_s) if until_s > since_s else 1.0
        seconds += part * job.progress.seconds_done
        frames += part * job.progress.frames_done
        stretches.append((max(since_s, began_s), until_s))
    busy_s, end_s = 0.0, began_s
    for since_s, until_s in sorted(stretches):
        busy_s += max(0.0, until_s - max(since_s, end_s))
        end_s = max(end_s, until_s)
    return seconds, frames, busy_s


def _seconds_per_byte(measured: Iterable[SizedJob]) -> float | None:
    """Seconds of video in a byte of a file, from those whose length is known."""
    known = [(_length_s(sized), sized.size_bytes) for sized in measured]
    num_bytes = sum(size for length_s, size in known if length_s)
    return sum(length_s or 0.0 for length_s, _ in known) / num_bytes if num_bytes else None


def _length_s(sized: SizedJob) -> float | None:
    return sized.job.progress.seconds_total or sized.duration_s


def _seconds_left(running: Iterable[SizedJob], queued_bytes: int, seconds_per_byte: float | None) -> float | None:
    """Seconds of video that are not done; None where a file's length is unknown and can't be estimated."""
    left_s, unknown_bytes = 0.0, queued_bytes
    for sized in running:
        length_s = _length_s(sized)
        if length_s:
            left_s += max(0.0, length_s - sized.job.progress.seconds_done)
        else:
            unknown_bytes += sized.size_bytes
    if not unknown_bytes:
        return left_s
    return None if seconds_per_byte is None else left_s + unknown_bytes * seconds_per_byte
