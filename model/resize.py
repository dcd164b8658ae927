"""Frames as they come from a decoder -> frames of the size that an image tower takes, still bytes.

Equal to the bit to the first half of open_clip's own inference transform: PIL's resize, then the centre cut out or
padded. The compiled resize (resampling/native.py) does it where there is one, PIL itself elsewhere. It needs numpy and
PIL alone, so that a decoder in a small process of its own can make what the model takes.
Letters: n frames, S image side. It knows no model, no torch and no video.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.errors import ShapeError
from model.resampling import native
from model.resampling.filters import MAX_SIDE
from model.resampling.native import NativeResize, Side

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "squash", "longest"]

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True, slots=True)
class FrameResize:
    """How the frames of one segment reach the tower's size; frames of that size pass unchanged, bit for bit."""

    image_size: int = 224
    """S, the side of the square in pixels."""

    interpolation: Interpolation = "bicubic"
    """PIL's filter."""

    resize_mode: ResizeMode = "shortest"
    """"shortest" resizes the shorter side to S and cuts out the centre, "squash" ignores the aspect ratio, "longest"
    resizes the longer side to S and pads."""

    fill_color: int = 0
    """The value of padding, 0 to 255, in all three channels."""

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, height, width, 3) uint8 -> (n, S, S, 3) uint8, from any view of the frames. Raises: ShapeError."""
        return self.resized(pixels, native.load())

    def resized(self, pixels: NDArray[np.uint8], compiled: NativeResize | None) -> NDArray[np.uint8]:
        """The same by the compiled resize that is given, or by PIL alone. Raises: ShapeError."""
        if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape[1:]:
            raise ShapeError(f"frames are {pixels.dtype} {pixels.shape}; uint8 (n, height, width, 3) is needed")
        if max(pixels.shape[1:3]) > MAX_SIDE:
            raise ShapeError(f"frames are {pixels.shape[2]} x {pixels.shape[1]}; sides up to {MAX_SIDE} are resized")
        side = self.image_size
        if pixels.shape[1:3] == (side, side):
            return pixels.copy()
        size = self._size(*pixels.shape[1:3])
        height, width = (Side(full, *_centre(full, side)) for full in size)
        resized = np.full((len(pixels), side, side, 3), self.fill_color, dtype=np.uint8)
        top, left = (max(0, (side - full) // 2) for full in size)
        for frame, whole in zip(pixels, resized, strict=True):
            out = whole[top : top + height.count, left : left + width.count]
            if compiled is None or not compiled(frame, out, height, width, self.interpolation):
                _resize_by_pil(frame, out, height, width, self.interpolation)
        return resized

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, for a process that shares nothing else."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FrameResize:
        """Read back what `as_dict` gave. Raises: TypeError for unknown names."""
        return cls(**values)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the resize, before cutting or padding."""
        side = self.image_size
        if self.resize_mode == "squash":
            return side, side
        if self.resize_mode == "longest":
            ratio = max(height / side, width / side)
            return max(1, round(height / ratio)), max(1, round(width / ratio))
        if width <= height:
            return int(side * height / width), side
        return side, int(side * width / height)


def _centre(length: int, side: int) -> tuple[int, int]:
    """The first pixel of the centre that is kept, and how many; an odd rest goes where torchvision leaves it.

    It is rounded to the even neighbour when cutting; padding rounds down.
    """
    return round((length - side) / 2.0) if length > side else 0, min(length, side)


def _resize_by_pil(
    frame: NDArray[np.uint8], out: NDArray[np.uint8], height: Side, width: Side, interpolation: Interpolation
) -> None:
    image = Image.fromarray(frame)
    if image.size != (width.full, height.full):
        image = image.resize((width.full, height.full), _FILTERS[interpolation])
    whole = np.asarray(image)
    out[:] = whole[height.first : height.first + height.count, width.first : width.first + width.count]
