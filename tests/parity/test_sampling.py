"""The official frame choices, exactly."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from model.sampling import Cut, clip2video_frames, clip4clip_frames
from tests.parity.golden import golden_folder

CUTS: tuple[Cut, ...] = ("head", "tail", "uniform")


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((golden_folder() / "sampling" / name).read_text())["cases"]
    assert found
    return found


def test_clip4clip_and_xclip_choose_the_official_frames() -> None:
    for case in cases("clip4clip_xclip_frames.json"):
        mine = clip4clip_frames(
            case["frame_count"],
            case["fps"],
            case["max_frames"],
            frames_per_s=case["feature_framerate"],
            cut=CUTS[case["slice_framepos"]],
            start_s=case.get("start_time"),
            end_s=case.get("end_time"),
        )
        if case.get("frame_order", 0) == 1:
            mine = mine[::-1]
        assert list(mine) == case["indices"], case
        assert min(len(mine), case["max_frames"]) == case["mask_sum"]


def test_clip2video_chooses_the_official_frames() -> None:
    for case in cases("clip2video_frames.json"):
        jitter = np.random.RandomState(case["numpy_seed"]) if case["train"] else None
        mine = clip2video_frames(
            case["num_files"], case["max_frames"], divisor=case["feature_framerate"], jitter=jitter
        )
        assert list(mine) == case["file_indices"], case
