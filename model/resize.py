"""Frames as they come from a decoder -> frames of the size that an image tower takes, still bytes.

Equal to the bit to the first half of open_clip's own inference transform: PIL's resize, then the centre cut out or
padded. It needs numpy and PIL alone, so that a decoder in a small process of its own can make what the model takes.
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
        """(n, height, width, 3) uint8 -> (n, S, S, 3) uint8. Raises: ShapeError."""
        if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape[1:]:
            raise ShapeError(f"frames are {pixels.dtype} {pixels.shape}; uint8 (n, height, width, 3) is needed")
        side = self.image_size
        if pixels.shape[1:3] == (side, side):
            return pixels.copy()
        height, width = self._resized(*pixels.shape[1:3])
        resized = np.full((len(pixels), side, side, 3), self.fill_color, dtype=np.uint8)
        for frame, out in zip(pixels, resized, strict=True):
            image = Image.fromarray(frame)
            if image.size != (width, height):
                image = image.resize((width, height), _FILTERS[self.interpolation])
            _paste_centre(np.asarray(image), out)
        return resized

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, for a process that shares nothing else."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FrameResize:
        """Read back what `as_dict` gave. Raises: TypeError for unknown names."""
        return cls(**values)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
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


def _paste_centre(image: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Write the centre of `image` into `out`, or all of it into the centre of `out`, for each axis separately.

    An odd margin is rounded to the even neighbour when cutting and down when padding, as torchvision does.
    """
    source, target = [], []
    for length, side in zip(image.shape[:2], out.shape[:2], strict=True):
        start = round((length - side) / 2.0) if length > side else 0
        margin = (side - length) // 2 if length < side else 0
        count = min(length, side)
        source.append(slice(start, start + count))
        target.append(slice(margin, margin + count))
    out[target[0], target[1]] = image[source[0], source[1]]
