"""CLIP's text tower for queries on a CPU: weights packed once in bfloat16, a sentence read to its last token only.

A query is a handful of tokens, so the time goes into reading the weights: half the bytes, laid out as the processor
multiplies them, take a third of the time of the float32 tower. The residual stream, norms and softmax stay float32.
The tokens of a batch stand in one matrix without padding. It is multiplied in blocks of ROWS, because larger products
add up in another order, and each text attends alone: so a sentence has the same embedding, bit for bit, in any batch.

Letters: T texts, N tokens of the longest (start and end included), D width. It knows no tokenizer, no pooling,
and of open_clip the names of a tower's parts. docs/experiments.md has what was tried besides.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

from model.packed_blocks import Linear, Norm, blocks_of
from model.threads import limit_this_thread

ROWS = 32
"""Tokens multiplied at once: two tiles of AMX."""
MIN_WEIGHTS = 4_000_000
"""A tower with fewer weights in its blocks lies in the cache, and conversions cost what bfloat16 saves."""


class PackedText:
    """Token ids -> one embedding per token, as Backbone.encode_words gives them. CPU only, thread-safe."""

    def __init__(self, tower: Any) -> None:
        """Copies the weights of open_clip's causal text tower. Raises: UnknownParts for any other."""
        self._blocks = blocks_of(getattr(tower, "transformer", None), ROWS)
        self._tokens = tower.token_embedding.weight.detach()
        self._positions = tower.positional_embedding.detach()
        self._norm = Norm.of(tower.ln_final)
        self._projection = _projection(tower.text_projection)
        self.num_weights = sum(weight.numel() for weight in tower.transformer.resblocks.parameters())

    @torch.inference_mode()
    def __call__(self, ids_TN: Tensor, lengths: list[int]) -> Tensor:
        """(T, N) and each text's number of tokens -> (T, N, D) float32, projected; zeros past a text's end."""
        limit_this_thread()
        texts = [ids[:length] for ids, length in zip(ids_TN, lengths, strict=True)]
        x = embedding(torch.cat(texts), self._tokens) + torch.cat([self._positions[:length] for length in lengths])
        for block in self._blocks:
            x = block(x, lambda rows, heads=block.heads: _attention(rows, lengths, heads))  # type: ignore[misc]
        x = self._norm(x)
        x = x if self._projection is None else self._projection(x.bfloat16()).float()
        return pad_sequence(list(torch.split(x, lengths)), batch_first=True)


def _attention(rows: Tensor, lengths: list[int], heads: int) -> Tensor:
    """Each text by itself; a token sees those before it."""
    return torch.cat([_text_attention(text, heads) for text in torch.split(rows, lengths)])


def _text_attention(rows: Tensor, heads: int) -> Tensor:
    queries, keys, values = rows.view(1, len(rows), 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    found = scaled_dot_product_attention(queries, keys, values, is_causal=True)
    return found.transpose(1, 2).reshape(len(rows), -1)


def _projection(projection: Any) -> Linear | None:
    if projection is None:
        return None
    if isinstance(projection, nn.Linear):
        return Linear(projection.weight, projection.bias, ROWS)
    return Linear(projection.t(), None, ROWS)
