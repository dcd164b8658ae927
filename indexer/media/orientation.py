"""Turns a decoded frame into what a person sees: sRGB pixels, upright as the file's display matrix asks.

It takes frames as the decoder's door (pyav.py) gives them and imports no decoder itself.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.errors import VideoUndecodable


def orientation(frame: Any) -> tuple[bool, bool, bool, int]:
    """How to make a PyAV frame upright: transpose, mirror left-right, mirror top-bottom; its clockwise turn in degrees.

    The display matrix sends (p, q) to (a p + c q, b p + d q), y downwards.
    """
    for entry in frame.side_data:
        if getattr(entry.type, "name", "") == "DISPLAYMATRIX":
            a, b, _, c, d = (int(x) for x in np.frombuffer(memoryview(entry), dtype="=i4")[:5])
            degrees = round(math.degrees(math.atan2(b, a)) / 90) * 90 % 360
            if abs(a) + abs(d) >= abs(b) + abs(c):
                return False, a < 0, d < 0, degrees
            return True, c < 0, b < 0, degrees
    return False, False, False, 0


def upright_rgb(frame: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Pixels (height, width, 3) of a PyAV frame, with the matrix and range it is flagged with.

    A view of the converted picture: turned by its strides, its lines as the library pads them. size (width, height) in
    pixels before turning. Raises: VideoUndecodable for a pixel format that can't be converted.
    """
    try:
        # One thread gives the same pixels for less CPU time, and the other cores have frames of their own.
        converted = frame.reformat(format="rgb24", width=size[0], height=size[1], threads=1)
    except ValueError as error:
        raise VideoUndecodable(f"Its pixel format {frame.format.name} can't be converted.") from error
    plane = converted.planes[0]
    lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    pixels = lines[: size[1], : 3 * size[0]].reshape(size[1], size[0], 3)
    is_turned, is_mirrored, is_upended, _ = orientation(frame)
    if is_turned:
        pixels = pixels.transpose(1, 0, 2)
    if is_mirrored:
        pixels = pixels[:, ::-1]
    if is_upended:
        pixels = pixels[::-1]
    return pixels


def jpeg(pixels: NDArray[np.uint8], max_side: int) -> bytes:
    """A JPEG of (height, width, 3) sRGB pixels, its longer side at most max_side pixels; never enlarged."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((max_side, max_side))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    return out.getvalue()
