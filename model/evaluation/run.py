"""Run a model over a data set and say how well it retrieves, both ways and by slices.

It takes a built model; it loads none and prints nothing. Memory is bounded: texts are scored in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.datasets.shapes import SLICES, Item, held_out
from model.evaluation.metrics import ranks_of_diagonal, recall_figures
from model.types import Query, TextFeatures, VideoFeatures, VideoTextModel

SCORE_BLOCK_FLOATS = 1_000_000
"""Texts per block are chosen so that T * V * W * F stays about this: what fits a cache is faster."""
CLIPS_PER_BATCH = 32

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


def evaluate_shapes(
    model: VideoTextModel, items: Sequence[Item] | None = None, on_progress: Progress | None = None
) -> dict[str, Any]:
    """Text-to-video and video-to-text figures over the held-out drawn shapes (all 1,000 unless `items` says which).

    -> {"dataset", "num_clips", "text_to_video": figures, "video_to_text": figures,
        "slices": {name: {"text_to_video": figures, "video_to_text": figures}}}.
    The queries of a slice are ranked among all clips, not among those of the slice.
    """
    chosen = held_out() if items is None else list(items)
    tell = on_progress or (lambda what, done, total: None)
    videos = _encode_clips(model, chosen, tell)
    texts = model.encode_text([item.sentence for item in chosen])
    scores_TV = score_all(model, texts, videos, tell)
    ranks = {"text_to_video": ranks_of_diagonal(scores_TV), "video_to_text": ranks_of_diagonal(scores_TV.T)}
    slices = {}
    for name, belongs in SLICES.items():
        members = np.array([belongs(item) for item in chosen])
        if members.any():
            slices[name] = {way: recall_figures(found[members]) for way, found in ranks.items()}
    return {
        "dataset": "shapes",
        "num_clips": len(chosen),
        **{way: recall_figures(found) for way, found in ranks.items()},
        "slices": slices,
    }


def score_all(
    model: VideoTextModel, texts: TextFeatures, videos: VideoFeatures, on_progress: Progress | None = None
) -> NDArray[np.float32]:
    """The full score matrix (T, V), computed in blocks of texts."""
    num_texts, num_words = texts.words.shape[:2]
    block = max(1, SCORE_BLOCK_FLOATS // (videos.frames.shape[0] * videos.frames.shape[1] * num_words))
    rows = []
    for start in range(0, num_texts, block):
        rows.append(model.score(_rows(texts, start, start + block), videos).total.float().cpu().numpy())
        if on_progress:
            on_progress("scoring", min(start + block, num_texts), num_texts)
    return np.concatenate(rows)


def _rows(texts: TextFeatures, start: int, stop: int) -> Query:
    part = slice(start, stop)
    return TextFeatures(texts.sentence[part], texts.words[part], texts.mask[part], texts.pieces[part])


def _encode_clips(model: VideoTextModel, items: Sequence[Item], tell: Progress) -> VideoFeatures:
    parts = []
    for start in range(0, len(items), CLIPS_PER_BATCH):
        batch = items[start : start + CLIPS_PER_BATCH]
        parts.append(model.encode_video([item.pixels(model.spec.num_frames) for item in batch]))
        tell("encoding", start + len(batch), len(items))
    return VideoFeatures(
        torch.cat([p.pooled for p in parts]), torch.cat([p.frames for p in parts]), torch.cat([p.mask for p in parts])
    )
