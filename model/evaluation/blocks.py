"""Scores of many texts against many clips in bounded memory: encoded some texts at a time, scored tile by tile.

Letters: T texts, V clips, B texts of a block, W words, F frame slots, D embedding width. A text is encoded once, in the
block in which it is scored, and forgotten: 59,800 captions need no more memory than 128. The clips' features stay.
It reads no file; ranks are metrics.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.network import Network
from model.scorers import SCORERS
from model.types import ScorerName, TextFeatures, VideoFeatures

TEXTS_PER_BLOCK = 128
CPU_TILE_FLOATS = 1_000_000
"""Numbers of the largest tensor of a tile: what fits a cache is faster."""
GPU_TILE_FLOATS = 64_000_000


def score_texts(
    network: Network, texts: Sequence[str], videos: VideoFeatures, scorer: ScorerName | None = None
) -> Iterator[NDArray[np.float32]]:
    """Blocks (B, V) of the scores, in the order of the texts. scorer: None for what the papers' evaluation ranks by.

    Raises: UnknownScorer.
    """
    for start in range(0, len(texts), TEXTS_PER_BLOCK):
        yield score_block(network, encode_texts(network, texts[start : start + TEXTS_PER_BLOCK]), videos, scorer)


@torch.inference_mode()
def encode_texts(network: Network, texts: Sequence[str]) -> TextFeatures:
    """Texts -> features on the network's device; what doesn't fit in W tokens is cut."""
    device = network.backbone.logit_scale.device
    ids_TW, mask_TW, *_ = network.backbone.tokenize(texts, network.num_words)
    return network.text(ids_TW.to(device), mask_TW.to(device))


@torch.inference_mode()
def score_block(
    network: Network,
    texts: TextFeatures,
    videos: VideoFeatures,
    scorer: ScorerName | None = None,
    tile_floats: int | None = None,
) -> NDArray[np.float32]:
    """(B, V) scores, tile by tile. tile_floats: numbers of a tile's largest tensor; None: what suits the device."""
    is_gpu = videos.pooled.device.type == "cuda"
    pairs = max(1, (tile_floats or (GPU_TILE_FLOATS if is_gpu else CPU_TILE_FLOATS)) // _floats_a_pair(network, scorer))
    num_texts, num_videos = len(texts.sentence), len(videos.pooled)
    high = min(num_texts, max(1, round(pairs**0.5)))
    wide = min(num_videos, max(1, pairs // high))
    rows = []
    for top in range(0, num_texts, high):
        some = _texts(texts, slice(top, top + high))
        tiles = [
            _scores(network, some, _videos(videos, slice(left, left + wide)), scorer)
            for left in range(0, num_videos, wide)
        ]
        rows.append(torch.cat(tiles, dim=1))
    return torch.cat(rows).float().cpu().numpy()


def _scores(network: Network, texts: TextFeatures, videos: VideoFeatures, scorer: ScorerName | None) -> Tensor:
    return network.similarity(texts, videos) if scorer is None else network.score(texts, videos, scorer).total


def _floats_a_pair(network: Network, scorer: ScorerName | None) -> int:
    """Numbers that one text and one clip need at the peak."""
    cost = network.similarity_cost if scorer is None else SCORERS[scorer].cost
    words, frames = network.num_words, network.num_frames
    joint = 4 * (1 + frames) * network.backbone.embed_dim
    return {"pair": 1, "frames": frames, "words_frames": words * frames, "joint": joint}[cost]


def _texts(texts: TextFeatures, part: slice) -> TextFeatures:
    return TextFeatures(texts.sentence[part], texts.words[part], texts.mask[part])


def _videos(videos: VideoFeatures, part: slice) -> VideoFeatures:
    return VideoFeatures(videos.pooled[part], videos.frames[part], videos.mask[part])
