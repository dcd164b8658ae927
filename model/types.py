"""The waist: what every video-text model of Vidgrain takes and gives.

Letters: T texts, V segments of video, Q queries (texts or segments), W words, F frame slots, D embedding width.
Every embedding here is L2-normalised; masks are bool with True = real. A padded slot of a stored
segment holds zeros and mask False.

This file knows no checkpoint, no file and no index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.uint8]
"""The frames of one segment in order of time: (n, height, width, 3) sRGB uint8, 1 <= n <= F."""

GRAINS = ("video_sentence", "video_word", "frame_sentence", "frame_word")
"""The four similarities of X-CLIP, in the order of `Scores.grains`. Of a video query the words are its frames."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model's numbers mean. Two models with one fingerprint give the same features.

    fingerprint: hex digest of weights + configuration; features of different fingerprints never mix.
    """

    name: str
    fingerprint: str
    embed_dim: int
    num_frames: int
    num_words: int
    image_size: int
    temporal: str


@dataclass(frozen=True, slots=True)
class VideoFeatures:
    """pooled (V, D), frames (V, F, D), mask (V, F) bool; all on one device, floating point, L2-normalised."""

    pooled: Tensor
    frames: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """sentence (T, D), words (T, W, D), mask (T, W) bool; `pieces` the readable token of each real word."""

    sentence: Tensor
    words: Tensor
    mask: Tensor
    pieces: tuple[tuple[str, ...], ...]


Query = TextFeatures | VideoFeatures


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of Q queries against V segments, float32, cosine scale: no logit scale; learnt mixing may pass 1.

    total (Q, V): the mean of the four grains; grains (Q, V, 4) in the order of GRAINS;
    frame_relevance (Q, V, F): how much each frame slot supports the query, -inf where the slot is padding.
    """

    total: Tensor
    grains: Tensor
    frame_relevance: Tensor


class VideoTextModel(Protocol):
    """Encode, recall, score. The real model, its wrappers and the tests' fake share these verbs."""

    @property
    def spec(self) -> ModelSpec: ...

    def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
        """Encode V segments of 1..F frames each; sizes may differ between segments. Raises: ShapeError."""
        ...

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        """Encode T sentences; text past W tokens is cut. Raises: ShapeError for an empty list."""
        ...

    def recall_vectors(self, query: Query) -> Tensor:
        """(Q, D) float32 vectors r such that r . pooled is grain one of `score`."""
        ...

    def score(self, query: Query, videos: VideoFeatures) -> Scores:
        """All four grains of each query against each segment. Raises: ShapeError if widths differ."""
        ...
