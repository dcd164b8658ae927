"""The configuration of an index: what follows from what its owner chose."""

from __future__ import annotations

from indexer.config import IndexConfig


def test_decoders_share_the_cores_that_a_worker_may_have() -> None:
    config = IndexConfig(worker_cores=1, decode_memory_bytes=1)
    assert len(config.worker_children()) == 1


def test_as_many_decoders_as_chosen() -> None:
    assert len(IndexConfig(worker_decoders=5, worker_cores=1).worker_children()) == 5


def test_leases_are_renewed_well_before_they_expire() -> None:
    worker = IndexConfig(lease_s=0.8).worker()
    assert worker.heartbeat_s <= worker.lease_s / 4
