"""How stored features can be compared with a query: the scorers a search may choose from, over one set of features.

Letters: T queries, V segments, W words (of a video query: its frames), F frame slots, D embedding width. All take
normalised embeddings and masks (bool, True = real) and give cosines without a logit scale; padding takes no part.
"through the head" means a learnt matrix of X-CLIP, the identity where a model has none. AOSM itself is in kernels/.
Sources: mean CLIP4Clip, arXiv:2104.08860; maxsim ColBERT, arXiv:2004.12832; grains X-CLIP, arXiv:2207.07285.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from model.errors import UnknownScorer
from model.kernels.aosm_reference import TEMPERATURE, Mixing, four_grains
from model.types import GRAINS, ScorerName, Scores


@dataclass(frozen=True, slots=True)
class ScorerInfo:
    """What a scorer compares, in a sentence for people, and the names of the parts it tells of a score.

    takes_clips: whether the query may be a clip; else only a sentence.
    """

    name: ScorerName
    about: str
    parts: tuple[str, ...]
    takes_clips: bool = True


def _table(*infos: ScorerInfo) -> Mapping[ScorerName, ScorerInfo]:
    return MappingProxyType({info.name: info for info in infos})


SCORERS = _table(
    ScorerInfo("aosm", "X-CLIP: four grains, each weighed by attention over its own similarities.", GRAINS),
    ScorerInfo("multi_grained", "The four grains, every word and every frame weighing the same.", GRAINS),
    ScorerInfo("maxsim", "Each word with its best frame, the mean over the words.", ("frame_word",)),
    ScorerInfo("max_frame", "The sentence with its best single frame.", ("frame_sentence",)),
    ScorerInfo("mean", "The sentence with the pooled video: CLIP4Clip's score.", ("video_sentence",)),
    ScorerInfo("clip2video", "CLIP2Video: its global and its aligned branch, mixed.", ("global", "aligned")),
    ScorerInfo(
        "tight", "CLIP4Clip tightTransf: sentence and frames read together by a transformer.", ("joint",), False
    ),
)
"""Every scorer there is; `ModelSpec.scorers` says which of them a model's features allow."""

CLIP_SCORER: ScorerName = "maxsim"
"""Of clips: each of its frames with the best one (docs/decisions/0008-a-clip-is-found-by-its-frames.md)."""

SHARED_SCORERS: tuple[ScorerName, ...] = ("aosm", "multi_grained", "maxsim", "max_frame", "mean")
"""Those that need only a sentence, words, a pooled vector and frames."""


def choose_scorer(scorers: Sequence[ScorerName], asked: str | None, *, is_clip: bool) -> ScorerName:
    """The scorer that was asked for by name, or else the first of a model's `scorers`; of a clip CLIP_SCORER.

    Where a model's features don't allow that, it is the first that takes clips.
    Raises: UnknownScorer, whose hint lists those that may be asked for.
    """
    fitting = [name for name in scorers if SCORERS[name].takes_clips or not is_clip]
    if asked is None:
        return CLIP_SCORER if is_clip and CLIP_SCORER in fitting else fitting[0]
    found = next((name for name in fitting if name == asked), None)
    if found is None:
        why = "compares sentences only" if asked in scorers else "is none that this model's features allow"
        raise UnknownScorer(f"The scorer {asked!r} {why}.", f"Use one of {', '.join(fitting)}, or leave it out.")
    return found


@dataclass(frozen=True, slots=True)
class Parts:
    """What a query and V segments are compared by, normalised float32: whole (T, D), parts (T, W, D), parts_mask
    (T, W), pooled (V, D), frames (V, F, D), frames_mask (V, F). is_clip: parts are frames and not words."""

    whole: Tensor
    parts: Tensor
    parts_mask: Tensor
    pooled: Tensor
    frames: Tensor
    frames_mask: Tensor
    is_clip: bool = False


def shared_score(scorer: ScorerName, given: Parts, mixing: Mixing, temperature: float | Tensor = TEMPERATURE) -> Scores:
    """Score by one of SHARED_SCORERS, through the head -> Scores (T, V), (T, V, G), (T, V, F). Raises: KeyError."""
    return _BY_NAME[scorer](given, mixing, temperature)


def _aosm(given: Parts, mixing: Mixing, temperature: float | Tensor) -> Scores:
    found = four_grains(
        given.whole, given.parts, given.pooled, given.frames, mixing, given.parts_mask, given.frames_mask, temperature
    )
    return _scores(found.grains_TV4, given, GRAINS)


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
    return _scores(grains_TV4, given, GRAINS)


def _maxsim(given: Parts, mixing: Mixing, temperature: float | Tensor) -> Scores:
    fine_TVWF = torch.einsum("twd,vfd->tvwf", _through(given.parts, mixing.local_DD), given.frames)
    best_TVW = _best(fine_TVWF, given.frames_mask[None, :, None, :])
    mask_TVW = given.parts_mask[:, None, :].expand_as(best_TVW)
    score_TV = (best_TVW * mask_TVW).sum(-1) / mask_TVW.sum(-1).clamp_min(1)
    return _scores(score_TV[..., None], given, SCORERS["maxsim"].parts)


def _max_frame(given: Parts, mixing: Mixing, temperature: float | Tensor) -> Scores:
    sim_TVF = torch.einsum("td,vfd->tvf", given.whole, given.frames)
    score_TV = _best(sim_TVF, given.frames_mask[None])
    return _scores(score_TV[..., None], given, SCORERS["max_frame"].parts)


def _mean_score(given: Parts, mixing: Mixing, temperature: float | Tensor) -> Scores:
    score_TV = _through(given.whole, mixing.sentence_DD) @ given.pooled.T
    return _scores(score_TV[..., None], given, SCORERS["mean"].parts)


_BY_NAME = {
    "aosm": _aosm,
    "multi_grained": _multi_grained,
    "maxsim": _maxsim,
    "max_frame": _max_frame,
    "mean": _mean_score,
}


def frame_relevance(given: Parts) -> Tensor:
    """How much each frame supports the query, whatever scorer ranks: (T, V, F), -inf in padded slots.

    Of a sentence its cosine with the frame: words are no help in finding the second, for the best word of a frame is
    as a rule one that holds all along (benchmarks/moments.py). Of a clip the mean of that and the best of its frames.
    """
    sim_TVF = torch.einsum("td,vfd->tvf", given.whole, given.frames)
    if given.is_clip:
        fine_TVFW = torch.einsum("twd,vfd->tvfw", given.parts, given.frames)
        sim_TVF = 0.5 * (sim_TVF + _best(fine_TVFW, given.parts_mask[:, None, None, :]))
    return sim_TVF.masked_fill(~given.frames_mask[None], float("-inf"))


def _scores(grains_TVG: Tensor, given: Parts, names: tuple[str, ...]) -> Scores:
    return Scores(grains_TVG.mean(-1), grains_TVG, frame_relevance(given), names)


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
