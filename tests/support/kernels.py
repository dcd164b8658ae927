"""Random blocks, panels, and what torch's referee makes of them: what tests of kernels share.

Letters: Q query rows, N segments, W words, F frame slots, D width, G parts of a score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from model.kernels.aosm_reference import Mixing
from model.kernels.block import FeatureBlock, Rows, Store, gather, quantize
from model.kernels.panel import MixingArrays, Panel
from model.shared_scorers import Parts, frame_relevance, shared_score
from model.types import ScorerName

BOUNDS = {"fp32": 1e-4, "bf16": 4e-3, "int8": 1.5e-3}
"""How far a total may lie from the referee's, in cosines, by the form in which a path multiplies."""


@dataclass(frozen=True)
class Case:
    """A panel and what it was made of."""

    panel: Panel
    parts: torch.Tensor
    whole: torch.Tensor
    mixing: Mixing


def unit(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Random unit vectors that share a direction, as real embeddings do: cosines of 0.1 to 0.6 between them."""
    common = np.random.default_rng(7).standard_normal(shape[-1]) * 0.8
    x = rng.standard_normal(shape) + common
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def random_block(
    rng: np.random.Generator, counts: NDArray[np.int32], dim: int, store: Store = "fp16", *, length: float = 1.0
) -> FeatureBlock:
    """A block of segments with that many frames; frames of that length."""
    frames = unit(rng, int(counts.sum()), dim) * np.float32(length)
    return stored(frames, unit(rng, len(counts), dim), counts, store)


def stored(
    frames: NDArray[np.float32], pooled: NDArray[np.float32], counts: NDArray[np.int32], store: Store
) -> FeatureBlock:
    """Frames (R, D) and pooled vectors (N, D) as a block keeps them."""
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    if store == "fp16":
        return FeatureBlock(frames.astype(np.float16), pooled.astype(np.float16), first, counts)
    (frames8, frame_scales), (pooled8, pooled_scales) = quantize(frames), quantize(pooled)
    return FeatureBlock(frames8, pooled8, first, counts, frame_scales, pooled_scales)


def topical(
    rng: np.random.Generator, num_segments: int, num_frames: int, dim: int, num_topics: int = 40
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit frames (N, F, D) and pooled vectors (N, D) of segments that differ as those of a library do: by their topic,
    among those of a topic by what they show, and their frames a little."""
    topics = unit(rng, num_topics, dim)[rng.integers(0, num_topics, num_segments)]
    frames = (topics + 0.7 * unit(rng, num_segments, dim))[:, None] + 0.6 * unit(rng, num_segments, num_frames, dim)
    frames /= np.linalg.norm(frames, axis=-1, keepdims=True)
    pooled = frames.mean(1)
    return frames, pooled / np.linalg.norm(pooled, axis=-1, keepdims=True)


def random_case(
    rng: np.random.Generator,
    scorer: ScorerName,
    *,
    num_rows: int = 1,
    num_words: int = 6,
    num_slots: int = 4,
    dim: int = 32,
    is_mixed: bool = False,
    is_ragged: bool = True,
    temperature: float = 0.01,
    is_clip: bool = False,
    has_unit_frames: bool = True,
) -> Case:
    """A query of random words, masks and, with is_mixed, matrices near the identity."""
    mask = np.ones((num_rows, num_words), bool)
    if is_ragged:
        mask = rng.random((num_rows, num_words)) < 0.7
        mask[np.arange(num_rows), rng.integers(0, num_words, num_rows)] = True

    def matrix(side: int) -> torch.Tensor | None:
        if not is_mixed:
            return None
        return torch.from_numpy((np.eye(side) + 0.1 / side**0.5 * rng.standard_normal((side, side))).astype(np.float32))

    mixing = Mixing(*(matrix(side) for side in (dim, dim, *(num_words,) * 3, *(num_slots,) * 3)))
    whole, parts = torch.from_numpy(unit(rng, num_rows, dim)), torch.from_numpy(unit(rng, num_rows, num_words, dim))
    arrays = [None if m is None else m.numpy() for m in mixing[2:]]
    panel = Panel(
        scorer,
        whole.numpy(),
        whole.numpy() if mixing.sentence_DD is None else (whole @ mixing.sentence_DD).numpy(),
        parts.numpy(),
        parts.numpy() if mixing.local_DD is None else (parts @ mixing.local_DD).numpy(),
        mask,
        MixingArrays(*arrays),
        temperature,
        is_clip,
        has_unit_frames,
    )
    return Case(panel, parts, whole, mixing)


def referee(case: Case, block: FeatureBlock, rows: Rows | None, num_slots: int) -> tuple[NDArray[np.float32], ...]:
    """Totals (Q, n), grains (Q, n, G) and relevance (Q, n, F) by model.shared_scorers, from the stored features."""
    dense = gather(block, np.arange(len(block)) if rows is None else rows, num_slots)
    panel = case.panel
    frames, pooled = torch.from_numpy(dense.frames), torch.from_numpy(dense.pooled)
    if not panel.has_unit_frames:
        frames, pooled = normalize(frames, dim=-1), normalize(pooled, dim=-1)
    given = Parts(
        case.whole,
        case.parts,
        torch.from_numpy(panel.mask),
        pooled,
        frames,
        torch.from_numpy(dense.mask),
        panel.parts_are_frames,
    )
    grains = shared_score(panel.scorer, given, case.mixing, panel.temperature)  # type: ignore[arg-type]
    return grains.total.numpy(), grains.grains.numpy(), frame_relevance(given).numpy()


def bound(path: str, store: Store) -> float:
    """What a total of this path may be off by."""
    if store == "int8":
        return BOUNDS["fp32"] if path in ("avx2", "portable") else BOUNDS["int8"]
    return BOUNDS["bf16"] if path in ("amx", "avx512bf16") else BOUNDS["fp32"]
