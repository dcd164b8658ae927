"""Recalls and ranks against the official counters: single and multi-caption, both directions, ties and medians."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.evaluation.metrics import RECALLS, RetrievalRanks, Ties, ranks_of_diagonal
from tests.parity.golden import GoldenCase, case_names, load_case

WAYS = {"t2v": "text_to_video", "v2t": "video_to_text"}
CASES = [name for found in case_names("metrics/metrics") for name in load_case(found).about["cases"]]
TIED = {"square_30_ties", "square_8_constant"}


def golden() -> GoldenCase:
    return load_case("metrics/metrics")


def ranks_of(name: str, ties: Ties, block: int) -> RetrievalRanks:
    case = golden()
    scores = case[name].numpy()
    owners: NDArray[np.int64] | None = None
    if case.about["cases"][name]["kind"] == "multi_sentence":
        owners = case[f"{name}.gt_video"].numpy()
    found = RetrievalRanks(scores.shape[1], owners, ties=ties)
    for start in range(0, len(scores), block):
        found.add(scores[start : start + block])
    return found


@pytest.mark.parametrize("block", [7, 10_000])
@pytest.mark.parametrize("name", CASES)
def test_official_figures(name: str, block: int) -> None:
    about, allowed = golden().about, golden().about["tolerance"]
    ranks = ranks_of(name, "official", block)
    found = ranks.figures()
    own = {"t2v": ranks.text_to_video(), "v2t": ranks.video_to_text()}
    for way, ours in WAYS.items():
        theirs, mine = about["cases"][name][way], found[ours]
        for k in RECALLS:
            assert 100.0 * mine[f"r{k}"] == pytest.approx(theirs[f"R{k}"], abs=allowed["recall_abs"])
        assert mine["mdr"] == theirs["MdR"]
        assert mine["mnr"] == pytest.approx(theirs["MnR"], abs=allowed["mean_rank_abs"])
        assert mine["num"] == theirs["n_counted"]
        if "ranks0" in theirs:
            assert (own[way] - 1).tolist() == theirs["ranks0"]
        if "std_rank" in theirs:
            assert float(own[way].std()) == pytest.approx(theirs["std_rank"], abs=allowed["mean_rank_abs"])


@pytest.mark.parametrize("name", CASES)
def test_our_ties_differ_only_where_there_are_ties(name: str) -> None:
    official, ours = ranks_of(name, "official", 50).figures(), ranks_of(name, "against", 50).figures()
    assert (official == ours) == (name not in TIED)
    for way in WAYS.values():
        assert ours[way]["r10"] <= official[way]["r10"]


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("multi")])
def test_a_group_scores_as_its_best_text(name: str) -> None:
    """The stored matrix of videos by groups gives the same ranks as the blocks of texts."""
    expected = ranks_of_diagonal(golden()[f"{name}.v2t_matrix"].numpy(), "official")
    np.testing.assert_array_equal(ranks_of(name, "official", 13).video_to_text(), expected)
