"""The layers of CLIP's transformers for a CPU with bfloat16: weights packed once, as the processor multiplies them.

Packed weights are half the bytes, and a product with them writes its bias and activation as it goes. The matrices are
multiplied in bfloat16 with float32 sums; norms are computed in float32; the residual stream keeps the type that it
comes in. model/packed_text.py and model/packed_pictures.py make towers of these layers.

It knows torch's operators for packing, and of open_clip the names of a block's parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

QUICK_GELU = 1.702
"""QuickGELU is x * sigmoid(1.702 x): the swish of 1.702 x, over 1.702."""


class UnknownParts(Exception):
    """A tower that isn't made of CLIP's plain blocks; the message names what differs."""


def is_supported() -> bool:
    """Whether torch has what packing needs."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def is_native() -> bool:
    """Whether this processor multiplies bfloat16 itself; others convert, and are slower than with float32."""
    asked = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return is_supported() and any(ask() for ask in asked if ask is not None)


class Linear:
    """A packed linear layer, with the activation that follows it: (n, in) bfloat16 -> (n, out) bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int, activation: str = "none") -> None:
        """rows: how many are multiplied at once; the layout is made for that number."""
        weight = weight.detach().to(torch.bfloat16).contiguous()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        self._bias = None if bias is None else bias.detach().to(torch.bfloat16)
        self._activation = activation
        self._rows = rows

    def __call__(self, rows: Tensor) -> Tensor:
        """Every row times the weights."""
        blocks = [rows] if len(rows) <= self._rows else torch.split(rows, self._rows)
        multiply = torch.ops.mkldnn._linear_pointwise
        done = [multiply(block, self._weight, self._bias, self._activation, [], "none") for block in blocks]
        return done[0] if len(done) == 1 else torch.cat(done)


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer norm; its own numbers are float32 whatever it is given."""

    weight: Tensor
    bias: Tensor
    eps: float

    @classmethod
    def of(cls, norm: Any) -> Norm:
        """A tower's norm. Raises: UnknownParts."""
        if not isinstance(norm, nn.LayerNorm):
            raise UnknownParts(f"a norm is {type(norm).__name__}")
        return cls(norm.weight.detach(), norm.bias.detach(), norm.eps)

    def __call__(self, x: Tensor) -> Tensor:
        """x, normed over its last dimension, in its own type."""
        return layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class Block:
    """Attention and MLP, each on a normed copy of the stream."""

    norm_1: Norm
    queries_keys_values: Linear
    attended: Linear
    norm_2: Norm
    up: Linear
    down: Linear
    heads: int

    @classmethod
    def of(cls, block: Any, rows: int) -> Block:
        """A tower's block, packed for `rows` tokens at once. Raises: UnknownParts."""
        attention, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
        if type(block).__name__ != "ResidualAttentionBlock":
            raise UnknownParts(f"a block is {type(block).__name__}")
        if not isinstance(attention, nn.MultiheadAttention) or attention.in_proj_weight is None:
            raise UnknownParts(f"attention is {type(attention).__name__}")
        if not all(isinstance(getattr(block, name, None), nn.Identity) for name in ("ls_1", "ls_2")):
            raise UnknownParts("its blocks scale what they add")
        if mlp is None or [name for name, _ in mlp.named_children()] != ["c_fc", "gelu", "c_proj"]:
            raise UnknownParts("its MLP has other layers")
        activation, scale = _activation(mlp.gelu)
        return cls(
            Norm.of(block.ln_1),
            Linear(attention.in_proj_weight, attention.in_proj_bias, rows),
            Linear(attention.out_proj.weight, attention.out_proj.bias, rows),
            Norm.of(block.ln_2),
            Linear(mlp.c_fc.weight * scale, mlp.c_fc.bias * scale, rows, activation),
            Linear(mlp.c_proj.weight / scale, mlp.c_proj.bias, rows),
            attention.num_heads,
        )

    def __call__(self, x: Tensor, attend: Callable[[Tensor], Tensor], kept: Tensor | None = None) -> Tensor:
        """The stream (n, width) -> the stream after this block.

        attend: queries, keys and values side by side (n, 3 * width) -> what the tokens attended to (m, width).
        kept: the m rows of x that go on, None for all.
        """
        rows = self.queries_keys_values(self.norm_1(x).bfloat16())
        x = (x if kept is None else kept) + self.attended(attend(rows))
        return x + self.down(self.up(self.norm_2(x).bfloat16()))


def blocks_of(transformer: Any, rows: int) -> list[Block]:
    """The blocks of open_clip's transformer, packed for `rows` tokens at once. Raises: UnknownParts."""
    if not is_supported():
        raise UnknownParts("this build of torch packs no bfloat16 weights")
    blocks = getattr(transformer, "resblocks", None)
    if blocks is None or not getattr(transformer, "batch_first", True):
        raise UnknownParts("its transformer has no blocks with the batch first")
    return [Block.of(block, rows) for block in blocks]


def _activation(module: Any) -> tuple[str, float]:
    """The name of torch's fused activation, and what its input is multiplied by."""
    if isinstance(module, nn.GELU) and module.approximate == "none":
        return "gelu", 1.0
    if type(module).__name__ == "QuickGELU":
        return "swish", QUICK_GELU
    raise UnknownParts(f"its activation is {type(module).__name__}")
