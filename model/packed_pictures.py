"""CLIP's vision transformer for frames on a CPU: weights packed once in bfloat16, bytes in, embeddings out.

Frames are read as bytes: the patches are a matrix of whole numbers, which bfloat16 holds exactly, and the
normalisation is part of the weights that it is multiplied by. A few frames at a time go through all blocks, so that
what lies between two products stays in the cache; of the last block only the class token goes on.

Letters: N frames, S image side, P patches and the class token, D embedding width. It knows of open_clip the names of a
tower's parts. docs/decisions/0016 and docs/experiments.md have what was tried besides.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from model.packed_blocks import Linear, Norm, UnknownParts, blocks_of
from model.preprocess import Preprocess
from model.threads import limit_this_thread

ROWS = 600
"""Tokens that go through the blocks together: more leave the cache, fewer read the weights more often."""

MIDDLE = 128
"""Taken from each byte, which halves what the rounding of the weights can add up to."""


class PackedPictures:
    """Frames of the tower's size -> raw embeddings, as Network.encode_frames gives them. CPU only, thread-safe."""

    def __init__(self, tower: Any, preprocess: Preprocess) -> None:
        """Copies the weights of open_clip's VisionTransformer. Raises: UnknownParts for any other tower."""
        _check_parts(tower, preprocess)
        self._side = int(tower.conv1.kernel_size[0])
        positions = tower.positional_embedding.detach()
        self._rows = max(ROWS, len(positions))
        self._blocks = blocks_of(tower.transformer, self._rows)
        weight_D3SS, offset_D = _normalising(tower.conv1.weight.detach(), preprocess)
        self._patches = Linear(weight_D3SS.permute(0, 2, 3, 1).flatten(1), None, self._rows)
        self._start_PD = torch.cat([positions[:1] + tower.class_embedding.detach(), positions[1:] + offset_D])
        self._norm_before = None if isinstance(tower.ln_pre, nn.Identity) else Norm.of(tower.ln_pre)
        self._norm_after = Norm.of(tower.ln_post)
        self._projection = None if tower.proj is None else Linear(tower.proj.t(), None, self._rows)

    @torch.inference_mode()
    def __call__(self, frames_NSSC: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 -> (N, D) float32."""
        limit_this_thread()
        at_once = self._rows // len(self._start_PD)
        num_chunks = -(-len(frames_NSSC) // at_once)
        return torch.cat([self._embedded(chunk) for chunk in torch.tensor_split(frames_NSSC, num_chunks)])

    def _embedded(self, frames_NSSC: Tensor) -> Tensor:
        count, tokens = len(frames_NSSC), len(self._start_PD)
        x = self._stream(frames_NSSC)
        for block in self._blocks[:-1]:
            x = block(x, partial(_attention, count=count, heads=block.heads))
        last, first = self._blocks[-1], x.view(count, tokens, -1)[:, 0]
        x = last(x, partial(_attention, count=count, heads=last.heads, num_queries=1), first)
        x = self._norm_after(x)
        return x.float() if self._projection is None else self._projection(x).float()

    def _stream(self, frames_NSSC: Tensor) -> Tensor:
        """The class token and the patches of each frame with their positions, (N * P, width) bfloat16."""
        count, side, pixels = len(frames_NSSC), self._side, frames_NSSC.shape[1]
        grid = pixels // side
        cut = frames_NSSC.view(count, grid, side, grid, side, 3).permute(0, 1, 3, 2, 4, 5)
        patches = cut.reshape(count * grid * grid, side * side * 3).bfloat16().sub_(MIDDLE)
        x = self._start_PD.repeat(count, 1, 1)
        x[:, 1:] += self._patches(patches).view(count, grid * grid, -1)
        x = x if self._norm_before is None else self._norm_before(x)
        return x.bfloat16().flatten(0, 1)


def _attention(rows: Tensor, count: int, heads: int, num_queries: int | None = None) -> Tensor:
    """Each frame by itself, all of its tokens seeing one another; num_queries: of its first tokens only."""
    queries, keys, values = rows.view(count, len(rows) // count, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    found = scaled_dot_product_attention(queries[:, :, :num_queries], keys, values)
    return found.transpose(1, 2).flatten(0, 1).flatten(1)


def _normalising(weight_D3SS: Tensor, preprocess: Preprocess) -> tuple[Tensor, Tensor]:
    """The weights of the patches that take bytes less MIDDLE, and what is added to each product: (D,)."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
    weight_D3SS = weight_D3SS / (255 * std)
    return weight_D3SS, (weight_D3SS * (MIDDLE - 255 * mean)).sum((1, 2, 3))


def _check_parts(tower: Any, preprocess: Preprocess) -> None:
    """Raises: UnknownParts if the tower computes anything else than what is written here."""
    if type(tower).__name__ != "VisionTransformer" or type(tower.transformer).__name__ != "Transformer":
        raise UnknownParts(f"the tower is {type(tower).__name__}")
    convolution = tower.conv1
    if convolution.bias is not None or convolution.stride != convolution.kernel_size:
        raise UnknownParts("its patches overlap or have a bias")
    if tower.attn_pool is not None or tower.pool_type != "tok" or tower.output_tokens:
        raise UnknownParts("it pools other tokens than the class token")
    if len(set(convolution.kernel_size)) != 1 or preprocess.image_size % convolution.kernel_size[0]:
        raise UnknownParts("its patches don't fill the frame")
