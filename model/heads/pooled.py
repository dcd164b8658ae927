"""CLIP4Clip's head for independent towers: one vector per video, one per sentence, their cosine is the score.

Letters: T texts, V segments, F frame slots, D embedding width. The temporal encoder (meanP, seqLSTM, seqTransf) is
built by temporal.py and given to it. It knows no logit scale: that belongs to the towers and is the caller's.
Source: CLIP4Clip, arXiv:2104.08860, section 3.3; official behaviour at revision 508ffa3.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import normalize

from model.temporal import TemporalEncoder
from model.transformer import pool


class PooledHead(nn.Module):
    """Temporal encoder, masked mean, cosine. Padded frames take no part; the text mask isn't looked at."""

    def __init__(self, temporal: TemporalEncoder) -> None:
        super().__init__()
        self.temporal = temporal

    def video(self, frames_VFD: Tensor, mask_VF: Tensor) -> Tensor:
        """Raw frames (V, F, D), mask (V, F) bool -> pooled (V, D), normalised; zeros for a video without frames."""
        return pool(self.temporal(frames_VFD, mask_VF), mask_VF)

    def forward(self, sentence_TD: Tensor, frames_VFD: Tensor, mask_VF: Tensor) -> Tensor:
        """Raw sentences (T, D), raw frames (V, F, D), mask (V, F) bool -> cosines (T, V), logit scale not inside."""
        return normalize(sentence_TD, dim=-1) @ self.video(frames_VFD, mask_VF).T
