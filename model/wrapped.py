"""A model around another: every verb is passed on, so that a wrapper writes only those that it changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.kernels.panel import Panel
from model.resize import FrameResize
from model.types import ModelSpec, Pixels, Query, ScorerName, Scores, TextFeatures, VideoFeatures, VideoTextModel


class WrappedModel:
    """VideoTextModel by way of `inner`."""

    def __init__(self, inner: VideoTextModel) -> None:
        self.inner = inner

    @property
    def spec(self) -> ModelSpec:
        """The inner model's."""
        return self.inner.spec

    @property
    def device(self) -> torch.device:
        """The inner model's."""
        return self.inner.device

    @property
    def resize(self) -> FrameResize:
        """The inner model's."""
        return self.inner.resize

    def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
        """As the inner model."""
        return self.inner.encode_video(segments)

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        """As the inner model."""
        return self.inner.encode_text(texts)

    def recall_vectors(self, query: Query) -> Tensor:
        """As the inner model."""
        return self.inner.recall_vectors(query)

    def score(self, query: Query, videos: VideoFeatures, scorer: ScorerName | None = None) -> Scores:
        """As the inner model."""
        return self.inner.score(query, videos, scorer)

    def panel(self, query: Query, scorer: ScorerName | None = None) -> Panel | None:
        """As the inner model."""
        return self.inner.panel(query, scorer)

    def frame_relevance(self, query: Query, videos: VideoFeatures) -> Tensor:
        """As the inner model."""
        return self.inner.frame_relevance(query, videos)
