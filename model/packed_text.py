"""CLIP's text tower for queries on a CPU: weights packed once in bfloat16, a sentence read to its last token only.

A query is a handful of tokens, so the time goes into reading the weights: half the bytes, laid out as the processor
multiplies them, take a third of the time of the float32 tower. The residual stream, norms and softmax stay float32.
The tokens of a batch stand in one matrix without padding. It is multiplied in blocks of ROWS, because larger products
add up in another order, and each text attends alone: so a sentence has the same embedding, bit for bit, in any batch.

Letters: T texts, N tokens of the longest (start and end included), D width. It knows no tokenizer, no pooling,
and of open_clip the names of a tower's parts. docs/experiments.md has what was tried besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, layer_norm, scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

from model.threads import limit_this_thread

ROWS = 32
"""Tokens multiplied at once: two tiles of AMX."""
MIN_WEIGHTS = 4_000_000
"""A tower with fewer weights in its blocks lies in the cache, and conversions cost what bfloat16 saves."""

QUICK_GELU = 1.702
"""QuickGELU is x * sigmoid(1.702 x): the swish of 1.702 x, over 1.702."""


class UnknownParts(Exception):
    """A text tower that isn't made of CLIP's plain blocks; the message names what differs."""


class PackedText:
    """Token ids -> one embedding per token, as Backbone.encode_words gives them. CPU only, thread-safe."""

    def __init__(self, tower: Any) -> None:
        """Copies the weights of open_clip's causal text tower. Raises: UnknownParts for any other."""
        if not is_supported():
            raise UnknownParts("this build of torch packs no bfloat16 weights")
        blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
        if blocks is None or not getattr(tower.transformer, "batch_first", True):
            raise UnknownParts("its transformer has no blocks with the batch first")
        self._tokens = tower.token_embedding.weight.detach()
        self._positions = tower.positional_embedding.detach()
        self._blocks = [_Block.of(block) for block in blocks]
        self._norm = _Norm.of(tower.ln_final)
        self._projection = _projection(tower.text_projection)
        self.num_weights = sum(weight.numel() for block in blocks for weight in block.parameters())

    @torch.inference_mode()
    def __call__(self, ids_TN: Tensor, lengths: list[int]) -> Tensor:
        """(T, N) and each text's number of tokens -> (T, N, D) float32, projected; zeros past a text's end."""
        limit_this_thread()
        texts = [ids[:length] for ids, length in zip(ids_TN, lengths, strict=True)]
        x = embedding(torch.cat(texts), self._tokens) + torch.cat([self._positions[:length] for length in lengths])
        for block in self._blocks:
            x = block(x, lengths)
        x = self._norm(x)
        x = x if self._projection is None else self._projection(x.bfloat16()).float()
        return pad_sequence(list(torch.split(x, lengths)), batch_first=True)


def is_supported() -> bool:
    """Whether torch has what packing needs."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def is_native() -> bool:
    """Whether this processor multiplies bfloat16 itself; others convert, and are slower than with float32."""
    asked = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return is_supported() and any(ask() for ask in asked if ask is not None)


class _Linear:
    """A packed linear layer, with the activation that follows it."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str = "none") -> None:
        weight = weight.detach().to(torch.bfloat16).contiguous()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        self._bias = None if bias is None else bias.detach().to(torch.bfloat16)
        self._activation = activation

    def __call__(self, rows: Tensor) -> Tensor:
        blocks = [rows] if len(rows) <= ROWS else torch.split(rows, ROWS)
        multiply = torch.ops.mkldnn._linear_pointwise
        done = [multiply(block, self._weight, self._bias, self._activation, [], "none") for block in blocks]
        return done[0] if len(done) == 1 else torch.cat(done)


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Tensor
    bias: Tensor
    eps: float

    @classmethod
    def of(cls, norm: Any) -> _Norm:
        if not isinstance(norm, nn.LayerNorm):
            raise UnknownParts(f"a norm is {type(norm).__name__}")
        return cls(norm.weight.detach(), norm.bias.detach(), norm.eps)

    def __call__(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class _Block:
    """Attention and MLP, each on a normed copy of the stream."""

    norm_1: _Norm
    queries_keys_values: _Linear
    attended: _Linear
    norm_2: _Norm
    up: _Linear
    down: _Linear
    heads: int

    @classmethod
    def of(cls, block: Any) -> _Block:
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
            _Norm.of(block.ln_1),
            _Linear(attention.in_proj_weight, attention.in_proj_bias),
            _Linear(attention.out_proj.weight, attention.out_proj.bias),
            _Norm.of(block.ln_2),
            _Linear(mlp.c_fc.weight * scale, mlp.c_fc.bias * scale, activation),
            _Linear(mlp.c_proj.weight / scale, mlp.c_proj.bias),
            attention.num_heads,
        )

    def __call__(self, x: Tensor, lengths: list[int]) -> Tensor:
        rows = self.queries_keys_values(self.norm_1(x).bfloat16())
        x = x + self.attended(torch.cat([self._attention(text) for text in torch.split(rows, lengths)]))
        return x + self.down(self.up(self.norm_2(x).bfloat16()))

    def _attention(self, rows: Tensor) -> Tensor:
        queries, keys, values = rows.view(1, len(rows), 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        found = scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return found.transpose(1, 2).reshape(len(rows), -1)


def _activation(module: Any) -> tuple[str, float]:
    """The name of torch's fused activation, and what its input is multiplied by."""
    if isinstance(module, nn.GELU) and module.approximate == "none":
        return "gelu", 1.0
    if type(module).__name__ == "QuickGELU":
        return "swish", QUICK_GELU
    raise UnknownParts(f"its activation is {type(module).__name__}")


def _projection(projection: Any) -> _Linear | None:
    if projection is None:
        return None
    if isinstance(projection, nn.Linear):
        return _Linear(projection.weight, projection.bias)
    return _Linear(projection.t(), None)
