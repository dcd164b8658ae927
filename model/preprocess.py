"""Frames as they come from a decoder -> the normalised pixels an image tower was trained on.

Letters: n frames, S image side. Equal to the bit to open_clip's own inference transform (PIL resize, centre crop,
/255, mean, std); a test holds the two together. It knows no model: `Preprocess` carries the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from model.errors import ShapeError
from model.types import Pixels

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Preprocess:
    """How frames become tower input; call it with the frames of one segment.

    resize_mode: "shortest" resizes the shorter side to image_size and crops the centre, "squash" ignores the aspect
    ratio, "longest" resizes the longer side and pads with fill_color. mean and std are of the 0..1 range, per channel.
    """

    image_size: int = 224
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "squash", "longest"] = "shortest"
    fill_color: int = 0

    def __call__(self, pixels: Pixels) -> Tensor:
        """(n, height, width, 3) uint8 -> (n, 3, S, S) float32, normalised. Raises: ShapeError."""
        return self.normalise(torch.from_numpy(self.resize(pixels)))

    def resize(self, pixels: Pixels) -> NDArray[np.uint8]:
        """(n, height, width, 3) uint8 -> (n, S, S, 3) uint8. Raises: ShapeError."""
        if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape[1:]:
            raise ShapeError(f"frames are {pixels.dtype} {pixels.shape}; uint8 (n, height, width, 3) is needed")
        side = self.image_size
        height, width = self._resized(*pixels.shape[1:3])
        resized = np.full((len(pixels), side, side, 3), self.fill_color, dtype=np.uint8)
        for frame, out in zip(pixels, resized, strict=True):
            image = Image.fromarray(frame)
            if image.size != (width, height):
                image = image.resize((width, height), _FILTERS[self.interpolation])
            _paste_centre(np.asarray(image), out)
        return resized

    def normalise(self, resized: Tensor) -> Tensor:
        """(n, S, S, 3) uint8 -> (n, 3, S, S) float32 on the tensor's own device."""
        scaled = resized.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        mean = torch.tensor(self.mean, device=scaled.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=scaled.device).view(3, 1, 1)
        return scaled.sub_(mean).div_(std)

    def as_dict(self) -> dict[str, Any]:
        """The plain values, for a checkpoint's config.json and for the fingerprint."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Read back what `as_dict` wrote; unknown names raise TypeError."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the resize, before crop or padding."""
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
    """Write the centre of `image` into `out`, or all of it into the centre of `out`, on each axis by itself.

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
