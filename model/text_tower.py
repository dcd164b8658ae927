"""The steps of open_clip's text towers, by the names of their parts: token ids -> normed tokens -> projected tokens.

Letters: T texts, n tokens, D embedding width. It imports no open_clip; backbone.py hands the towers in.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def hidden(tower: Any, ids: Tensor) -> Tensor:
    """(T, n) ids -> (T, n, width) after the final norm; n may be short of the context length."""
    length = ids.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    x = tower.token_embedding(ids).to(dtype) + tower.positional_embedding[:length].to(dtype)
    mask = tower.attn_mask
    x = tower.transformer(x, attn_mask=None if mask is None else mask[:length, :length])
    normed: Tensor = tower.ln_final(x)
    return normed


def projected(tower: Any, normed: Tensor) -> Tensor:
    """(T, n, width) -> (T, n, D); towers without a projection give their tokens as they are."""
    projection = tower.text_projection
    if projection is None:
        return normed
    found: Tensor = projection(normed) if isinstance(projection, nn.Linear) else normed @ projection
    return found


def pooling_of(tower: Any) -> str:
    """open_clip's name of how a sentence's embedding is taken from its tokens."""
    return str(getattr(tower, "text_pool_type", None) or tower.pool_type)
