"""A made-up library whose features resemble CLIP's, generated shard by shard, with sentences whose answers are planted.

Letters: T sentences, W words, N segments of a shard, F frames of each, D width.
A picture is half a direction common to all pictures, half content: topic, video, segment, shot and a little of
its own.
A sentence is mostly a direction common to all sentences (the modality gap) and noise; a small share is the content it
describes. Cosines are near those that CLIP's have: two pictures 0.5, frames of a shot 0.94, a sentence and its picture
0.25 to 0.45, any other picture 0.15 +- 0.04. Every third sentence describes

    whole     all frames of one segment;
    needle    one frame of a segment of other content;
    lured     the same, and in the library there are COPIES segments with a near copy of that frame, and LURES whose
              pooled vector matches as well, but none of whose frames does.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model.kernels.block import FeatureBlock, Store, quantize

Array = NDArray[np.float32]

KINDS = ("whole", "needle", "lured")
COPIES = 20
LURES = 20
NUM_FRAMES = 12
NUM_WORDS = 10
TOPICS = 4096
SEGMENTS_PER_VIDEO = 8
SEGMENTS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class Sentences:
    """What is searched for."""

    whole: Array
    """(T, D)"""
    words: Array
    """(T, W, D)"""
    kinds: NDArray[np.str_]
    """(T,)"""
    targets: NDArray[np.int64]
    """(T,): the segment that was planted, numbered through all shards."""


@dataclass(slots=True)
class _Plants:
    """What of a shard is written over."""

    segments: list[tuple[int, Array]] = field(default_factory=list)
    """Row and content (D,) of all of its frames."""
    frames: list[tuple[int, int, Array]] = field(default_factory=list)
    """Row, slot and content (D,)."""
    pooled: list[tuple[int, Array]] = field(default_factory=list)
    """Row and content (D,) of the pooled vector."""


class Library:
    """Segments in shards of equal size, and the sentences that are asked of them. The same seed, the same library."""

    def __init__(
        self, num_segments: int, num_sentences: int, *, num_shards: int = 1, width: int = 512, seed: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        self.num_shards = num_shards
        self.shard_segments = num_segments // num_shards
        self._width = width
        self._seed = seed
        scale = np.arange(1, width + 1) ** -0.375
        turn = np.linalg.qr(rng.standard_normal((width, width)))[0]
        self._shape: Array = (scale[:, None] * turn / np.linalg.norm(scale)).astype(np.float32)
        self._picture = unit(rng.standard_normal((1, width), dtype=np.float32))[0]
        away = unit(rng.standard_normal((2, width), dtype=np.float32))
        away = unit(away - (away @ self._picture)[:, None] * self._picture)
        self._sentence, self._word = unit(0.3 * self._picture + np.sqrt(0.91) * away)
        self._topics = self._content(rng, TOPICS)
        self._grain = 0.36 * unit(rng.standard_normal((8192, width), dtype=np.float32))
        self._plants: dict[int, _Plants] = defaultdict(_Plants)
        self.sentences = self._ask(rng, num_sentences)

    @property
    def num_segments(self) -> int:
        """Of all shards."""
        return self.shard_segments * self.num_shards

    def shard(self, number: int, store: Store = "fp16") -> FeatureBlock:
        """Generate one shard."""
        rng = np.random.default_rng((self._seed, number))
        size, slots = self.shard_segments, NUM_FRAMES
        frames = np.empty((size * slots, self._width), np.float16)
        pooled = np.empty((size, self._width), np.float16)
        for at in range(0, size, SEGMENTS_AT_ONCE):
            num = min(SEGMENTS_AT_ONCE, size - at)
            pictures = self._pictures(rng, num)
            self._plant_frames(rng, pictures, number, at)
            frames[at * slots : (at + num) * slots] = pictures.reshape(-1, self._width)
            pooled[at : at + num] = unit(pictures.mean(axis=1))
        for row, content in self._plants[number].pooled:
            pooled[row] = self._as_picture(content)
        first, counts = np.arange(size, dtype=np.int64) * slots, np.full(size, slots, np.int32)
        if store == "fp16":
            return FeatureBlock(frames, pooled, first, counts)
        (codes, scales), (pooled_codes, pooled_scales) = quantize(frames), quantize(pooled)
        return FeatureBlock(codes, pooled_codes, first, counts, scales, pooled_scales)

    # ---- pictures

    def _content(self, rng: np.random.Generator, number: int) -> Array:
        """(number, D) of length about 1: more along some directions than along others."""
        drawn: Array = rng.standard_normal((number, self._width), dtype=np.float32) @ self._shape
        return drawn

    def _pictures(self, rng: np.random.Generator, num: int) -> Array:
        """(num, F, D): segments of videos of Zipf-distributed topics, each of one to three shots."""
        num_videos = num // SEGMENTS_PER_VIDEO + 1
        topics = np.minimum(rng.zipf(1.3, num_videos) - 1 + rng.integers(0, 64, num_videos), TOPICS - 1)
        video = 0.55 * self._topics[topics] + 0.45 * self._content(rng, num_videos)
        segment = np.repeat(video, SEGMENTS_PER_VIDEO, axis=0)[:num] + 0.4 * self._content(rng, num)
        shots = segment[:, None, :] + 0.45 * self._content(rng, num * 3).reshape(num, 3, -1)
        num_shots = rng.choice(3, num, p=[0.5, 0.3, 0.2]) + 1
        cuts = np.sort(rng.integers(0, NUM_FRAMES, (num, 2)), axis=1)
        shot_of = (np.arange(NUM_FRAMES)[None, :, None] >= cuts[:, None, :]).sum(axis=2)
        shot_of = np.minimum(shot_of, num_shots[:, None] - 1)
        content = shots[np.arange(num)[:, None], shot_of]
        content += self._grain[rng.integers(0, len(self._grain), (num, NUM_FRAMES))]
        return self._as_picture(content)

    def _as_picture(self, content: Array) -> Array:
        pictures: Array = unit(content)
        pictures += self._picture
        return unit(pictures)

    def _plant_frames(self, rng: np.random.Generator, pictures: Array, number: int, at: int) -> None:
        plants, num = self._plants[number], len(pictures)
        for row, content in plants.segments:
            if at <= row < at + num:
                own = self._grain[rng.integers(0, len(self._grain), NUM_FRAMES)]
                pictures[row - at] = self._as_picture(content + own)
        for row, slot, content in plants.frames:
            if at <= row < at + num:
                pictures[row - at, slot] = self._as_picture(content)

    # ---- sentences

    def _ask(self, rng: np.random.Generator, number: int) -> Sentences:
        kinds = np.array([KINDS[q % 3] for q in range(number)])
        is_whole = (kinds == "whole")[:, None]
        topics = self._topics[rng.integers(0, 512, number)]
        content = unit(
            np.where(is_whole, np.float32(0.55), np.float32(0.3)) * topics + 0.75 * self._content(rng, number)
        )
        needed = sum(1 + (COPIES + LURES) * (kind == "lured") for kind in kinds)
        places = iter(rng.permutation(self.num_segments)[:needed].tolist())
        targets = []
        for kind, described in zip(kinds, content, strict=True):
            targets.append(next(places))
            shard, row = divmod(targets[-1], self.shard_segments)
            if kind == "whole":
                self._plants[shard].segments.append((row, described))
                continue
            self._plants[shard].frames.append((row, int(rng.integers(NUM_FRAMES)), self._near(rng, described, 0.25)))
            for _ in range(COPIES if kind == "lured" else 0):
                shard, row = divmod(next(places), self.shard_segments)
                copy = (row, int(rng.integers(NUM_FRAMES)), self._near(rng, described, 0.35))
                self._plants[shard].frames.append(copy)
            for _ in range(LURES if kind == "lured" else 0):
                shard, row = divmod(next(places), self.shard_segments)
                self._plants[shard].pooled.append((row, self._near(rng, described, 0.35)))
        # half of AOSM's grains are blind to a needle: a fainter one would rank below the tenth by any search
        share: Array = (rng.uniform(0.18, 0.33, (number, 1)) + np.where(is_whole, 0.0, 0.16)).astype(np.float32)
        whole = unit(0.7 * self._sentence + share * content + self._noise(rng, number))
        own = unit(0.7 * self._word + self._noise(rng, number * NUM_WORDS)).reshape(number, NUM_WORDS, -1)
        return Sentences(whole, unit(0.6 * whole[:, None, :] + 0.8 * own), kinds, np.array(targets))

    def _near(self, rng: np.random.Generator, content: Array, distance: float) -> Array:
        near: Array = content + np.float32(distance) * self._content(rng, 1)[0]
        return near

    def _noise(self, rng: np.random.Generator, number: int) -> Array:
        everywhere = rng.standard_normal((number, self._width), dtype=np.float32) / np.float32(np.sqrt(self._width))
        noise: Array = 0.25 * self._content(rng, number) + 0.55 * everywhere
        return noise


def unit(vectors: Array) -> Array:
    """Vectors of length 1."""
    vectors = vectors.astype(np.float32, copy=False)
    scaled: Array = vectors / np.sqrt(np.einsum("...d,...d->...", vectors, vectors))[..., None]
    return scaled
