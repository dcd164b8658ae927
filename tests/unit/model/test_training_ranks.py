"""Two gloo processes against one: the same global batches give the same losses, gradients and weights."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch

from model.training.distributed import Ranks, gather
from tests.support.training_ranks import CLIPPED, KINDS, STEPS, main, train

LIMIT_S = 240.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=main, args=(rank, 2, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LIMIT_S)
        assert process.exitcode == 0
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one(kind: str, shared: Path, tmp_path: Path) -> None:
    alone = train(Ranks(), kind, tmp_path)
    assert sum(key.startswith("grad.") for key in alone) > 20
    assert all(float(alone[f"norm.{step}"]) > CLIPPED for step in range(STEPS)), "clipping must have a say"
    for rank in range(2):
        found = torch.load(shared / f"{kind}-{rank}.pt", weights_only=True)
        assert set(found) == set(alone)
        for key, value in alone.items():
            torch.testing.assert_close(found[key], value, atol=2e-5, rtol=1e-4, msg=lambda m, key=key: f"{key}: {m}")
    ours, theirs = (torch.load(shared / f"{kind}-{rank}.pt", weights_only=True) for rank in range(2))
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), f"the processes have drifted apart: {key}"


def test_ranks_share_a_batch_without_gap_or_overlap() -> None:
    rows = [row for rank in range(3) for row in Ranks(rank, 3).rows(12)]
    assert rows == list(range(12))


def test_one_process_gathers_nothing() -> None:
    given = torch.ones(2, 3), torch.zeros(2)
    assert all(a is b for a, b in zip(gather(Ranks(), given), given, strict=True))
