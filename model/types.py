"""The waist: what every video-text model of Vidgrain takes and gives.

Letters: T texts, V segments of video, Q queries (texts or segments), W words, F frame slots, D embedding width.
Every embedding here is L2-normalised, but for the raw ones that a joint transformer reads (kind "tight"); masks are
bool with True = real. A padded slot of a stored segment holds zeros and mask False.

This file knows no checkpoint, no file and no index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.resize import FrameResize

Pixels = NDArray[np.uint8]
"""The frames of one segment in order of time: (n, height, width, 3) sRGB uint8, 1 <= n <= F."""

GRAINS = ("video_sentence", "video_word", "frame_sentence", "frame_word")
"""The four similarities of X-CLIP. Of a video query the words are its frames."""

HeadKind = str
"""The name of a kind of model, such as "xclip": whose score it was trained for. model.families lists them."""

ScorerName = str
"""How stored features are compared with a query, such as "aosm". model.scorers lists them."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model's numbers mean. Two models with one fingerprint give the same features.

    fingerprint: hex digest of weights + configuration; features of different fingerprints never mix.
    pooled_dim: width P of `VideoFeatures.pooled`, 0 for embed_dim; CLIP2Video's holds two vectors side by side.
    has_frame_recall: whether frames are unit vectors that a sentence can recall. scorers: the default stands first.
    """

    name: str
    fingerprint: str
    embed_dim: int
    num_frames: int
    num_words: int
    image_size: int
    temporal: str
    kind: HeadKind = "xclip"
    pooled_dim: int = 0
    has_frame_recall: bool = True
    scorers: tuple[ScorerName, ...] = ("aosm", "multi_grained", "maxsim", "max_frame", "mean")

    @property
    def pooled_width(self) -> int:
        """P, the width of what is recalled."""
        return self.pooled_dim or self.embed_dim


@dataclass(frozen=True, slots=True)
class VideoFeatures:
    """pooled (V, P), frames (V, F, D), mask (V, F) bool; all on one device, floating point. P is D but of CLIP2Video,
    whose global and aligned vectors stand side by side, each normalised (P = 2 D)."""

    pooled: Tensor
    frames: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """sentence (T, P), words (T, W, D), mask (T, W) bool; `pieces` the readable token of each real word, if asked."""

    sentence: Tensor
    words: Tensor
    mask: Tensor
    pieces: tuple[tuple[str, ...], ...] = ()
    is_cut: tuple[bool, ...] = ()
    """Per sentence whether it has more than W tokens; empty where nobody asked."""


Query = TextFeatures | VideoFeatures


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of Q queries against V segments, float32, cosine scale: no logit scale; learnt mixing may pass 1.

    total (Q, V): what ranks; grains (Q, V, G): the parts it is made of, `names` says which, and of X-CLIP's scores
    GRAINS; frame_relevance (Q, V, F): how much each frame slot supports the query, -inf where the slot is padding.
    """

    total: Tensor
    grains: Tensor
    frame_relevance: Tensor
    names: tuple[str, ...] = GRAINS


class VideoTextModel(Protocol):
    """Encode, recall, score. The real model, its wrappers and the tests' fake share these verbs."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def resize(self) -> FrameResize:
        """What is done to frames first, so that a decoder can do it where the frames are and send few bytes."""
        ...

    def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
        """Encode V segments of 1..F frames each. Sizes may differ between segments; resized frames pass unchanged.

        Raises: ShapeError.
        """
        ...

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        """Encode T sentences; text past W tokens is cut. Raises: ShapeError for an empty list."""
        ...

    def recall_vectors(self, query: Query) -> Tensor:
        """(Q, P) float32 vectors r such that r . pooled is the part of `score` that recall can find: grain one of
        X-CLIP, all of CLIP4Clip's and CLIP2Video's scores, the pooled cosine of a joint transformer's model."""
        ...

    def score(self, query: Query, videos: VideoFeatures, scorer: ScorerName | None = None) -> Scores:
        """Each query against each segment; scorer: one of `spec.scorers`, None for the first.

        Raises: ShapeError if widths differ, UnknownScorer.
        """
        ...
