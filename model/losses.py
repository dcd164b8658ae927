"""What each of the papers' models minimises, from what its head returns. It knows no optimiser and no batch.

Letters: B pairs, the text of row b belongs to the video of column b. `scale` is exp(logit_scale), a scalar. X-CLIP's
loss is `symmetric_cross_entropy` of its scaled score.
Source: official code of CLIP4Clip at revision 508ffa3 and of CLIP2Video at revision e941318.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from model.heads.clip2video import BranchScores


def symmetric_cross_entropy(scores_BB: Tensor) -> Tensor:
    """Mean of the text-to-video and the video-to-text cross entropy with the diagonal as targets.

    Shapes:  scores (B, B), texts by videos, the logit scale already inside -> scalar.
    Source:  X-CLIP, arXiv:2207.07285, equation 12, with the half of the official code.
    """
    targets = torch.arange(scores_BB.shape[0], device=scores_BB.device)
    return 0.5 * (cross_entropy(scores_BB, targets) + cross_entropy(scores_BB.T, targets))


def pooled_loss(cosines_BB: Tensor, scale: Tensor) -> Tensor:
    """CLIP4Clip with independent towers: cosines (B, B) of PooledHead -> scalar."""
    return symmetric_cross_entropy(scale * cosines_BB)


def tight_loss(scores_BB: Tensor) -> Tensor:
    """CLIP4Clip tightTransf: scores (B, B) of TightHead -> scalar; no logit scale."""
    return symmetric_cross_entropy(scores_BB)


def clip2video_loss(scores: BranchScores, scale: Tensor, global_weight: float) -> Tensor:
    """CLIP2Video: the weighted sum of the two branches' losses, which isn't the loss of the mixed score.

    Shapes:  scores of a (B, B) batch -> scalar. Without an alignment branch it is the global branch's loss alone.
    """
    whole = symmetric_cross_entropy(scale * scores.global_TV)
    if scores.aligned_TV is None:
        return whole
    return global_weight * whole + (1.0 - global_weight) * symmetric_cross_entropy(scale * scores.aligned_TV)
