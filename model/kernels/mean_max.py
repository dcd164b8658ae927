"""The four grains without attention, to measure what AOSM is worth: plain means over vectors, best matches in matrices.

Letters: T queries, V segments, W words, F frame slots, D embedding width. A similarity vector is averaged; a matrix of
words and frames takes the best of one axis and the mean of the other, once each way, and both are averaged. The
matrices over words and frames aren't used, those over embeddings are.
Source: the Mean-Max row of X-CLIP's ablation, arXiv:2207.07285; the paper doesn't spell its order out, ours is above.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.kernels.aosm_reference import GrainScores, Mixing


def mean_max_grains(
    sentence_TD: Tensor,
    words_TWD: Tensor,
    pooled_VD: Tensor,
    frames_VFD: Tensor,
    mixing: Mixing,
    word_mask_TW: Tensor | None = None,
    frame_mask_VF: Tensor | None = None,
) -> GrainScores:
    """As `four_grains`: normalised features and bool masks (None: nothing is padding) -> (T, V, 4)."""
    if word_mask_TW is None:
        word_mask_TW = torch.ones(words_TWD.shape[:2], dtype=torch.bool, device=words_TWD.device)
    if frame_mask_VF is None:
        frame_mask_VF = torch.ones(frames_VFD.shape[:2], dtype=torch.bool, device=frames_VFD.device)
    sentence = sentence_TD if mixing.sentence_DD is None else sentence_TD @ mixing.sentence_DD
    local = words_TWD if mixing.local_DD is None else words_TWD @ mixing.local_DD
    word_sim_TVW = torch.einsum("twd,vd->tvw", words_TWD, pooled_VD)
    frame_sim_TVF = torch.einsum("td,vfd->tvf", sentence_TD, frames_VFD)
    fine_TVWF = torch.einsum("twd,vfd->tvwf", local, frames_VFD)
    words_T1W, frames_1VF = word_mask_TW[:, None], frame_mask_VF[None]
    by_frame_TVF = _max(fine_TVWF.transpose(-1, -2), words_T1W[:, :, None])
    by_word_TVW = _max(fine_TVWF, frames_1VF[:, :, None])
    grains = [
        sentence @ pooled_VD.T,
        _mean(word_sim_TVW, words_T1W),
        _mean(frame_sim_TVF, frames_1VF),
        0.5 * (_mean(by_frame_TVF, frames_1VF) + _mean(by_word_TVW, words_T1W)),
    ]
    return GrainScores(torch.stack(grains, dim=-1))


def _mean(sim: Tensor, mask: Tensor) -> Tensor:
    return sim.masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1).clamp_min(1)


def _max(sim: Tensor, mask: Tensor) -> Tensor:
    best = sim.masked_fill(~mask, float("-inf")).amax(-1)
    return best.masked_fill(best == float("-inf"), 0.0)
