"""The loss all three papers train with, and the schedule of the tiny recipe."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def symmetric_cross_entropy(scores_BB: Tensor) -> Tensor:
    """Mean of the text-to-video and the video-to-text cross entropy with the diagonal as targets.

    Shapes:  scores (B, B), texts by videos, the logit scale already inside -> scalar.
    Source:  X-CLIP, arXiv:2207.07285, equation 12, with the half of the official code.
    """
    targets = torch.arange(scores_BB.shape[0], device=scores_BB.device)
    return 0.5 * (cross_entropy(scores_BB, targets) + cross_entropy(scores_BB.T, targets))


def warmup_cosine(step: int, total_steps: int, warmup_steps: int) -> float:
    """The factor on the learning rate at a step (from 0): a linear rise, then half a cosine down to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
