"""X-CLIP's head: eight mixing matrices over the four grains, and the ways we tried to change it.

It holds parameters and options only; the arithmetic is in kernels/. Parameter names are the official ones, so that an
official checkpoint fits without a table.
Source: X-CLIP, arXiv:2207.07285; parameter layout of the official code at revision 6b5344f.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from model.kernels.aosm_reference import TEMPERATURE, GrainScores, Mixing, four_grains
from model.kernels.mean_max import mean_max_grains
from model.types import GRAINS


@dataclass(frozen=True, slots=True)
class GrainOptions:
    """The head's switches; the defaults are the paper's. docs/experiments.md has what each is worth."""

    grains: tuple[str, ...] = GRAINS
    """Those whose mean is the score."""

    aggregation: Literal["aosm", "mean_max"] = "aosm"
    """Attention over the similarities, or plain means and maxima."""

    temperature: float = TEMPERATURE
    """AOSM's, dimensionless; where it starts if it is learnt."""

    is_temperature_learnt: bool = False

    fine_grains_use_temporal: bool = False
    """Whether the fine grains read the temporal encoder's frames in place of the raw ones."""


class MultiGrainedHead(nn.Module):
    """Four grains with learnt mixing, identity at the start; W words and F frame slots are fixed by the matrices."""

    log_temperature: nn.Parameter

    def __init__(self, embed_dim: int, num_words: int, num_frames: int, options: GrainOptions | None = None) -> None:
        super().__init__()
        self.options = options or GrainOptions()
        self._chosen = [GRAINS.index(name) for name in self.options.grains]
        self.global_mat_weight = nn.Parameter(torch.eye(embed_dim))
        self.local_mat_weight = nn.Parameter(torch.eye(embed_dim))
        self.word_logit_weight = nn.Parameter(torch.eye(num_words))
        self.word_mat_weight = nn.Parameter(torch.eye(num_words))
        self.word_mat_weight2 = nn.Parameter(torch.eye(num_words))
        self.frame_logit_weight = nn.Parameter(torch.eye(num_frames))
        self.frame_mat_weight = nn.Parameter(torch.eye(num_frames))
        self.frame_mat_weight2 = nn.Parameter(torch.eye(num_frames))
        if self.options.is_temperature_learnt:
            self.log_temperature = nn.Parameter(torch.tensor(math.log(self.options.temperature)))

    def temperature(self) -> float | Tensor:
        """AOSM's temperature, dimensionless."""
        return self.log_temperature.exp() if self.options.is_temperature_learnt else self.options.temperature

    @property
    def is_the_papers(self) -> bool:
        """Whether the score is the mean of all four grains by AOSM."""
        return self.options.aggregation == "aosm" and self.options.grains == GRAINS

    def total(self, grains_TV4: Tensor) -> Tensor:
        """The score: the mean of the grains that count, (T, V)."""
        return grains_TV4[..., self._chosen].mean(-1)

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
        """Normalised features in, cosine-scaled grains (T, V, 4) out."""
        features = (sentence_TD, words_TWD, pooled_VD, frames_VFD, self.mixing(), word_mask_TW, frame_mask_VF)
        if self.options.aggregation == "mean_max":
            return mean_max_grains(*features)
        return four_grains(*features, self.temperature())
