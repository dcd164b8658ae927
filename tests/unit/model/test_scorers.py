"""Each scorer against its definition, spelt out by loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from model.errors import UnknownScorer
from model.installed import SCORERS_OF
from model.kernels.aosm_reference import Mixing, four_grains
from model.kernels.mean_max import mean_max_grains
from model.scorers import SCORERS, choose_scorer
from model.shared_scorers import SHARED_SCORERS, Parts, frame_relevance, shared_score
from model.types import ScorerName

T, V, W, F, D = 2, 3, 4, 5, 6


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


@pytest.fixture
def given() -> Parts:
    torch.manual_seed(5)
    words = torch.arange(W) < torch.tensor([[3], [4]])
    frames = torch.arange(F) < torch.tensor([[5], [2], [1]])
    return Parts(
        unit(torch.randn(T, D)),
        unit(torch.randn(T, W, D)),
        words,
        unit(torch.randn(V, D)),
        unit(torch.randn(V, F, D)),
        frames,
    )


@pytest.fixture
def mixing() -> Mixing:
    torch.manual_seed(6)
    return Mixing(sentence_DD=torch.randn(D, D), local_DD=torch.randn(D, D))


def pairs(given: Parts) -> list[tuple[int, int, list[Tensor], list[Tensor]]]:
    """Text, segment, its real words, its real frames."""
    return [
        (t, v, list(given.parts[t][given.parts_mask[t]]), list(given.frames[v][given.frames_mask[v]]))
        for t in range(T)
        for v in range(V)
    ]


def test_mean_and_max_frame(given: Parts, mixing: Mixing) -> None:
    mean, best = (shared_score(name, given, mixing).total for name in ("mean", "max_frame"))
    for t, v, _, frames in pairs(given):
        assert mixing.sentence_DD is not None
        torch.testing.assert_close(mean[t, v], given.whole[t] @ mixing.sentence_DD @ given.pooled[v])
        torch.testing.assert_close(best[t, v], max(given.whole[t] @ frame for frame in frames))


def test_maxsim_is_late_interaction(given: Parts, mixing: Mixing) -> None:
    found = shared_score("maxsim", given, mixing)
    for t, v, words, frames in pairs(given):
        assert mixing.local_DD is not None
        sims = torch.stack([torch.stack([word @ mixing.local_DD @ frame for frame in frames]) for word in words])
        torch.testing.assert_close(found.total[t, v], sims.amax(1).mean())


def test_multi_grained_weighs_everything_the_same(given: Parts) -> None:
    found = shared_score("multi_grained", given, Mixing())
    for t, v, words, frames in pairs(given):
        grains = [
            given.whole[t] @ given.pooled[v],
            torch.stack([word @ given.pooled[v] for word in words]).mean(),
            torch.stack([given.whole[t] @ frame for frame in frames]).mean(),
            torch.stack([word @ frame for word in words for frame in frames]).mean(),
        ]
        torch.testing.assert_close(found.grains[t, v], torch.stack(grains))
    torch.testing.assert_close(found.total, found.grains.mean(-1))


def test_aosm_is_the_kernel(given: Parts) -> None:
    found = shared_score("aosm", given, Mixing())
    features = (given.whole, given.parts, given.pooled, given.frames, Mixing(), given.parts_mask, given.frames_mask)
    torch.testing.assert_close(found.grains, four_grains(*features).grains_TV4)


def test_a_high_temperature_makes_aosm_uniform(given: Parts) -> None:
    hot = shared_score("aosm", given, Mixing(), temperature=1e6).grains
    torch.testing.assert_close(hot, shared_score("multi_grained", given, Mixing()).grains, atol=1e-5, rtol=1e-5)


def test_mean_max_takes_the_best_of_one_axis_and_the_mean_of_the_other(given: Parts) -> None:
    features = (given.whole, given.parts, given.pooled, given.frames, Mixing())
    found = mean_max_grains(*features, given.parts_mask, given.frames_mask).grains_TV4
    for t, v, words, frames in pairs(given):
        sims = torch.stack([torch.stack([word @ frame for frame in frames]) for word in words])
        torch.testing.assert_close(found[t, v, 3], 0.5 * (sims.amax(0).mean() + sims.amax(1).mean()))
        torch.testing.assert_close(found[t, v, 1], torch.stack([word @ given.pooled[v] for word in words]).mean())
    unmasked = mean_max_grains(*features).grains_TV4
    assert not np.allclose(found.numpy(), unmasked.numpy())


def test_a_clip_is_searched_by_its_frames_where_a_model_has_them() -> None:
    for scorers, of_clips in ((SHARED_SCORERS, "maxsim"), (("tight", *SHARED_SCORERS), "maxsim")):
        assert choose_scorer(scorers, None, query_is_clip=True) == of_clips
        assert choose_scorer(scorers, None, query_is_clip=False) == scorers[0]
    assert choose_scorer(("clip2video",), None, query_is_clip=True) == "clip2video"


def test_a_scorer_is_chosen_by_name_or_is_the_first_that_fits_the_query() -> None:
    scorers: tuple[ScorerName, ...] = ("tight", "mean", "aosm")
    assert choose_scorer(scorers, None, query_is_clip=False) == "tight"
    assert choose_scorer(scorers, None, query_is_clip=True) == "mean"
    assert choose_scorer(scorers, "aosm", query_is_clip=True) == "aosm"
    with pytest.raises(UnknownScorer, match="sentences only") as refused:
        choose_scorer(scorers, "tight", query_is_clip=True)
    assert refused.value.hint == "Use one of mean, aosm, or leave it out."
    for unknown in ("clip2video", "", "AOSM"):
        with pytest.raises(UnknownScorer, match="doesn't fit"):
            choose_scorer(scorers, unknown, query_is_clip=False)


def test_every_kind_of_model_has_a_scorer_for_sentences_and_one_for_clips() -> None:
    for scorers in SCORERS_OF.values():
        for query_is_clip in (False, True):
            assert choose_scorer(scorers, None, query_is_clip=query_is_clip) in SCORERS


def test_a_sentence_is_supported_by_the_frames_that_are_like_it(given: Parts) -> None:
    relevance = frame_relevance(given)
    for t, v, _, frames in pairs(given):
        torch.testing.assert_close(relevance[t, v, : len(frames)], torch.stack(frames) @ given.whole[t])
        assert torch.isneginf(relevance[t, v, len(frames) :]).all()


def test_a_clip_is_supported_by_the_frames_that_are_like_one_of_its_own(given: Parts) -> None:
    relevance = frame_relevance(replace(given, parts_are_frames=True))
    for t, v, own, frames in pairs(given):
        best = (torch.stack(own) @ torch.stack(frames).T).amax(0)
        whole = torch.stack(frames) @ given.whole[t]
        torch.testing.assert_close(relevance[t, v, : len(frames)], 0.5 * (whole + best))
