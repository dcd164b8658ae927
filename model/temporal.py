"""Temporal encoders: what turns F frame embeddings into F embeddings that know of one another.

Letters: V segments, F frame slots, D embedding width. All of them share one call: (V, F, D) raw frames and a mask
(V, F) bool in, (V, F, D) out; pooling is not theirs. Padded slots never reach real ones: their keys are masked.
Sources: CLIP4Clip, arXiv:2104.08860, section 3.3 (meanP, seqLSTM, seqTransf), used by X-CLIP unchanged; CLIP2Video,
arXiv:2106.11097, section 3.3 (TDB).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from model.heads.clip2video import Clip2VideoConfig, Clip2VideoHead
from model.transformer import Transformer, copy_blocks

TemporalKind = Literal["mean", "seqTransf", "seqLSTM", "TDB"]


class MeanTemporal(nn.Module):
    """meanP: frames pass unchanged, their mean is the video. The only encoder that zero-shot weights allow."""

    def forward(self, frames_VFD: Tensor, mask_VF: Tensor) -> Tensor:
        """(V, F, D) -> (V, F, D), the same tensor."""
        return frames_VFD


class LstmTemporal(nn.Module):
    """seqLSTM: one unidirectional LSTM layer over the real frames, added to the input.

    A segment's real frames must be its first slots. Slots past its length but below the batch's longest come out as
    the input, slots past the longest as twice the input (the official code's filling); pooling masks both.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(embed_dim, embed_dim, batch_first=True, num_layers=1)

    def forward(self, frames_VFD: Tensor, mask_VF: Tensor) -> Tensor:
        """(V, F, D) -> (V, F, D); every segment needs one real frame at least."""
        lengths = mask_VF.sum(-1).cpu()
        packed = pack_padded_sequence(frames_VFD, lengths, batch_first=True, enforce_sorted=False)
        out_VfD, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        out_VFD = torch.cat([out_VfD, frames_VFD[:, out_VfD.shape[1] :]], dim=1)
        return out_VFD + frames_VFD


class TransformerTemporal(nn.Module):
    """seqTransf: a transformer over frames with learnt positions, added to the input.

    num_positions is the text tower's context length in official checkpoints (77).
    """

    def __init__(self, embed_dim: int, layers: int, heads: int, num_positions: int = 77) -> None:
        super().__init__()
        self.frame_position_embeddings = nn.Embedding(num_positions, embed_dim)
        self.transformer = Transformer(embed_dim, layers, heads)

    def forward(self, frames_VFD: Tensor, mask_VF: Tensor) -> Tensor:
        """(V, F, D), mask (V, F) bool -> (V, F, D)."""
        positions = self.frame_position_embeddings.weight[: frames_VFD.shape[1]]
        moved_VFD: Tensor = self.transformer(frames_VFD + positions, mask_VF)
        return moved_VFD + frames_VFD


class DifferenceTemporal(Clip2VideoHead):
    """TDB: the global branch of CLIP2Video with sigmoid_selfA, up to the pooling; parameters have its names.

    Between two frames stands a token of their difference, and one transformer reads both kinds. On drawn shapes it is
    what tells directions apart (docs/experiments.md). No paper gives it to X-CLIP; the arithmetic is CLIP2Video's with
    its masks corrected. Source: CLIP2Video, arXiv:2106.11097, section 3.3.
    """

    def __init__(self, embed_dim: int, layers: int, heads: int, num_positions: int = 77) -> None:
        super().__init__(
            Clip2VideoConfig(embed_dim, alignment="none", layers=layers, heads=heads, num_positions=num_positions)
        )

    def forward(self, frames_VFD: Tensor, mask_VF: Tensor) -> Tensor:  # type: ignore[override]
        """(V, F, D) raw frames, mask (V, F) bool -> (V, F, D); the difference tokens are left out again."""
        return self.encoded(frames_VFD, mask_VF)


def build_temporal(
    kind: TemporalKind, embed_dim: int, *, layers: int = 4, heads: int | None = None, num_positions: int = 77
) -> nn.Module:
    """Build a temporal encoder by its name. heads defaults to embed_dim / 64, as in CLIP. Raises: ValueError."""
    heads = heads or max(1, embed_dim // 64)
    if kind == "mean":
        return MeanTemporal()
    if kind == "seqLSTM":
        return LstmTemporal(embed_dim)
    if kind == "seqTransf":
        return TransformerTemporal(embed_dim, layers, heads, num_positions)
    if kind == "TDB":
        return DifferenceTemporal(embed_dim, layers, heads, num_positions)
    raise ValueError(f"the temporal encoder {kind!r} is unknown: there are mean, seqTransf, seqLSTM and TDB")


def initialise_from_text_tower(temporal: nn.Module, positions: Tensor, blocks: Iterable[nn.Module]) -> None:
    """Start a seqTransf encoder from a CLIP text tower of the same width: its positions and its first blocks.

    positions (context length, D); blocks in CLIP's parameter layout. Does nothing to the other encoders, which take
    nothing from CLIP. Source: CLIP4Clip, arXiv:2104.08860, section 3.3.
    """
    if not isinstance(temporal, TransformerTemporal):
        return
    with torch.no_grad():
        temporal.frame_position_embeddings.weight.copy_(positions[: temporal.frame_position_embeddings.num_embeddings])
    copy_blocks(temporal.transformer, blocks)
