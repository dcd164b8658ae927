"""X-CLIP's head: eight mixing matrices over the four grains.

It holds the parameters only; the arithmetic is in kernels/aosm_reference.py. Parameter names are the official ones,
so that an official checkpoint fits without a table.
Source: X-CLIP, arXiv:2207.07285; parameter layout of the official code at revision 6b5344f.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.kernels.aosm_reference import GrainScores, Mixing, four_grains


class MultiGrainedHead(nn.Module):
    """Four grains with learnt mixing, identity at the start; W words and F frame slots are fixed by the matrices."""

    def __init__(self, embed_dim: int, num_words: int, num_frames: int) -> None:
        super().__init__()
        self.global_mat_weight = nn.Parameter(torch.eye(embed_dim))
        self.local_mat_weight = nn.Parameter(torch.eye(embed_dim))
        self.word_logit_weight = nn.Parameter(torch.eye(num_words))
        self.word_mat_weight = nn.Parameter(torch.eye(num_words))
        self.word_mat_weight2 = nn.Parameter(torch.eye(num_words))
        self.frame_logit_weight = nn.Parameter(torch.eye(num_frames))
        self.frame_mat_weight = nn.Parameter(torch.eye(num_frames))
        self.frame_mat_weight2 = nn.Parameter(torch.eye(num_frames))

    def mixing(self) -> Mixing:
        """The matrices under the names of the kernels."""
        return Mixing(
            sentence_DD=self.global_mat_weight,
            local_DD=self.local_mat_weight,
            words_coarse_WW=self.word_logit_weight,
            words_first_WW=self.word_mat_weight,
            words_second_WW=self.word_mat_weight2,
            frames_coarse_FF=self.frame_logit_weight,
            frames_first_FF=self.frame_mat_weight,
            frames_second_FF=self.frame_mat_weight2,
        )

    def forward(
        self,
        sentence_TD: Tensor,
        words_TWD: Tensor,
        pooled_VD: Tensor,
        frames_VFD: Tensor,
        word_mask_TW: Tensor | None = None,
        frame_mask_VF: Tensor | None = None,
    ) -> GrainScores:
        """Normalised features in, cosine-scaled grains (T, V, 4) and frame relevance (T, V, F) out."""
        return four_grains(sentence_TD, words_TWD, pooled_VD, frames_VFD, self.mixing(), word_mask_TW, frame_mask_VF)
