"""Frames are resized as open_clip's transform does it (test_preprocess.py), once, and without torch."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from model.registry import load_model
from model.resize import FrameResize, ResizeMode

SIZES = [(48, 64), (64, 48), (33, 33), (7, 90), (32, 32), (101, 40), (32, 70), (1, 2), (31, 32)]
each_mode = pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])


def noise(height: int, width: int, num: int = 2) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (num, height, width, 3), dtype=np.uint8)


@each_mode
def test_resizing_twice_is_resizing_once(mode: ResizeMode) -> None:
    for side in (32, 7, 1):
        resize = FrameResize(side, "bilinear", mode, fill_color=9)
        for height, width in SIZES:
            once = resize(noise(height, width))
            assert once.shape == (2, side, side, 3)
            assert np.array_equal(resize(once), once), (side, height, width)


@each_mode
def test_frames_of_the_right_size_pass_unchanged(mode: ResizeMode) -> None:
    frames = noise(32, 32)
    frames.setflags(write=False)
    resized = FrameResize(32, resize_mode=mode, fill_color=9)(frames)
    assert np.array_equal(resized, frames)
    resized[:] = 0  # a copy: what was given stays


def test_the_values_survive_json_and_pickle() -> None:
    resize = FrameResize(96, "bilinear", "longest", 7)
    assert FrameResize.from_dict(json.loads(json.dumps(resize.as_dict()))) == resize
    assert pickle.loads(pickle.dumps(resize)) == resize
    with pytest.raises(TypeError, match="mean"):
        FrameResize.from_dict({"mean": 0.5})


def test_a_model_gives_the_same_features_for_frames_resized_before() -> None:
    model = load_model("tiny", device="cpu")
    segments = [noise(90, 120, 3), noise(64, 64, 8), noise(40, 30, 1)]
    plain = model.encode_video(segments)
    resized = model.encode_video([model.resize(frames) for frames in segments])
    assert model.resize.image_size == model.spec.image_size
    assert torch.equal(plain.pooled, resized.pooled) and torch.equal(plain.frames, resized.frames)


def test_a_decoder_can_resize_without_torch() -> None:
    code = "import sys, model.resize; print([name for name in ('torch', 'open_clip', 'av') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
