"""CLIP4Clip's tightTransf head: each sentence is read together with the frames of each video by one transformer.

Letters: T texts, V segments, F frame slots, D embedding width, P pairs of a text and a video. There is no vector per
video, so this head can rerank and not recall: a score costs a pass through the transformer. Parameter names are the
official ones, so that an official checkpoint fits without a table.
Source: CLIP4Clip, arXiv:2104.08860, section 3.3 (tight type); official behaviour at revision 508ffa3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.errors import ShapeError
from model.transformer import LAYER_NORM_EPS, QuickGELU, Transformer, copy_blocks

PAIRS_PER_BATCH = 4096
"""Pairs through the transformer at once; bounds memory outside training, not results."""

EMBEDDING_DROPOUT = 0.1
"""Share of the input dropped while training, as in the official code."""


@dataclass(frozen=True)
class TightConfig:
    """The switches of the joint transformer."""

    layers: int = 4

    heads: int | None = None
    """Attention heads; None for the width / 64."""

    num_positions: int = 77
    """Learnt positions: one for the sentence, one for each frame."""


class CrossEmbeddings(nn.Module):
    """Learnt positions over the sentence (position 0) and the frames (1 to F), and dropout while training."""

    def __init__(self, embed_dim: int, num_positions: int) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(num_positions, embed_dim)
        self.dropout = nn.Dropout(EMBEDDING_DROPOUT)

    def forward(self, tokens_PLD: Tensor) -> Tensor:
        """(P, 1 + F, D) -> the same shape."""
        placed: Tensor = self.dropout(tokens_PLD + self.position_embeddings.weight[: tokens_PLD.shape[1]])
        return placed


class CrossPooler(nn.Module):
    """The sentence's token after the transformer: LayerNorm, Linear, QuickGELU."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.ln_pool = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.dense = nn.Linear(embed_dim, embed_dim)
        self.activation = QuickGELU()

    def forward(self, tokens_PLD: Tensor) -> Tensor:
        """(P, 1 + F, D) -> (P, D)."""
        pooled: Tensor = self.activation(self.dense(self.ln_pool(tokens_PLD[:, 0])))
        return pooled


class Cross(nn.Module):
    """Embeddings, transformer and pooler in a row."""

    def __init__(self, embed_dim: int, layers: int, heads: int, num_positions: int) -> None:
        super().__init__()
        self.embeddings = CrossEmbeddings(embed_dim, num_positions)
        self.transformer = Transformer(embed_dim, layers, heads)
        self.pooler = CrossPooler(embed_dim)

    def forward(self, tokens_PLD: Tensor, mask_PL: Tensor) -> Tensor:
        """(P, 1 + F, D), mask (P, 1 + F) bool of the keys -> (P, D)."""
        pooled: Tensor = self.pooler(self.transformer(self.embeddings(tokens_PLD), mask_PL))
        return pooled


class TightHead(nn.Module):
    """tightTransf. The score is a learnt scalar: neither a cosine nor multiplied by the logit scale."""

    def __init__(self, embed_dim: int, *, layers: int = 4, heads: int | None = None, num_positions: int = 77) -> None:
        super().__init__()
        self.cross = Cross(embed_dim, layers, heads or max(1, embed_dim // 64), num_positions)
        self.similarity_dense = nn.Linear(embed_dim, 1)

    def start_from_text_tower(self, positions: Tensor, blocks: Iterable[nn.Module]) -> None:
        """Copy a CLIP text tower's positions (context length, D) and its first blocks; the rest stays random."""
        placed = self.cross.embeddings.position_embeddings
        with torch.no_grad():
            placed.weight.copy_(positions[: placed.num_embeddings])
        copy_blocks(self.cross.transformer, blocks)

    def forward(
        self, sentence_TD: Tensor, frames_VFD: Tensor, mask_VF: Tensor, *, pairs_per_batch: int = PAIRS_PER_BATCH
    ) -> Tensor:
        """Score every text against every video, some texts at a time; no fewer than one text with all videos.

        Shapes:  raw sentences (T, D), raw frames (V, F, D), mask (V, F) bool -> (T, V), of no fixed scale
        Raises:  ShapeError if 1 + F exceeds the learnt positions.
        """
        num_positions = self.cross.embeddings.position_embeddings.num_embeddings
        if frames_VFD.shape[1] + 1 > num_positions:
            raise ShapeError(f"{frames_VFD.shape[1]} frames and a sentence; there are {num_positions} positions")
        texts = torch.split(sentence_TD, max(1, pairs_per_batch // max(1, len(frames_VFD))))
        return torch.cat([self._score(some_TD, frames_VFD, mask_VF) for some_TD in texts])

    def _score(self, sentence_TD: Tensor, frames_VFD: Tensor, mask_VF: Tensor) -> Tensor:
        num_texts, (num_videos, num_frames, width) = len(sentence_TD), frames_VFD.shape
        sentence_TV1D = sentence_TD[:, None, None].expand(-1, num_videos, -1, -1)
        frames_TVFD = frames_VFD[None].expand(num_texts, -1, -1, -1)
        tokens_PLD = torch.cat([sentence_TV1D, frames_TVFD], dim=2).reshape(-1, 1 + num_frames, width)
        mask_VL = torch.cat([mask_VF.new_ones(num_videos, 1), mask_VF], dim=1)
        scores_P1 = self.similarity_dense(self.cross(tokens_PLD, mask_VL.repeat(num_texts, 1)))
        scores: Tensor = scores_P1.reshape(num_texts, num_videos)
        return scores
