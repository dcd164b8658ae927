"""What the transformers library computes of a CLIP state dict under its own names, written by hand.

With separate queries, keys and values, and projections that multiply as Linear does (x @ W^T): what a conversion of
names gets wrong, these numbers show. Letters: N frames or texts, P patches, W words, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

State = Mapping[str, Tensor]


def frame_embeddings(state: State, pixels: Tensor, heads: int) -> Tensor:
    """(N, 3, S, S) -> (N, D), as CLIPVisionModelWithProjection."""
    patches = state["vision_model.embeddings.patch_embedding.weight"]
    grid = functional.conv2d(pixels, patches, stride=patches.shape[-1]).flatten(2).transpose(1, 2)
    first = state["vision_model.embeddings.class_embedding"].expand(len(pixels), 1, -1)
    x = torch.cat([first, grid], dim=1) + state["vision_model.embeddings.position_embedding.weight"]
    x = _layers(state, "vision_model.", _norm(state, "vision_model.pre_layrnorm", x), heads, None)
    pooled = _norm(state, "vision_model.post_layernorm", x[:, 0])
    return functional.linear(pooled, state["visual_projection.weight"])


def word_embeddings(state: State, ids: Tensor, heads: int) -> Tensor:
    """(N, W) token ids -> (N, W, D): every position through the final norm and the text projection."""
    length = ids.shape[1]
    x = state["text_model.embeddings.token_embedding.weight"][ids]
    x = x + state["text_model.embeddings.position_embedding.weight"][:length]
    later = torch.ones(length, length).triu(1).bool()
    x = _layers(state, "text_model.", x, heads, torch.zeros(length, length).masked_fill(later, -torch.inf))
    return functional.linear(_norm(state, "text_model.final_layer_norm", x), state["text_projection.weight"])


def _layers(state: State, tower: str, x: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    num_layers = len({key.split(".")[3] for key in state if key.startswith(f"{tower}encoder.layers.")})
    for layer in range(num_layers):
        at = f"{tower}encoder.layers.{layer}."
        x = x + _attention(state, at + "self_attn.", _norm(state, at + "layer_norm1", x), heads, mask)
        hidden = _linear(state, at + "mlp.fc1", _norm(state, at + "layer_norm2", x))
        x = x + _linear(state, at + "mlp.fc2", hidden * torch.sigmoid(1.702 * hidden))
    return x


def _attention(state: State, at: str, x: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    n, length, width = x.shape

    def split(part: str) -> Tensor:
        return _linear(state, f"{at}{part}_proj", x).view(n, length, heads, width // heads).transpose(1, 2)

    logits_NHWW = split("q") @ split("k").transpose(-1, -2) / (width // heads) ** 0.5
    weights_NHWW = (logits_NHWW if mask is None else logits_NHWW + mask).softmax(-1)
    return _linear(state, f"{at}out_proj", (weights_NHWW @ split("v")).transpose(1, 2).reshape(n, length, width))


def _linear(state: State, at: str, x: Tensor) -> Tensor:
    return functional.linear(x, state[f"{at}.weight"], state[f"{at}.bias"])


def _norm(state: State, at: str, x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], state[f"{at}.weight"], state[f"{at}.bias"], 1e-5)
