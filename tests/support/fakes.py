"""A model with the real verbs and no weights: colours are its whole vocabulary.

A frame's embedding is the direction of its mean colours over a 2 x 2 grid; a sentence naming colours points at a frame
of those colours. So "red" finds the red video, and a clip finds its own video, in microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.errors import UnknownScorer
from model.kernels.panel import Panel
from model.resize import FrameResize
from model.types import GRAINS, ModelSpec, Pixels, Query, ScorerName, Scores, TextFeatures, VideoFeatures

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 30),
    "blue": (30, 30, 220),
    "yellow": (220, 220, 30),
    "purple": (160, 30, 200),
    "white": (250, 250, 250),
    "black": (5, 5, 5),
}


class FakeModel:
    """VideoTextModel over mean colours: D = 16, F frame slots, W = 8 words."""

    def __init__(self, num_frames: int = 4, fingerprint: str = "fake-1") -> None:
        self._spec = ModelSpec("fake", fingerprint, 16, num_frames, 8, 32, "mean", scorers=("aosm", "mean"))
        generator = torch.Generator().manual_seed(7)
        self._projection = torch.randn(12, 16, generator=generator)

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def resize(self) -> FrameResize:
        return FrameResize(self._spec.image_size)

    def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
        slots = self._spec.num_frames
        frames = torch.zeros(len(segments), slots, 16)
        mask = torch.zeros(len(segments), slots, dtype=torch.bool)
        for v, pixels in enumerate(segments):
            for f, frame in enumerate(pixels):
                frames[v, f] = self._embed(frame)
                mask[v, f] = True
        pooled = torch.nn.functional.normalize(frames.sum(1), dim=-1)
        return VideoFeatures(pooled, frames, mask)

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        width = self._spec.num_words
        words = torch.zeros(len(texts), width, 16)
        mask = torch.zeros(len(texts), width, dtype=torch.bool)
        pieces, is_cut = [], []
        for t, text in enumerate(texts):
            split = text.lower().split()
            is_cut.append(len(split) > width)
            split = split[:width]
            pieces.append(tuple(split))
            for w, word in enumerate(split):
                colour = COLOURS.get(word, (128, 128, 128))
                words[t, w] = self._embed(np.full((4, 4, 3), colour, dtype=np.uint8))
                mask[t, w] = True
        known = torch.nn.functional.normalize(words.sum(1), dim=-1)
        return TextFeatures(known, words, mask, tuple(pieces), tuple(is_cut))

    def recall_vectors(self, query: Query) -> Tensor:
        return query.sentence if isinstance(query, TextFeatures) else query.pooled

    def score(self, query: Query, videos: VideoFeatures, scorer: ScorerName | None = None) -> Scores:
        if scorer not in (None, *self._spec.scorers):
            raise UnknownScorer(f"the scorer {scorer!r} is unknown to the fake", "Use aosm or mean.")
        whole = self.recall_vectors(query)
        parts = query.words if isinstance(query, TextFeatures) else query.frames
        part_mask = query.mask
        off = torch.tensor(float("-inf"))
        relevance = self.frame_relevance(query, videos)
        part_video = torch.einsum("qwd,vd->qvw", parts, videos.pooled)
        part_video = torch.where(part_mask[:, None], part_video, off)
        fine = torch.einsum("qwd,vfd->qvwf", parts, videos.frames)
        fine = torch.where(part_mask[:, None, :, None] & videos.mask[None, :, None], fine, off)
        grains = torch.stack(
            [whole @ videos.pooled.T, part_video.amax(-1), relevance.amax(-1), fine.amax((-1, -2))], dim=-1
        )
        if scorer == "mean":
            return Scores(grains[..., 0], grains[..., :1], GRAINS[:1])
        return Scores(grains.mean(-1), grains)

    def panel(self, query: Query, scorer: ScorerName | None = None) -> Panel | None:
        """Its arithmetic is its own: no kernel has it."""
        return None

    def frame_relevance(self, query: Query, videos: VideoFeatures) -> Tensor:
        frame_sim = torch.einsum("qd,vfd->qvf", self.recall_vectors(query), videos.frames)
        return torch.where(videos.mask[None], frame_sim, torch.tensor(float("-inf")))

    def _embed(self, frame: np.ndarray) -> Tensor:
        half_y, half_x = max(1, frame.shape[0] // 2), max(1, frame.shape[1] // 2)
        cells = [frame[:half_y, :half_x], frame[:half_y, -half_x:], frame[-half_y:, :half_x], frame[-half_y:, -half_x:]]
        values = torch.tensor(np.concatenate([c.reshape(-1, 3).mean(0) for c in cells]), dtype=torch.float32)
        return torch.nn.functional.normalize((values / 127.5 - 1.0) @ self._projection, dim=-1)
