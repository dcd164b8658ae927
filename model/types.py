"""The waist: what every video-text model of Vidgrain takes and gives.

Letters: T texts, V segments of video, Q queries (texts or segments), W words, F frame slots, D embedding width.
Every embedding here is L2-normalised, except the raw ones that a joint transformer reads (kind "tight"); masks are
bool with True = real. A padded slot of a stored segment holds zeros and mask False.

This file knows no checkpoint, no file and no index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # what only lists videos imports no torch
    from torch import Tensor, device

    from model.kernels.panel import Panel
    from model.resize import FrameResize

Pixels = NDArray[np.uint8]
"""The frames of one segment in order of time: (n, height, width, 3) sRGB uint8, 1 <= n <= F."""

GRAINS = ("video_sentence", "video_word", "frame_sentence", "frame_word")
"""The four similarities of X-CLIP. For a video query the words are its frames."""

HeadKind = str
"""The name of a kind of model, such as "xclip": whose score it was trained for. model.families lists them."""

ScorerName = str
"""How stored features are compared with a query, such as "aosm". model.scorers lists them."""


Precision = Literal["fp32", "bf16"]
"""What the numbers of a tower are computed in; features themselves are float32."""


def public_name(name: str) -> str:
    """A model's name without the machine's folders: `/srv/models/x` is `x`, `ARCH//srv/w.pt` is `ARCH/w.pt`."""
    head, slash, rest = name.partition("/")
    if not rest.startswith("/") and head:
        return name
    return f"{head}{slash if head else ''}{PurePath(rest).name}"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model's numbers mean. Two models with one fingerprint give the same features."""

    name: str
    """What it was loaded by."""

    fingerprint: str
    """Hex digest of weights and configuration; features of different fingerprints never mix."""

    embed_dim: int
    """D."""

    num_frames: int
    """F."""

    num_words: int
    """W."""

    image_size: int
    """Side of the frames that the image tower takes, in pixels."""

    temporal: str
    """What becomes of the frames before they are pooled, in a word."""

    kind: HeadKind = "xclip"
    """One of model.families."""

    pooled_dim: int = 0
    """Width P of `VideoFeatures.pooled`, 0 for D; CLIP2Video's holds two vectors side by side."""

    has_frame_recall: bool = True
    """Whether frames are unit vectors that a sentence can recall."""

    scorers: tuple[ScorerName, ...] = ("aosm", "multi_grained", "maxsim", "max_frame", "mean")
    """What its features can be scored by, the default first."""

    precision: Precision = "fp32"
    """What frames are encoded in; part of the fingerprint."""

    @property
    def pooled_width(self) -> int:
        """P, the width of what is recalled."""
        return self.pooled_dim or self.embed_dim


@dataclass(frozen=True, slots=True)
class VideoFeatures:
    """What is stored of V segments and compared; all on one device, floating point."""

    pooled: Tensor
    """(V, P). P is D, except for CLIP2Video, whose global and aligned vectors stand side by side, each normalised."""

    frames: Tensor
    """(V, F, D)."""

    mask: Tensor
    """(V, F) bool."""


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """What T sentences are compared by."""

    sentence: Tensor
    """(T, P)."""

    words: Tensor
    """(T, W, D)."""

    mask: Tensor
    """(T, W) bool."""

    pieces: tuple[tuple[str, ...], ...] = ()
    """The readable token of each real word, where a tokenizer was asked."""

    is_cut: tuple[bool, ...] = ()
    """Per sentence whether it has more than W tokens; empty where nobody asked."""

    precision: Precision = "fp32"
    """What they were computed in."""


Query = TextFeatures | VideoFeatures


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of Q queries against V segments, float32, cosine scale: no logit scale; learnt mixing may exceed 1."""

    total: Tensor
    """(Q, V): what ranks."""

    grains: Tensor
    """(Q, V, G): the parts that it is made of."""

    names: tuple[str, ...] = GRAINS
    """The names of the G parts."""


class VideoTextModel(Protocol):
    """Encode, recall, score. The real model, its wrappers and the tests' fake share these verbs."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def device(self) -> device:
        """Where it runs: its features come from there."""
        ...

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

    def panel(self, query: Query, scorer: ScorerName | None = None) -> Panel | None:
        """What a kernel needs to score as `score` does; None for a scorer that only `score` can compute.

        Raises: UnknownScorer.
        """
        ...

    def frame_relevance(self, query: Query, videos: VideoFeatures) -> Tensor:
        """(Q, V, F): how much each frame slot supports the query, whatever scorer ranks; -inf in padding."""
        ...
