"""Moving pictures to encode: real footage, scaled and played to and fro, or a drawn scene that pans; grain over both.

Grain and texture keep an encoder as busy as a camera's pictures do, so that the bitrate asked for is spent and decoding
costs what it costs in life. Pictures are YUV 4:2:0, 8 bits: (height * 3 / 2, width) uint8, as PyAV takes them. It knows
no file that is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]

LOOPED_FRAMES = 150
"""Real frames that are held in memory and played to and fro."""
FEWEST_FRAMES = 50
"""Shorter footage is left out: its loop would be seen by the encoder."""
GRAIN = 7
"""Grey levels of noise."""
NUM_GRAINS = 16
SUFFIXES = {".mp4", ".mkv"}


def real_footage() -> list[Path]:
    """The usable videos of the folder that VIDGRAIN_TEST_VIDEOS names, in order; none where it isn't set."""
    folder = Path(os.environ.get("VIDGRAIN_TEST_VIDEOS", ""))
    if not os.environ.get("VIDGRAIN_TEST_VIDEOS") or not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES and _is_usable(path)]


def pictures(source: Path | None, count: int, size: tuple[int, int], seed: int) -> Iterator[Picture]:
    """`count` pictures of (width, height) even pixels: of a real video, or of a drawn scene for None."""
    random = np.random.default_rng(seed)
    moving = _drawn(size, random) if source is None else _to_and_fro(_read(source, size))
    width, height = size
    grains = random.integers(0, GRAIN + 1, (NUM_GRAINS, height, width), dtype=np.uint8)
    for number, picture in enumerate(islice(moving, count)):
        luma = np.minimum(picture[:height], 255 - GRAIN)
        grain = np.roll(grains[number % NUM_GRAINS], int(random.integers(height)), axis=0)
        yield np.concatenate([luma + grain, picture[height:]])


def _is_usable(path: Path) -> bool:
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            is_plain = stream.codec_context.pix_fmt == "yuv420p" and stream.codec_context.width >= 320
            return is_plain and sum(1 for _ in islice(container.decode(stream), FEWEST_FRAMES)) == FEWEST_FRAMES
    except (av.FFmpegError, IndexError):
        return False


def _read(source: Path, size: tuple[int, int]) -> list[Picture]:
    with av.open(str(source)) as container:
        frames = islice(container.decode(video=0), LOOPED_FRAMES)
        return [frame.reformat(*size, format="yuv420p").to_ndarray() for frame in frames]


def _to_and_fro(frames: Sequence[Picture]) -> Iterator[Picture]:
    there_and_back = [*frames, *frames[-2:0:-1]]
    while True:
        yield from there_and_back


def _drawn(size: tuple[int, int], random: np.random.Generator) -> Iterator[Picture]:
    """A textured ground that pans, and textured patches that move over it, each along its own curve."""
    width, height = size
    grounds = [_texture((2 * side[0], 2 * side[1]), random) for side in (size, _half(size), _half(size))]
    num_patches = int(random.integers(3, 7))
    sides = random.integers(min(size) // 8, min(size) // 3, (num_patches, 2)) // 2 * 2
    patches = [[_texture(side, random) for side in ((w, h), (w // 2, h // 2), (w // 2, h // 2))] for w, h in sides]
    paces = random.uniform(0.004, 0.03, (num_patches + 1, 2))
    phases = random.uniform(0, 2 * np.pi, (num_patches + 1, 2))
    number = 0
    while True:
        places = (1 + np.sin(phases + number * paces)) / 2
        planes = []
        for plane, ground in enumerate(grounds):
            across, down = (width, height) if plane == 0 else _half(size)
            x, y = (places[0] * (across, down)).astype(int)
            picture = ground[y : y + down, x : x + across].copy()
            for patch, place in zip(patches, places[1:], strict=True):
                drawn = patch[plane]
                left, top = (place * (across - drawn.shape[1], down - drawn.shape[0])).astype(int)
                picture[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
            planes.append(picture.reshape(-1, width))
        yield np.concatenate(planes)
        number += 1


def _texture(size: tuple[int, int], random: np.random.Generator) -> Picture:
    """Noise of many scales, coarse ones strongest, as in nature: (height, width) uint8."""
    width, height = (max(2, int(side)) for side in size)
    total = np.zeros((height, width), np.float32)
    step = max(width, height) // 2
    while step >= 1:
        coarse = random.standard_normal((height // step + 2, width // step + 2)).astype(np.float32)
        total += step**0.7 * np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        step //= 2
    total = (total - total.mean()) / (total.std() + 1e-6)
    return np.clip(128 + 40 * total, 16, 235).astype(np.uint8)


def _half(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] // 2, size[1] // 2
