"""Published preprocessing becomes ours, held to open_clip's own transform; what isn't supported is named."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image

from model.checkpoints.pixels import from_hugging_face, from_open_clip, to_hugging_face
from model.errors import CheckpointMismatch
from model.preprocess import CLIP_MEAN, CLIP_STD, Preprocess

# as the transformers library writes it for CLIP, in its older and its newer form
OLDER: dict[str, Any] = {
    "crop_size": 32, "do_center_crop": True, "do_normalize": True, "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
    "resample": 2, "size": 32,
}  # fmt: skip
NEWER: dict[str, Any] = OLDER | {
    "image_processor_type": "CLIPImageProcessor", "processor_class": "CLIPProcessor", "do_convert_rgb": True,
    "crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 32}, "do_rescale": True,
    "rescale_factor": 0.00392156862745098, "data_format": None, "_valid_processor_keys": ["images"],
}  # fmt: skip
EXPECTED = Preprocess(32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")
SQUARE = {"size": {"height": 32, "width": 32}, "do_center_crop": False}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear", "resize_mode": "squash"},
        {"size": [32, 32], "mode": "RGB", "resize_mode": "longest", "fill_color": 90, "interpolation": None},
        {"size": 32, "interpolation": "random"},
    ],
)
def test_preprocessing_of_open_clip_gives_its_own_pixels(
    values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    ours = from_open_clip(values, 32, Path("it"))
    merged = merge_preprocess_dict(PreprocessCfg(size=32), values)
    theirs = image_transform_v2(PreprocessCfg(**merged), is_train=False)
    frames = np.random.default_rng(1).integers(0, 256, (2, 45, 70, 3), dtype=np.uint8)
    expected = torch.stack([theirs(Image.fromarray(frame)) for frame in frames])
    torch.testing.assert_close(ours(frames), expected, atol=0, rtol=0)
    assert not caplog.records


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"mode": "L"}, "mode = 'L'"),
        ({"resize_mode": "crop"}, "resize_mode = 'crop'"),
        ({"interpolation": "nearest"}, "interpolation = 'nearest'"),
        ({"interpolation": ["bicubic"]}, "interpolation"),
        ({"fill_color": [1, 2, 3]}, "fill_color"),
        ({"mean": [0.5]}, r"mean = \[0\.5\]"),
        ({"mean": ["a", "b", "c"]}, "mean"),
        ({"std": [0.5, 0.5, 0.0]}, "std"),
    ],
)
def test_what_open_clip_asks_for_in_vain_is_named(values: dict[str, Any], told: str) -> None:
    with pytest.raises(CheckpointMismatch, match=f"its config: It asks for {told}"):
        from_open_clip(values, 32, Path("its config"))


def test_what_is_not_followed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert from_open_clip({"size": 64, "sharpen": 2}, 32, Path("it")) == Preprocess(32)
    assert from_hugging_face(OLDER | {"size": 36, "crop_pct": 0.9, "do_pad": False}, 32, Path("them")) == EXPECTED
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == [
        "it asks for sharpen, which isn't supported here",
        "it asks for frames of 64 pixels and the image tower takes 32",
        "them asks for crop_pct, which isn't supported here",
        "them resizes the shorter side to 36 and cuts out the middle 32; here it is resized to 32",
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (OLDER, EXPECTED),
        (NEWER, EXPECTED),
        ({}, Preprocess(32)),
        ({"image_processor_type": "CLIPImageProcessorFast"}, Preprocess(32)),
        ({"do_normalize": False}, Preprocess(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))),
        ({"image_mean": 0.5, "resample": "bicubic"}, Preprocess(32, (0.5, 0.5, 0.5))),
        (SQUARE, Preprocess(32, resize_mode="squash")),
        ({"size": 32, "default_to_square": True}, Preprocess(32, resize_mode="squash")),
        (
            {"image_processor_type": "ViTImageProcessor", "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "size": 32}
            | {"resample": 3},
            Preprocess(32, resize_mode="squash"),
        ),
    ],
)
def test_preprocessing_of_hugging_face_is_read(
    values: dict[str, Any], expected: Preprocess, caplog: pytest.LogCaptureFixture
) -> None:
    assert from_hugging_face(values, 32, Path("it")) == expected
    assert not caplog.records


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"do_resize": False}, "do_resize = False"),
        ({"do_rescale": False}, "do_rescale = False"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor"),
        ({"resample": 0}, "resample = 0"),
        ({"resample": None, "image_std": [0, 1, 1]}, "image_std"),
        ({"crop_size": 24}, "crop_size = 24.*takes 32 pixels"),
        ({"crop_size": {"height": 32, "width": 24}}, "crop_size"),
        ({"size": {"longest_edge": 32}}, "size = "),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "size = "),
        ({"size": "large"}, "size = 'large'"),
        ({"size": {"height": 24, "width": 24}}, "size = .*takes 32 by 32"),
        ({"do_center_crop": False}, "size = "),
        ({"image_processor_type": "ViTImageProcessor", "size": 32}, "leaves out image_mean, image_std, resample"),
    ],
)
def test_what_hugging_face_asks_for_in_vain_is_named(values: dict[str, Any], told: str) -> None:
    with pytest.raises(CheckpointMismatch, match=told):
        from_hugging_face(values, 32, Path("it"))


@pytest.mark.parametrize("preprocess", [Preprocess(32), EXPECTED, Preprocess(48, resize_mode="squash")])
def test_preprocessing_goes_to_hugging_face_and_back(preprocess: Preprocess) -> None:
    assert from_hugging_face(to_hugging_face(preprocess), preprocess.image_size, Path("it")) == preprocess
