"""Temporal encoders: what turns F frame embeddings into F embeddings that know of one another.

Letters: V segments, F frame slots, D embedding width. All three share one call: (V, F, D) raw frames and a mask
(V, F) bool in, (V, F, D) out; pooling is not theirs. Parameters of padded slots never reach real ones: their keys
carry an additive -1e6, as in the official code.
Source: CLIP4Clip, arXiv:2104.08860, section 3.3 (meanP, seqLSTM, seqTransf), used by X-CLIP unchanged.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

TemporalKind = Literal["mean", "seqTransf", "seqLSTM", "TDB"]

MASKED_LOGIT = -1e6
LAYER_NORM_EPS = 1e-12


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


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), CLIP's activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """One pre-norm transformer block in CLIP's layout with LayerNorm eps 1e-12."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, width * 4),
                gelu=QuickGELU(),
                c_proj=nn.Linear(width * 4, width),
            )
        )
        self.ln_2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, x_VFD: Tensor, bias: Tensor) -> Tensor:
        """(V, F, D) and an additive attention bias (V * heads, F, F) -> (V, F, D)."""
        normed = self.ln_1(x_VFD)
        x_VFD = x_VFD + self.attn(normed, normed, normed, need_weights=False, attn_mask=bias)[0]
        out_VFD: Tensor = x_VFD + self.mlp(self.ln_2(x_VFD))
        return out_VFD


class Transformer(nn.Module):
    """Blocks in a row, with a mask over keys."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(layers))

    def forward(self, x_VFD: Tensor, mask_VF: Tensor) -> Tensor:
        """(V, F, D), mask (V, F) bool of the keys -> (V, F, D)."""
        bias_VF = (1.0 - mask_VF.to(x_VFD.dtype)) * MASKED_LOGIT
        bias = bias_VF[:, None, None, :].expand(-1, self.heads, x_VFD.shape[1], -1)
        return self.with_bias(x_VFD, bias.reshape(-1, x_VFD.shape[1], x_VFD.shape[1]))

    def with_bias(self, x_VFD: Tensor, bias: Tensor) -> Tensor:
        """The blocks under an additive attention bias of the caller's own, (V * heads, F, F) -> (V, F, D)."""
        for block in self.resblocks:
            x_VFD = block(x_VFD, bias)
        return x_VFD


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
        from model.difference_temporal import (
            DifferenceTemporal,  # it is built of CLIP2Video's head, which is built of us
        )

        return DifferenceTemporal(embed_dim, layers, heads, num_positions)
    raise ValueError(f"temporal encoder {kind!r} is none of mean, seqTransf, seqLSTM, TDB")


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


def copy_blocks(transformer: Transformer, blocks: Iterable[nn.Module]) -> None:
    """Start a transformer's first blocks from blocks in CLIP's parameter layout, as many as both sides have."""
    for ours, theirs in zip(transformer.resblocks, blocks, strict=False):
        ours.load_state_dict(theirs.state_dict())


def pool(frames_VFD: Tensor, mask_VF: Tensor) -> Tensor:
    """The pooled embedding: normalise each frame, mean over the real ones, normalise again.

    Shapes:  frames (V, F, D) raw, mask (V, F) bool -> (V, D)
    Source:  CLIP4Clip, arXiv:2104.08860, equation 3, with the official code's order of normalisation.
    """
    unit = nn.functional.normalize(frames_VFD, dim=-1)
    weights_VF1 = mask_VF[..., None].to(unit.dtype)
    mean_VD = (unit * weights_VF1).sum(1) / weights_VF1.sum(1).clamp_min(1.0)
    return nn.functional.normalize(mean_VD, dim=-1)
