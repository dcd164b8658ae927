"""Frames become the very pixels that open_clip's own transform makes of them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from model.errors import ShapeError
from model.preprocess import Preprocess

SIZES = [(48, 64), (64, 48), (33, 33), (7, 90), (32, 32), (101, 40), (32, 70)]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
def test_pixels_equal_open_clips_to_the_bit(
    resize_mode: Literal["shortest", "squash", "longest"], interpolation: Literal["bicubic", "bilinear"]
) -> None:
    ours = Preprocess(32, interpolation=interpolation, resize_mode=resize_mode, mean=(0.5, 0.4, 0.3), fill_color=9)
    theirs = image_transform_v2(
        PreprocessCfg(
            size=32, mean=ours.mean, std=ours.std, interpolation=interpolation, resize_mode=resize_mode, fill_color=9
        ),
        is_train=False,
    )
    for height, width in SIZES:
        frames = np.random.default_rng(height).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
        expected = torch.stack([theirs(Image.fromarray(frame)) for frame in frames])
        assert torch.equal(ours(frames), expected), (height, width)


def test_frames_that_are_views_give_the_same_pixels() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 40, 80, 3), dtype=np.uint8)
    prepare = Preprocess(24)
    assert torch.equal(prepare(frames[::2, :, 10:70]), prepare(np.ascontiguousarray(frames[::2, :, 10:70])))


def test_the_values_survive_json() -> None:
    prepare = Preprocess(96, mean=(0.1, 0.2, 0.3), interpolation="bilinear", resize_mode="squash")
    assert Preprocess.from_dict(prepare.as_dict()) == prepare


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 8, 8, 4), dtype=np.uint8),
        np.zeros((8, 8, 3), dtype=np.uint8),
        np.zeros((2, 8, 8, 3), dtype=np.float32),
        np.zeros((2, 0, 8, 3), dtype=np.uint8),
    ],
)
def test_what_is_no_frame_is_refused(frames: np.ndarray) -> None:
    with pytest.raises(ShapeError):
        Preprocess(8)(frames)
