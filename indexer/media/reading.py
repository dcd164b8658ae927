"""The verbs of decoding: probe a file, read the frames shown at given instants, make a thumbnail.

PyAV (pyav.py) reads by default; decord (decord.py) is selectable. Time is counted from the stream's first frame; the
frame shown at an instant is the last one whose time is not after it. A decoder can hang or crash on a hostile file, so
production calls this inside sandbox.py.

This file knows no model, no catalogue and no process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from indexer.errors import VideoUndecodable
from indexer.media.cursor import Cursor
from indexer.media.decord import read_with_decord, require_decord
from indexer.media.orientation import jpeg, orientation, upright_rgb
from indexer.media.pyav import Source, stamp, translated
from indexer.records import Frames, MediaInfo, Sampling
from model.resize import FrameResize

Decoder = Literal["pyav", "decord"]


class Reader:
    """The verbs of decoding on files one after the other; the file read last stays open for the next request.

    A request for the frames of the same, unchanged file goes on from the frame that the request before reached. A
    request that fails closes the file.
    decoder: "pyav" or "decord". max_pixels: of one picture, 8K by default. threads: of the codec; None chooses by the
    size of the picture. hardware: on a CUDA device, where there is one that knows the codec.
    """

    def __init__(
        self,
        decoder: Decoder = "pyav",
        max_pixels: int | None = None,
        threads: int | None = None,
        hardware: bool = False,
    ) -> None:
        self._decoder = decoder
        self._max_pixels = max_pixels
        self._threads = threads
        self._open_source = partial(Source, hardware=hardware)
        self._open: tuple[Path, tuple[int, int, int], Cursor] | None = None

    def probe(self, path: Path) -> MediaInfo:
        """Duration, rate, size as displayed, rotation and codec of a file's best video stream.

        The duration is measured from the stream's packets, so a truncated file counts only what is there.
        Raises: UnsupportedMedia, VideoUndecodable, VideoTooLong (a picture over max_pixels), BackendMissing.
        """
        self.release()
        with self._at(path) as cursor:
            if self._decoder == "decord":
                require_decord(cursor)
            first = cursor.current.frame
            is_turned, _, _, rotation_deg = orientation(first)
            sides = (first.width, first.height)
            width, height = sides[::-1] if is_turned else sides
            duration_s = cursor.seconds(max(cursor.end_pts() - cursor.base, 1))
            source = cursor.source  # only now: finding the end may open the file again
            return MediaInfo(
                duration_s=duration_s,
                fps=source.fps,
                width=width,
                height=height,
                rotation_deg=rotation_deg,
                codec=source.codec_name,
                container=source.container_name,
                has_audio=source.has_audio,
            )

    def read_frames(
        self,
        path: Path,
        instants_s: Sequence[float],
        *,
        resize: FrameResize | None = None,
        sampling: Sampling = "exact",
    ) -> Frames:
        """The frame shown at each instant (seconds from the first frame), upright sRGB; one frame is given once.

        sampling: "keyframes" takes the key frame nearest to each instant instead (the earlier of two), which may lie
        outside a segment but never outside the file. Where the container lists no key frames it is one at or
        before the instant; a container that can't be sought, a stream that doesn't decode cleanly and decord give
        exact frames. Times are always those of the frames given.
        resize: what a model does to frames first; each is resized as it is decoded, so that large pictures never stand
        side by side.
        Raises: UnsupportedMedia, VideoUndecodable (also where the frames near an instant are damaged, or a third of
        all instants fall on damage), VideoTooLong, BackendMissing; ValueError without instants, or for one that is
        negative or not finite.
        """
        if not len(instants_s) or not all(math.isfinite(t) and t >= 0 for t in instants_s):
            raise ValueError(f"instants must be finite, not negative and at least one: {list(instants_s)[:5]}")
        with self._at(path) as cursor:
            targets = sorted({cursor.base + cursor.ticks(t) for t in instants_s})
            if self._decoder == "decord":
                return read_with_decord(path, cursor, targets, resize)
            return _gather(cursor, targets, resize, sampling)

    def thumbnail(self, path: Path, at_s: float, max_side: int = 320) -> bytes:
        """A JPEG of the frame shown at at_s, its longer side at most max_side pixels. The file is closed.

        Raises: as read_frames.
        """
        try:
            return jpeg(self.read_frames(path, [max(0.0, at_s)]).pixels[0], max_side)
        finally:
            self.release()

    def release(self) -> None:
        """Close the file that is open, if there is one."""
        if self._open is not None:
            cursor, self._open = self._open[2], None
            cursor.close()

    @contextmanager
    def _at(self, path: Path) -> Iterator[Cursor]:
        """The cursor of a file, where the request before left it if it was the same file."""
        with translated(path):
            try:
                now = stamp(path) if path.is_file() else None  # what is no file is refused as it is opened
                if self._open is None or self._open[:2] != (path, now):
                    self.release()
                    cursor = Cursor(path, self._max_pixels, self._threads, self._open_source)
                    self._open = (path, now or (0, 0, 0), cursor)
                yield self._open[2]
            except BaseException:
                self.release()
                raise


def probe(path: Path, decoder: Decoder = "pyav", max_pixels: int | None = None) -> MediaInfo:
    """As Reader.probe, of a file that is opened and closed."""
    with closing_reader(decoder, max_pixels) as reader:
        return reader.probe(path)


def read_frames(
    path: Path,
    instants_s: Sequence[float],
    decoder: Decoder = "pyav",
    max_pixels: int | None = None,
    *,
    resize: FrameResize | None = None,
    sampling: Sampling = "exact",
) -> Frames:
    """As Reader.read_frames, of a file that is opened and closed."""
    with closing_reader(decoder, max_pixels) as reader:
        return reader.read_frames(path, instants_s, resize=resize, sampling=sampling)


def thumbnail(
    path: Path, at_s: float, max_side: int = 320, decoder: Decoder = "pyav", max_pixels: int | None = None
) -> bytes:
    """As Reader.thumbnail."""
    return Reader(decoder, max_pixels).thumbnail(path, at_s, max_side)


@contextmanager
def closing_reader(decoder: Decoder = "pyav", max_pixels: int | None = None) -> Iterator[Reader]:
    """A reader that has no file open at the end."""
    reader = Reader(decoder, max_pixels)
    try:
        yield reader
    finally:
        reader.release()


def _gather(cursor: Cursor, targets: Sequence[int], resize: FrameResize | None, sampling: Sampling) -> Frames:
    size: tuple[int, int] | None = None
    shape: tuple[int, ...] | None = None
    times: list[int] = []
    pixels: list[NDArray[np.uint8]] = []
    num_stale = 0
    cursor.expect(targets)
    read = cursor.at if sampling == "exact" else cursor.key_near
    for target in targets:
        picture, is_stale = read(target)
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
    return Frames(np.ascontiguousarray(np.stack(pixels)), times_s)
