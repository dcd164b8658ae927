"""The verbs of decoding: probe a file, read the frames shown at given instants, make a thumbnail.

PyAV (pyav.py) reads by default; decord (decord.py) is selectable. Time is counted from the stream's first frame; the
frame shown at an instant is the last one whose time is not after it. A decoder can hang or crash on a hostile file, so
production calls this inside sandbox.py.

This file knows no model, no catalogue and no process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from indexer.errors import VideoUndecodable
from indexer.media.decord import read_with_decord, require_decord
from indexer.media.orientation import jpeg, orientation, upright_rgb
from indexer.media.pyav import Cursor, translated
from indexer.records import Frames, MediaInfo
from model.resize import FrameResize

Decoder = Literal["pyav", "decord"]


def probe(path: Path, decoder: Decoder = "pyav", max_pixels: int | None = None) -> MediaInfo:
    """Duration, rate, size as displayed, rotation and codec of a file's best video stream.

    The duration is measured from the stream's packets, so a truncated file counts only what is there.
    Raises: UnsupportedMedia, VideoUndecodable, VideoTooLong (a picture over max_pixels), BackendMissing.
    """
    with translated(path), closing(Cursor(path, max_pixels)) as cursor:
        if decoder == "decord":
            require_decord(cursor)
        first = cursor.current.frame
        is_turned, _, _, rotation_deg = orientation(first)
        sides = (first.width, first.height)
        width, height = sides[::-1] if is_turned else sides
        return MediaInfo(
            duration_s=cursor.seconds(max(cursor.end_pts() - cursor.base, 1)),
            fps=cursor.fps,
            width=width,
            height=height,
            rotation_deg=rotation_deg,
            codec=cursor.codec_name,
            container=cursor.container_name,
            has_audio=cursor.has_audio,
        )


def read_frames(
    path: Path,
    instants_s: Sequence[float],
    decoder: Decoder = "pyav",
    max_pixels: int | None = None,
    *,
    resize: FrameResize | None = None,
) -> Frames:
    """The frame shown at each instant (seconds from the first frame), upright sRGB; one frame is given once.

    resize: what a model does to frames first; each is resized as it is decoded, so that large pictures never stand
    side by side.
    Raises: UnsupportedMedia, VideoUndecodable (also where the frames near an instant are damaged, or a third of all
    instants fall on damage), VideoTooLong, BackendMissing; ValueError without instants, or for one that is negative or
    not finite.
    """
    if not len(instants_s) or not all(math.isfinite(t) and t >= 0 for t in instants_s):
        raise ValueError(f"instants must be finite, not negative and at least one: {list(instants_s)[:5]}")
    with translated(path), closing(Cursor(path, max_pixels)) as cursor:
        targets = sorted({cursor.base + cursor.ticks(t) for t in instants_s})
        if decoder == "decord":
            return read_with_decord(path, cursor, targets, resize)
        return _gather(cursor, targets, resize)


def thumbnail(
    path: Path, at_s: float, max_side: int = 320, decoder: Decoder = "pyav", max_pixels: int | None = None
) -> bytes:
    """A JPEG of the frame shown at at_s, its longer side at most max_side pixels. Raises: as read_frames."""
    return jpeg(read_frames(path, [max(0.0, at_s)], decoder, max_pixels).pixels[0], max_side)


def _gather(cursor: Cursor, targets: Sequence[int], resize: FrameResize | None) -> Frames:
    size: tuple[int, int] | None = None
    shape: tuple[int, ...] | None = None
    times: list[int] = []
    pixels: list[NDArray[np.uint8]] = []
    num_stale = 0
    for target in targets:
        picture, is_stale = cursor.at(target)
        num_stale += is_stale
        if num_stale >= 2 and num_stale * 3 > len(targets):
            raise VideoUndecodable(
                f"Too much of the stream is damaged, from {cursor.seconds(picture.pts - cursor.base):.1f} s on."
            )
        if not times or picture.pts > times[-1]:
            size = size or (picture.frame.width, picture.frame.height)
            upright = upright_rgb(picture.frame, size)
            shape = shape or upright.shape
            if upright.shape != shape:
                raise VideoUndecodable("The stream changes its orientation midway.")
            times.append(picture.pts)
            pixels.append(upright if resize is None else resize(upright[None])[0])
    times_s = np.array([cursor.seconds(pts - cursor.base) for pts in times], dtype=np.float64)
    return Frames(np.stack(pixels), times_s)
