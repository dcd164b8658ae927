"""What it takes to bring one decoded frame to an image tower's size, beside PIL, swscale and the roof of memory.

    python -m benchmarks.resize [--rounds 15] [--side 224] [--json]

Milliseconds of one thread's CPU time for a frame of noise, the median of several rounds in which everything is measured
in turn. Each of a few frames is taken after the other, so that none lies in the first caches.

Beside ours stand PIL's resize (equal to the bit), the other paths of the compiled code, swscale straight to the size
(other pixels), and two roofs: reading the frame's bytes once, and copying them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import av
import numpy as np

from benchmarks.report import Row, Spread, at_least, interleaved, print_rows
from indexer.media.orientation import upright_rgb
from model.kernels import native as scoring
from model.resampling import native
from model.resampling.native import NativeResize
from model.resize import FrameResize

SIZES = {"720p": (1280, 720), "1080p": (1920, 1080), "2160p": (3840, 2160)}
MIN_GAIN = 8.0
"""How many times as fast as PIL the resize of 720p should be."""

NUM_FRAMES = 4


def measure(sizes: Sequence[str], side: int, rounds: int) -> list[Row]:
    """Three rows for each size: the resize, the same of a turned frame, and the way from the decoder's frame."""
    rows = []
    for name in sizes:
        width, height = SIZES[name]
        pictures = [_noise(width, height, seed) for seed in range(NUM_FRAMES)]
        rows += [
            _resize_row(f"resize, {name} -> {side}", pictures, side, rounds, has_target=name == "720p"),
            _resize_row(
                f"resize, {name} turned upright -> {side}", [p.transpose(1, 0, 2) for p in pictures], side, rounds
            ),
            _decoded_row(f"decoded frame, {name} -> {side}", pictures, side, rounds),
        ]
    return rows


def _resize_row(name: str, pictures: Sequence[np.ndarray], side: int, rounds: int, *, has_target: bool = False) -> Row:
    resize, copy = FrameResize(side), np.empty_like(pictures[0])
    best = native.load()
    measured: dict[str, Callable[[np.ndarray], object]] = {
        "ours": lambda p: resize(p[None]),
        "PIL": lambda p: resize.resized(p[None], None),
        "copying": lambda p: np.copyto(copy, p),
    }
    for path in native.paths():
        if best is not None and path != best.path:
            other = NativeResize(path)
            measured[path] = lambda p, other=other: resize.resized(p[None], other)  # type: ignore[misc]
    if scoring.paths() and pictures[0].flags.c_contiguous:
        measured["reading"] = scoring.read
    found = interleaved({what: _timed(call, pictures) for what, call in measured.items()}, rounds)
    return _row(name, found, "PIL", has_target)


def _decoded_row(name: str, pictures: Sequence[np.ndarray], side: int, rounds: int) -> Row:
    """From the decoder's planes: colours converted, then resized; before, and by swscale in one step."""
    resize = FrameResize(side)
    height, width = pictures[0].shape[:2]
    frames = [av.VideoFrame.from_ndarray(p, format="rgb24").reformat(format="yuv420p") for p in pictures]

    def by_pil(frame: av.VideoFrame) -> object:
        pixels = np.ascontiguousarray(frame.to_ndarray(format="rgb24", width=width, height=height))
        return resize.resized(pixels[None], None)

    def by_swscale(frame: av.VideoFrame) -> object:
        to = {"width": side * width // height, "height": side, "interpolation": "BICUBIC", "threads": 1}
        return frame.reformat(format="rgb24", **to)

    measured: dict[str, Callable[[av.VideoFrame], object]] = {
        "ours": lambda f: resize(upright_rgb(f, (width, height))[None]),
        "colours, then PIL": by_pil,
        "colours alone": lambda f: upright_rgb(f, (width, height)),
        "swscale in one step": by_swscale,
    }
    found = interleaved({what: _timed(call, frames) for what, call in measured.items()}, rounds)
    return _row(name, found, "colours, then PIL")


def _row(name: str, found: dict[str, Spread], peer: str, has_target: bool = False) -> Row:
    ours = found.pop("ours")
    target = at_least(MIN_GAIN, "ratio") if has_target else None
    return Row(name, ours, "ms", found, found[peer].median / ours.median, target)


def _timed(call: Callable[[Any], object], frames: Sequence[Any]) -> Callable[[], float]:
    def once() -> float:
        started_s = time.thread_time()
        for frame in frames:
            call(frame)
        return (time.thread_time() - started_s) * 1e3 / len(frames)

    return once


def _noise(width: int, height: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    print_rows(measure(chosen.sizes, chosen.side, chosen.rounds), as_json=chosen.json)


if __name__ == "__main__":
    main()
