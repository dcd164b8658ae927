"""Leases: each attempt has its own, and nothing but the end of the block ends the thread that renews them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.indexing.leases import Leases
from indexer.records import Job, JobProgress, JobStage
from tests.support.catalogues import Catalogue, Clock, add, claim

BEAT_S = 0.01
WAIT_S = 30.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalogue(tmp_path: Path, clock: Clock) -> Iterator[Catalogue]:
    with Catalogue(tmp_path / "catalogue.sqlite", clock=clock) as opened:
        yield opened


def claimed_again(catalogue: Catalogue, clock: Clock) -> tuple[Job, Job]:
    """A job in its first attempt, and the same job in its second."""
    add(catalogue, "v")
    first = claim(catalogue, lease_s=10)
    clock.pass_s(11)
    return first, claim(catalogue, lease_s=10)


class Watched:
    """Reports progress, and counts how often it was asked for."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)

    def __call__(self) -> tuple[JobStage, JobProgress]:
        self.asked.release()
        return "encode", JobProgress()

    def wait(self, times: int) -> None:
        for _ in range(times):
            assert self.asked.acquire(timeout=WAIT_S)


def no_end(reason: Exception) -> None:
    raise AssertionError(f"ended by {reason}")


def test_dropping_an_attempt_leaves_the_next_one_its_lease(catalogue: Catalogue, clock: Clock) -> None:
    first, second = claimed_again(catalogue, clock)
    progress = Watched()
    with Leases(catalogue, 10, BEAT_S) as leases:
        leases.hold(second, progress, no_end)
        leases.drop(first)
        progress.wait(2)
        leases.drop(second)


def test_a_lost_attempt_ends_without_the_next_one(catalogue: Catalogue, clock: Clock) -> None:
    """The second attempt is held while the thread finds that the first one was lost."""
    first, second = claimed_again(catalogue, clock)
    progress = Watched()

    def hold_the_second() -> tuple[JobStage, JobProgress]:
        leases.drop(first)
        leases.hold(second, progress, no_end)
        return "encode", JobProgress()

    with Leases(catalogue, 10, BEAT_S) as leases:
        leases.hold(first, hold_the_second, no_end)
        progress.wait(2)
        leases.drop(second)


def test_no_error_ends_the_renewals(catalogue: Catalogue) -> None:
    add(catalogue, "v")
    job, progress = claim(catalogue), Watched()
    errors: list[Exception] = [RuntimeError("once"), OSError("twice")]

    def troubled() -> tuple[JobStage, JobProgress]:
        if errors:
            raise errors.pop()
        return progress()

    with Leases(catalogue, 10, BEAT_S) as leases:
        leases.hold(job, troubled, no_end)
        progress.wait(1)
        leases.drop(job)
