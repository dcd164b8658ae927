"""Transformer blocks in CLIP's layout, which the temporal encoders and the heads are built of; and masked pooling.

Letters: V segments, F tokens of a sequence (frame slots, as a rule), D embedding width. Masks are bool, True = real.
It knows no head, no temporal encoder and no checkpoint.
Source: CLIP4Clip, arXiv:2104.08860; official behaviour at revision 508ffa3.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

MASKED_LOGIT = -1e6
"""Added to the logit of a masked key. The official code adds it too; it isn't minus infinity."""

LAYER_NORM_EPS = 1e-12
"""LayerNorm of the blocks here. CLIP's own towers have 1e-5."""


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


def copy_blocks(transformer: Transformer, blocks: Iterable[nn.Module]) -> None:
    """Start a transformer's first blocks from blocks in CLIP's parameter layout, as many as both sides have."""
    for ours, theirs in zip(transformer.resblocks, blocks, strict=False):
        ours.load_state_dict(theirs.state_dict())


def pool(frames_VFD: Tensor, mask_VF: Tensor) -> Tensor:
    """The pooled embedding: normalise each frame, mean over the real ones, normalise again.

    Shapes:  frames (V, F, D) raw, mask (V, F) bool -> (V, D)
    Source:  CLIP4Clip, arXiv:2104.08860, equation 3, with the official code's order of normalisation.
    """
    unit = normalize(frames_VFD, dim=-1)
    weights_VF1 = mask_VF[..., None].to(unit.dtype)
    mean_VD = (unit * weights_VF1).sum(1) / weights_VF1.sum(1).clamp_min(1.0)
    return normalize(mean_VD, dim=-1)
