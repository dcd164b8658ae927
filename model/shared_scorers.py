"""The scorers that any features allow which have a sentence, words, a pooled vector and frames.

Letters: T queries, V segments, W words (of a video query: its frames), F frame slots, D embedding width. All take
normalised embeddings and masks (bool, True = real) and give cosines without a logit scale; padding takes no part.
"through the head" means a learnt matrix of X-CLIP, the identity where a model has none. AOSM itself is in kernels/.
Sources: mean CLIP4Clip, arXiv:2104.08860; maxsim ColBERT, arXiv:2004.12832; grains X-CLIP, arXiv:2207.07285.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from model.kernels.aosm_reference import TEMPERATURE, Mixing, four_grains
from model.types import GRAINS, Query, ScorerName, Scores, VideoFeatures

Cost = Literal["pair", "frames", "words_frames", "joint"]
"""What one query row and one segment hold at the peak of scoring: one number; one per frame; one per word and frame; or
the activations of a transformer that reads the sentence together with the frames."""


@dataclass(frozen=True, slots=True)
class ScorerInfo:
    """A scorer as a model declares it and people read of it."""

    name: ScorerName

    about: str
    """What it compares, in a sentence for people."""

    parts: tuple[str, ...]
    """The names of the parts that a score is made of."""

    cost: Cost
    """How large the blocks may be that are scored at once."""

    takes_clips: bool = True
    """Whether the query may be a clip; else only a sentence."""


SHARED = {
    info.name: info
    for info in (
        ScorerInfo(
            "aosm",
            "X-CLIP: four grains, each weighed by attention over its own similarities.",
            GRAINS,
            cost="words_frames",
        ),
        ScorerInfo(
            "multi_grained", "The four grains, every word and every frame weighing the same.", GRAINS, cost="frames"
        ),
        ScorerInfo(
            "maxsim", "Each word with its best frame, the mean over the words.", ("frame_word",), cost="words_frames"
        ),
        ScorerInfo("max_frame", "The sentence with its best single frame.", ("frame_sentence",), cost="frames"),
        ScorerInfo(
            "mean", "The sentence with the pooled video: CLIP4Clip's score.", ("video_sentence",), cost="frames"
        ),
    )
}

SHARED_SCORERS: tuple[ScorerName, ...] = tuple(SHARED)
"""Those that need only a sentence, words, a pooled vector and frames; families declare their own besides."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a query and V segments are compared by, normalised float32."""

    whole: Tensor
    """(T, D): the sentence, or a clip's pooled vector."""
    parts: Tensor
    """(T, W, D): words, or a clip's frames."""
    parts_mask: Tensor
    """(T, W)."""
    pooled: Tensor
    """(V, D)."""
    frames: Tensor
    """(V, F, D)."""
    frames_mask: Tensor
    """(V, F)."""
    parts_are_frames: bool = False
    """Whether the parts are frames and not words."""


def parts_of(query: Query, videos: VideoFeatures) -> Parts:
    """What the shared scorers take, normalised, so that the raw features of a joint transformer fit too."""
    parts_are_frames = isinstance(query, VideoFeatures)
    whole, parts = (query.pooled, query.frames) if isinstance(query, VideoFeatures) else (query.sentence, query.words)
    unit = [normalize(x.float(), dim=-1) for x in (whole, parts, videos.pooled, videos.frames)]
    return Parts(unit[0], unit[1], query.mask, unit[2], unit[3], videos.mask, parts_are_frames)


def shared_score(scorer: ScorerName, given: Parts, mixing: Mixing, temperature: float | Tensor = TEMPERATURE) -> Scores:
    """Score by one of SHARED_SCORERS, through the head -> Scores (T, V), (T, V, G). Raises: KeyError."""
    return _BY_NAME[scorer](given, mixing, temperature)


def _aosm(given: Parts, mixing: Mixing, temperature: float | Tensor) -> Scores:
    found = four_grains(
        given.whole, given.parts, given.pooled, given.frames, mixing, given.parts_mask, given.frames_mask, temperature
    )
    return _scores(found.grains_TV4, GRAINS)


def _multi_grained(given: Parts, mixing: Mixing, temperature: float | Tensor) -> Scores:
    # a mean of cosines is the cosine with the mean vector: no (T, V, W, F) tensor is needed
    word_TD, local_TD = (_mean(x, given.parts_mask) for x in (given.parts, _through(given.parts, mixing.local_DD)))
    frame_VD = _mean(given.frames, given.frames_mask)
    grains_TV4 = torch.stack(
        [
            _through(given.whole, mixing.sentence_DD) @ given.pooled.T,
            word_TD @ given.pooled.T,
            given.whole @ frame_VD.T,
            local_TD @ frame_VD.T,
        ],
        dim=-1,
    )
    return _scores(grains_TV4, GRAINS)


def _maxsim(given: Parts, mixing: Mixing, temperature: float | Tensor) -> Scores:
    fine_TVWF = torch.einsum("twd,vfd->tvwf", _through(given.parts, mixing.local_DD), given.frames)
    best_TVW = _best(fine_TVWF, given.frames_mask[None, :, None, :])
    mask_TVW = given.parts_mask[:, None, :].expand_as(best_TVW)
    score_TV = (best_TVW * mask_TVW).sum(-1) / mask_TVW.sum(-1).clamp_min(1)
    return _scores(score_TV[..., None], SHARED["maxsim"].parts)


def _max_frame(given: Parts, mixing: Mixing, temperature: float | Tensor) -> Scores:
    sim_TVF = torch.einsum("td,vfd->tvf", given.whole, given.frames)
    score_TV = _best(sim_TVF, given.frames_mask[None])
    return _scores(score_TV[..., None], SHARED["max_frame"].parts)


def _mean_score(given: Parts, mixing: Mixing, temperature: float | Tensor) -> Scores:
    score_TV = _through(given.whole, mixing.sentence_DD) @ given.pooled.T
    return _scores(score_TV[..., None], SHARED["mean"].parts)


_BY_NAME = {
    "aosm": _aosm,
    "multi_grained": _multi_grained,
    "maxsim": _maxsim,
    "max_frame": _max_frame,
    "mean": _mean_score,
}


def frame_relevance(given: Parts) -> Tensor:
    """How much each frame supports the query, whatever scorer ranks: (T, V, F), -inf in padded slots.

    For a sentence it is its cosine with the frame: words don't help to find the second, because the best word of a
    frame is as a rule one that holds all along (benchmarks/moments.py). For a clip it is the mean of that and the best
    of its frames.
    """
    sim_TVF = torch.einsum("td,vfd->tvf", given.whole, given.frames)
    if given.parts_are_frames:
        fine_TVFW = torch.einsum("twd,vfd->tvfw", given.parts, given.frames)
        sim_TVF = 0.5 * (sim_TVF + _best(fine_TVFW, given.parts_mask[:, None, None, :]))
    return sim_TVF.masked_fill(~given.frames_mask[None], float("-inf"))


def _scores(grains_TVG: Tensor, names: tuple[str, ...]) -> Scores:
    return Scores(grains_TVG.mean(-1), grains_TVG, names)


def _through(x: Tensor, matrix_DD: Tensor | None) -> Tensor:
    return x if matrix_DD is None else x @ matrix_DD


def _mean(x_NLD: Tensor, mask_NL: Tensor) -> Tensor:
    """The mean of the real rows, zeros without any: (N, L, D) -> (N, D)."""
    weights_NL1 = mask_NL[..., None].to(x_NLD.dtype)
    return (x_NLD * weights_NL1).sum(1) / weights_NL1.sum(1).clamp_min(1.0)


def _best(sim: Tensor, mask: Tensor) -> Tensor:
    """The largest real entry of the last axis, 0 where nothing is real."""
    best = sim.masked_fill(~mask, float("-inf")).amax(-1)
    return best.masked_fill(best == float("-inf"), 0.0)
