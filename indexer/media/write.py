"""Write pictures as a video file: the demo's clips, and queries cut out of a video.

It knows arrays and a path; files are read by reading.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from indexer.errors import BackendMissing

CODECS = ("libx264", "mpeg4")
"""Encoders in order of preference; every build of FFmpeg has the second."""
QUALITY = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qscale": "4"}}


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float) -> None:
    """Encode frames (height, width, 3) sRGB uint8, shown fps to the second; the suffix names the container.

    An odd last row or column is cut off: the usual 4:2:0 pictures have even sides.
    Raises: ValueError for no frames, BackendMissing without an encoder, OSError where the file can't be written.
    """
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise ValueError("there are no frames to write")
    codec = next((name for name in CODECS if name in av.codecs_available), None)
    if codec is None:
        raise BackendMissing("this build of PyAV has no video encoder.", "Install the av package from its wheel.")
    height, width = (side - side % 2 for side in first.shape[:2])
    with av.open(str(path), mode="w") as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001)))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = dict(QUALITY[codec])
        for picture in chain([first], remaining):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
