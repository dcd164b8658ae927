"""Jobs in hand: which a worker takes, and when."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue import bound_model
from indexer.catalogue.rows import Transaction
from indexer.indexing.jobs_in_hand import JobsInHand
from indexer.indexing.leases import Leases
from indexer.indexing.pipeline import Pipeline, PipelineConfig
from indexer.records import Frames, Job
from tests.support.catalogues import Catalogue, Clock
from tests.support.fake_sandbox import FakeSandbox, write_fake_video
from tests.support.fakes import FakeModel
from tests.unit.indexer.indexing.test_worker import add_file

WAIT_S = 30.0
LEASE_S = 10.0


class Counted(Catalogue):
    """Counts its writes."""

    num_writes = 0

    def write(self) -> AbstractContextManager[Transaction]:
        self.num_writes += 1
        return super().write()


class Gated(FakeSandbox):
    """Reads frames once `gate` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def read_frames(self, path: Path, instants_s: Sequence[float], *given: Any, **named: Any) -> Frames:
        assert self.gate.wait(WAIT_S)
        return super().read_frames(path, instants_s, *given, **named)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalogue(tmp_path: Path, clock: Clock) -> Iterator[Counted]:
    with Counted(tmp_path / "catalogue.sqlite", clock=clock) as opened:
        yield opened


@contextmanager
def hands(catalogue: Catalogue, source: FakeSandbox) -> Iterator[JobsInHand]:
    """Up to four jobs, whose leases are renewed by no thread."""
    model = FakeModel()
    with catalogue.write() as tx:
        bound_model.bind(tx, model.spec)
    with (
        Pipeline([source], model, PipelineConfig(2.0, num_cores=1)) as pipeline,
        Leases(catalogue, LEASE_S, 3600.0) as leases,
    ):
        yield JobsInHand(
            catalogue,
            pipeline,
            leases,
            owner="w1",
            fingerprint=model.spec.fingerprint,
            sampling="exact",
            lease_s=LEASE_S,
            max_jobs=4,
        )


def settle(in_hand: JobsInHand) -> Job:
    job = in_hand.settle_next(WAIT_S)
    assert job is not None
    return job


def test_a_worker_does_not_take_its_own_jobs_from_itself(catalogue: Counted, tmp_path: Path, clock: Clock) -> None:
    """The machine slept for longer than a lease, and the next look for work comes before the next renewal."""
    added = add_file(catalogue, write_fake_video(tmp_path / "v", 3.0, "red"))
    source = Gated()
    with hands(catalogue, source) as in_hand:
        in_hand.claim()
        clock.pass_s(LEASE_S + 1)
        in_hand.claim()
        assert catalogue.get_job(added.job_id).attempt == 1
        source.gate.set()
        assert settle(in_hand).status == "succeeded"


def test_a_job_waits_for_its_last_attempt_in_the_queue(catalogue: Counted, tmp_path: Path, clock: Clock) -> None:
    """While others are in work it isn't claimed: if they end the worker, that costs no attempt."""
    other = add_file(catalogue, write_fake_video(tmp_path / "other", 3.0, "red"))
    source = Gated()
    with hands(catalogue, source) as in_hand:
        in_hand.claim()
        suspect = add_file(catalogue, write_fake_video(tmp_path / "suspect", 3.0, "blue"))
        last = add_file(catalogue, write_fake_video(tmp_path / "last", 3.0, "green"))
        for _ in range(2):
            assert catalogue.claim_job("dead", 1.0).id == suspect.job_id
            clock.pass_s(2)
        in_hand.claim()
        in_hand.claim()
        assert catalogue.get_job(suspect.job_id).attempt == 2
        source.gate.set()
        assert settle(in_hand).id == other.job_id
        in_hand.claim()
        assert catalogue.get_job(last.job_id).status == "queued"
        assert settle(in_hand).id == suspect.job_id
        in_hand.claim()
        assert settle(in_hand).id == last.job_id
        assert in_hand.is_empty
    assert catalogue.count_jobs()["succeeded"] == 3


def test_all_jobs_are_given_back_in_one_transaction(catalogue: Counted, tmp_path: Path) -> None:
    """So that a catalogue that is busy holds up a stop only once. One of the jobs was removed meanwhile."""
    for n in range(4):
        added = add_file(catalogue, write_fake_video(tmp_path / f"{n}", 3.0, "red"))
    source = Gated()
    with hands(catalogue, source) as in_hand:
        in_hand.claim()
        catalogue.remove_video(added.video_id)
        before = catalogue.num_writes
        in_hand.give_back()
        assert catalogue.num_writes == before + 1
        assert in_hand.is_empty
        source.gate.set()
    assert catalogue.count_jobs() == {"queued": 3, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 1}
