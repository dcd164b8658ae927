"""The pure rules of jobs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from indexer.catalogue.job_rules import (
    TRANSITIONS,
    backoff_s,
    is_finished,
    is_lease_expired,
    judge_claim,
    may_try_again,
    require_transition,
)
from indexer.errors import JobConflict
from indexer.records import Job, JobProgress

QUEUED = Job("j", "index_video", "v", "queued", "queued", JobProgress(), 0, 3, 100.0, None, None, None, None)
RUNNING = replace(QUEUED, status="running", attempt=1, owner="w", lease_expires_at=50.0)


def test_backoff_doubles_up_to_its_ceiling() -> None:
    assert [backoff_s(n) for n in (1, 2, 3, 4)] == [2.0, 4.0, 8.0, 16.0]
    assert backoff_s(9) == backoff_s(10_000) == 300.0


def test_a_lease_is_over_at_its_end_and_only_of_a_running_job() -> None:
    assert not is_lease_expired(RUNNING, 49.9)
    assert is_lease_expired(RUNNING, 50.0)
    assert not is_lease_expired(replace(RUNNING, status="queued"), 60.0)


@pytest.mark.parametrize(
    ("job", "not_before_s", "verdict"),
    [
        (QUEUED, 50.0, "claim"),
        (QUEUED, 50.1, "wait"),
        (RUNNING, 0.0, "claim"),
        (replace(RUNNING, lease_expires_at=51.0), 0.0, "wait"),
        (replace(RUNNING, attempt=3), 0.0, "exhausted"),
        (replace(RUNNING, is_cancel_requested=True), 0.0, "cancelled"),
        (replace(RUNNING, attempt=3, is_cancel_requested=True), 0.0, "cancelled"),
    ],
)
def test_what_a_worker_makes_of_a_job(job: Job, not_before_s: float, verdict: str) -> None:
    assert judge_claim(job, not_before_s, 50.0) == verdict


def test_attempts_run_out() -> None:
    assert may_try_again(replace(RUNNING, attempt=2))
    assert not may_try_again(replace(RUNNING, attempt=3))


def test_finished_jobs_stay_so_unless_a_person_asks() -> None:
    for status, allowed in TRANSITIONS.items():
        assert is_finished(status) == (allowed <= {"queued"})
    with pytest.raises(JobConflict, match="succeeded"):
        require_transition(replace(QUEUED, status="succeeded"), "cancelled", "cancel")
    require_transition(QUEUED, "cancelled", "cancel")
