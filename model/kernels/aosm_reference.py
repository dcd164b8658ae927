"""AOSM and the four grains of X-CLIP in plain torch: the referee every faster kernel is held to.

Letters: T queries, V segments, W words (of a video query: its frames), F frame slots, D embedding width.
`mask=None` is the official code's unmasked arithmetic. A mask is bool, True = real: masked positions enter the
softmax as -inf and take no weight afterwards, whatever the mixing matrix moves there.

Source: X-CLIP, arXiv:2207.07285, section 3.4; official behaviour at revision 6b5344f.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TEMPERATURE = 0.01
"""Softmax temperature of AOSM, dimensionless; the constant of the paper's tables and of the official code."""


class Mixing(NamedTuple):
    """The eight mixing matrices of a head, or None each for the identity (zero-shot, and video queries).

    sentence_DD and local_DD act on embeddings; words_* (W, W) and frames_* (F, F) on attention weights.
    """

    sentence_DD: Tensor | None = None
    local_DD: Tensor | None = None
    words_coarse_WW: Tensor | None = None
    words_first_WW: Tensor | None = None
    words_second_WW: Tensor | None = None
    frames_coarse_FF: Tensor | None = None
    frames_first_FF: Tensor | None = None
    frames_second_FF: Tensor | None = None


def attend(sim: Tensor, mix: Tensor | None, mask: Tensor | None, temperature: float | Tensor = TEMPERATURE) -> Tensor:
    """Sum the last axis (length L) out of a similarity matrix by attention over itself (AOSM).

    Shapes:  sim (..., L) cosine; mix (L, L) or None for the identity; mask broadcastable to sim, or None -> (...)
    Units:   similarities are cosines; the temperature is dimensionless, a number or a learnt scalar.
    Source:  X-CLIP, arXiv:2207.07285, equations 7 to 10; the mixing is `p @ mix`, not transposed.
    """
    if mask is None:
        weights = torch.softmax(sim / temperature, dim=-1)
    else:
        weights = torch.softmax((sim / temperature).masked_fill(~mask, float("-inf")), dim=-1)
        sim = sim.masked_fill(~mask, 0.0)
    if mix is not None:
        weights = weights @ mix
    return (sim * weights).sum(-1)


class GrainScores(NamedTuple):
    """grains_TV4 in the order of model.types.GRAINS."""

    grains_TV4: Tensor


def four_grains(
    sentence_TD: Tensor,
    words_TWD: Tensor,
    pooled_VD: Tensor,
    frames_VFD: Tensor,
    mixing: Mixing,
    word_mask_TW: Tensor | None = None,
    frame_mask_VF: Tensor | None = None,
    temperature: float | Tensor = TEMPERATURE,
) -> GrainScores:
    """Score every query against every segment by the four grains, each a cosine without the logit scale.

    Shapes:  sentence (T, D), words (T, W, D), pooled (V, D), frames (V, F, D), all L2-normalised; masks bool or None
             -> grains (T, V, 4)
    Memory:  T * V * W * F floats at the peak; callers cut V into blocks.
    Source:  X-CLIP, arXiv:2207.07285, equations 3 to 11.
    """
    word_mask = None if word_mask_TW is None else word_mask_TW[:, None, :]
    frame_mask = None if frame_mask_VF is None else frame_mask_VF[None, :, :]

    video_sentence_TV = _through(sentence_TD, mixing.sentence_DD) @ pooled_VD.T

    word_sim_TVW = torch.einsum("twd,vd->tvw", words_TWD, pooled_VD)
    video_word_TV = attend(word_sim_TVW, mixing.words_coarse_WW, word_mask, temperature)

    frame_sim_TVF = torch.einsum("td,vfd->tvf", sentence_TD, frames_VFD)
    frame_sentence_TV = attend(frame_sim_TVF, mixing.frames_coarse_FF, frame_mask, temperature)

    fine_TVWF = torch.einsum("twd,vfd->tvwf", _through(words_TWD, mixing.local_DD), frames_VFD)
    by_frame_TVF = attend(
        fine_TVWF.transpose(-1, -2),
        mixing.words_first_WW,
        None if word_mask is None else word_mask[:, :, None, :],
        temperature,
    )
    by_word_TVW = attend(
        fine_TVWF, mixing.frames_first_FF, None if frame_mask is None else frame_mask[:, :, None, :], temperature
    )
    frame_word_TV = 0.5 * (
        attend(by_frame_TVF, mixing.frames_second_FF, frame_mask, temperature)
        + attend(by_word_TVW, mixing.words_second_WW, word_mask, temperature)
    )

    grains_TV4 = torch.stack([video_sentence_TV, video_word_TV, frame_sentence_TV, frame_word_TV], dim=-1)
    return GrainScores(grains_TV4)


def _through(x: Tensor, matrix_DD: Tensor | None) -> Tensor:
    return x if matrix_DD is None else x @ matrix_DD
