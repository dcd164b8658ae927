"""Frames as they come from a decoder -> the normalised pixels an image tower was trained on.

Letters: n frames, S image side. Equal to the bit to open_clip's own inference transform (PIL resize, centre crop,
/255, mean, std); a test holds the two together. Resizing is model/resize.py, which needs no torch. It knows no model:
`Preprocess` carries the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from model.resize import FrameResize, Interpolation, ResizeMode
from model.types import Pixels

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocess:
    """How frames become tower input; call it with the frames of one segment."""

    image_size: int = 224
    """S, as in FrameResize."""

    mean: tuple[float, float, float] = CLIP_MEAN
    """Per channel, in the range 0 to 1."""

    std: tuple[float, float, float] = CLIP_STD
    """Per channel, in the range 0 to 1."""

    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "shortest"
    fill_color: int = 0

    @property
    def resize(self) -> FrameResize:
        """The part before the normalisation: (n, height, width, 3) uint8 -> (n, S, S, 3) uint8."""
        return FrameResize(self.image_size, self.interpolation, self.resize_mode, self.fill_color)

    def __call__(self, pixels: Pixels) -> Tensor:
        """(n, height, width, 3) uint8 -> (n, 3, S, S) float32, normalised. Raises: ShapeError."""
        return self.normalise(torch.from_numpy(self.resize(pixels)))

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
        """Read back what `as_dict` wrote. Raises: TypeError for unknown names."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)
