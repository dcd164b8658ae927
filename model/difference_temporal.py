"""CLIP2Video's temporal difference block as a temporal encoder, so that X-CLIP may have it in place of seqTransf.

Between two frames stands a token of their difference, and one transformer reads both kinds. On drawn shapes it is what
tells directions apart (docs/experiments.md). No paper joins the two; the arithmetic is CLIP2Video's, masks corrected.
Letters: V segments, F frame slots, D embedding width.
Source: CLIP2Video, arXiv:2106.11097, section 3.3.
"""

from __future__ import annotations

from torch import Tensor

from model.heads.clip2video import Clip2VideoConfig, Clip2VideoHead


class DifferenceTemporal(Clip2VideoHead):
    """The global branch of CLIP2Video with TDB (sigmoid_selfA), up to the pooling; parameters have its names."""

    def __init__(self, embed_dim: int, layers: int, heads: int, num_positions: int = 77) -> None:
        super().__init__(
            Clip2VideoConfig(embed_dim, alignment="none", layers=layers, heads=heads, num_positions=num_positions)
        )

    def forward(self, frames_VFD: Tensor, mask_VF: Tensor) -> Tensor:  # type: ignore[override]
        """(V, F, D) raw frames, mask (V, F) bool -> (V, F, D), the difference tokens left out again."""
        return self.encoded(frames_VFD, mask_VF)
