"""The door of decord, which can be chosen instead of PyAV; called by reading.py only.

What decord gets wrong is avoided: a file is read linearly from its first frame, without decord's seeking (which finds
the wrong frame in HEVC, fragmented MP4, intra refresh and edit lists) and without its times; its frames take the
container's times in order. It is refused for MPEG-TS (it hangs), AV1 (no decoder), very small pictures (it mixes up
their dimensions), and wherever it counts other frames than the container does. Reading the end of a long file decodes
all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from indexer.errors import BackendMissing, VideoUndecodable
from indexer.records import Frames
from model.resize import FrameResize

MIN_SIDE = 5
"""Least width and height: with a smaller side, decord takes that side for the number of channels."""

USE_PYAV = "Use the decoder pyav."


class Timeline(Protocol):
    """What the container reports about a stream; times in ticks."""

    base: int
    """The time of the first frame."""

    @property
    def container_name(self) -> str:
        """Short name of the container."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a frame before it is turned."""
        ...

    @property
    def codec_name(self) -> str:
        """Short name of the codec."""
        ...

    def packet_times(self) -> tuple[list[int], int]:
        """Sorted times of the frames that are shown, and how many packets there are."""
        ...

    def seconds(self, ticks: int) -> float:
        """A stretch in seconds."""
        ...


def require_decord(timeline: Timeline) -> Any:
    """The library. Raises: BackendMissing, VideoUndecodable for what it is known to fail on."""
    try:
        import decord
    except ImportError as error:
        raise BackendMissing("decord isn't installed.", "pip install vidgrain[decord]") from error
    if timeline.container_name == "mpegts" or timeline.codec_name == "av1":
        what = "MPEG-TS" if timeline.container_name == "mpegts" else "AV1"
        raise VideoUndecodable(f"decord can't read {what}.", USE_PYAV)
    width, height = timeline.size
    if min(width, height) < MIN_SIDE:
        raise VideoUndecodable(f"decord can't read pictures of {width} x {height} pixels.", USE_PYAV)
    return decord


def read_with_decord(
    path: Path, timeline: Timeline, targets: Sequence[int], resize: FrameResize | None = None
) -> Frames:
    """The frames shown at targets (ticks); decord turns them upright itself. Raises: as require_decord."""
    decord = require_decord(timeline)
    stamps, num_packets = timeline.packet_times()
    if not stamps or stamps[0] != timeline.base or any(b <= a for a, b in pairwise(stamps)):
        raise VideoUndecodable("decord can't read a stream without clear timestamps.", USE_PYAV)
    wanted = sorted({int(i) for i in np.searchsorted(stamps, targets, side="right") - 1})
    pixels = []
    try:
        reader = decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=1)
        if len(reader) != num_packets:
            raise VideoUndecodable(f"decord counts {len(reader)} frames of {num_packets}.", USE_PYAV)
        for i in range(wanted[-1] + 1):
            frame = reader.next()
            if i in wanted:
                picture = frame.asnumpy()
                pixels.append(picture if resize is None else resize(picture[None])[0])
    except (decord.DECORDError, RuntimeError, StopIteration) as error:
        raise VideoUndecodable("decord can't decode the video stream.", USE_PYAV) from error
    times_s = np.array([timeline.seconds(stamps[i] - timeline.base) for i in wanted], dtype=np.float64)
    return Frames(np.stack(pixels), times_s)
