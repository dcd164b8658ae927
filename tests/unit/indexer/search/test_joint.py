"""Searches that read everything at the same time are scored in one pass, each as if it were alone."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from indexer.search.joint import JointScoring
from indexer.shards.view import IndexView
from model.kernels.aosm_reference import Mixing
from model.kernels.panel import Array, Panel, PreparedQuery
from model.kernels.torch_kernel import TorchKernel
from model.panels import panel_of
from model.types import TextFeatures
from tests.support.searching import CORES, KERNEL
from tests.unit.indexer.search.test_recall import DIM, SLOTS, shard_of, unit

WORDS = 6


def view_of(sizes: tuple[int, ...]) -> IndexView:
    rng = np.random.default_rng(3)
    shards = tuple(shard_of(rng, size, is_sealed=False) for size in sizes)
    return IndexView(shards, 1, sum(sizes), sum(sizes), {}, 0)


def panels(num: int, mixing: Mixing, scorer: str = "aosm") -> list[Panel]:
    """Sentences of one word more each."""
    rng = np.random.default_rng(4)
    made = []
    for number in range(num):
        mask = torch.arange(WORDS)[None] < 1 + number % WORDS
        whole, words = torch.from_numpy(unit(rng, 1, DIM)), torch.from_numpy(unit(rng, 1, WORDS, DIM))
        made.append(panel_of(TextFeatures(whole, words, mask), scorer, mixing, 0.01))
    return made


def learnt() -> Mixing:
    torch.manual_seed(1)
    sizes = (DIM, DIM, WORDS, WORDS, WORDS, SLOTS, SLOTS, SLOTS)
    return Mixing(*(torch.eye(size) + 0.1 * torch.randn(size, size) for size in sizes))


class SlowFirst(TorchKernel):
    """Holds its first batch until the others wait, and counts the rows of each."""

    def __init__(self, num_others: int) -> None:
        self.joint: JointScoring | None = None
        self.num_rows: list[int] = []
        self._num_others = num_others

    def prepare(self, panel: Panel) -> PreparedQuery:
        if not self.num_rows and self.joint is not None:
            while self.joint._joiner.num_waiting < self._num_others:
                threading.Event().wait(0.001)
        self.num_rows.append(len(panel))
        return super().prepare(panel)


@pytest.mark.parametrize("mixing", [Mixing(), learnt()], ids=["plain", "learnt"])
def test_joined_searches_score_as_they_do_alone(mixing: Mixing) -> None:
    view, asked = view_of((30, 1, 50)), panels(5, mixing)
    kernel = SlowFirst(num_others=4)
    joint = kernel.joint = JointScoring(kernel, CORES)
    found: dict[int, Array] = {}

    def ask(number: int) -> None:
        found[number] = joint.totals(asked[number], view)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kernel.num_rows == [1, 4]
    for number, panel in enumerate(asked):
        alone = KERNEL.prepare(panel.trimmed())
        expected = np.concatenate([alone.totals(shard.block) for shard in view.shards], axis=1)
        np.testing.assert_allclose(found[number], expected, atol=1e-5)


def test_panels_of_another_scorer_or_other_matrices_are_not_joined() -> None:
    plain, mixing = panels(2, Mixing()), learnt()
    assert plain[0].kind == plain[1].kind != panels(1, Mixing(), "maxsim")[0].kind
    assert panels(1, mixing)[0].kind == panels(1, mixing)[0].kind != panels(1, learnt())[0].kind


def test_an_error_of_one_search_is_its_own() -> None:
    class Fails(TorchKernel):
        def prepare(self, panel: Panel) -> PreparedQuery:
            prepared = super().prepare(panel)
            if not np.isfinite(panel.whole).all():
                raise ValueError("not finite")
            return prepared

    view, (good, bad) = view_of((10,)), panels(2, Mixing())
    bad.whole[:] = np.nan
    joint = JointScoring(Fails(), CORES)
    with pytest.raises(ValueError, match="not finite"):
        joint.totals(bad, view)
    assert joint.totals(good, view).shape == (1, 10)
