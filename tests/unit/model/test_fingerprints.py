"""Fingerprints of stored models stay what they were: data folders are bound to them.

Each expectation was computed by the first released code. A folder is written here exactly as that code wrote it, with
its names of keys and values, around tensors that follow from their names.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.checkpoints.folder import read_config
from model.checkpoints.official import file_key
from model.registry import build_network, load_model, load_network
from model.spec import build_spec
from tests.unit.model.small import small_config, write_merges

XCLIP: dict[str, Any] = {
    "kind": "xclip",
    "grains": ["video_sentence", "video_word", "frame_sentence", "frame_word"],
    "aggregation": "aosm",
    "temperature": 0.01,
    "is_temperature_learnt": False,
    "is_fine_temporal": False,
}
CLIP2VIDEO: dict[str, Any] = {
    "kind": "clip2video",
    "global_branch": "TDB",
    "difference": "sigmoid_selfA",
    "alignment": "TAB_TDB",
    "num_centres": 3,
    "global_weight": 0.5,
    "layers": 1,
    "heads": None,
    "num_positions": 16,
}
TIGHT: dict[str, Any] = {"kind": "tight", "layers": 1, "heads": 2, "num_positions": 16}

PIXELS: dict[str, Any] = {
    "image_size": 32,
    "mean": [0.5, 0.25, 0.5],
    "std": [0.25, 0.5, 0.25],
    "interpolation": "bilinear",
    "resize_mode": "squash",
    "fill_color": 0,
}

MEAN: dict[str, Any] = {"kind": "mean", "layers": 4, "heads": None}
TRANSF: dict[str, Any] = {"kind": "seqTransf", "layers": 1, "heads": 2}

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "xclip, mean": ("754e4bf0a7b55f52", MEAN, XCLIP, "served"),
    "xclip, mean with switches that it has no use for": (
        "754e4bf0a7b55f52",
        MEAN | {"layers": 2, "heads": 1},
        XCLIP,
        "served",
    ),
    "xclip, seqTransf": ("5eb5d9d6fb21faf0", TRANSF, XCLIP, "served"),
    "xclip, seqTransf of default heads": ("41d87cd664b9ca7e", TRANSF | {"heads": None}, XCLIP, "served"),
    "xclip, seqLSTM": ("01d1b03f71e33102", MEAN | {"kind": "seqLSTM"}, XCLIP, "served"),
    "xclip, TDB": ("9d40440c6cecbe49", TRANSF | {"kind": "TDB"}, XCLIP, "served"),
    "xclip, official masks": ("5eb5d9d6fb21faf0", TRANSF, XCLIP, "official"),
    "xclip, fine grains by the temporal encoder": (
        "741bb3fef4aa9250",
        TRANSF,
        XCLIP | {"is_fine_temporal": True},
        "served",
    ),
    "xclip, other switches": (
        "98361b8782bdc230",
        TRANSF,
        XCLIP | {"grains": ["frame_word"], "aggregation": "mean_max", "is_temperature_learnt": True},
        "served",
    ),
    "clip4clip, mean": ("60bf810f12b28d72", MEAN, {"kind": "clip4clip"}, "served"),
    "clip4clip, seqLSTM": ("fd0b1abf384e31f5", MEAN | {"kind": "seqLSTM"}, {"kind": "clip4clip"}, "official"),
    "clip4clip, seqTransf": ("40a9b18b5399caf0", TRANSF, {"kind": "clip4clip"}, "served"),
    "tight": ("14b2ba7a2a746dd9", MEAN, TIGHT, "served"),
    "tight of default heads": ("a6d9468067f8eb5c", MEAN, TIGHT | {"heads": None}, "official"),
    "clip2video": ("4b0fd16b3c62f681", MEAN, CLIP2VIDEO, "served"),
    "clip2video, official masks": ("4b0fd16b3c62f681", MEAN, CLIP2VIDEO, "official"),
    "clip2video without alignment": (
        "379a986177a79c05",
        MEAN,
        CLIP2VIDEO | {"alignment": "none", "global_branch": "seqTransf", "heads": 2},
        "served",
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("masks", ["trained", "served"])
def test_a_stored_folder_keeps_its_fingerprint(case: str, masks: str, tmp_path: Path) -> None:
    expected, temporal, head, trained = CASES[case]
    write_folder(tmp_path, temporal, head, trained)
    network = load_network(str(tmp_path), masks=None) if masks == "trained" else load_network(str(tmp_path))
    assert build_spec("any", network).fingerprint == expected


def test_a_folder_of_the_first_format_keeps_its_fingerprint(tmp_path: Path) -> None:
    write_folder(tmp_path, TRANSF, XCLIP, "served")
    values = json.loads((tmp_path / "config.json").read_text())
    first = {key: value for key, value in values.items() if key not in ("head", "masks")}
    (tmp_path / "config.json").write_text(json.dumps(first | {"format": "vidgrain-xclip-1"}))
    assert build_spec("any", load_network(str(tmp_path))).fingerprint == CASES["xclip, seqTransf"][0]


def test_the_bundled_model_keeps_its_fingerprint() -> None:
    assert load_model("tiny", device="cpu").spec.fingerprint == "582eb4ac4656bcef"


def write_folder(folder: Path, temporal: Mapping[str, Any], head: Mapping[str, Any], masks: str) -> None:
    """A model folder as the first release wrote it, its tensors made from their names."""
    write_merges(folder)
    values = {
        "format": "vidgrain-2",
        "model_cfg": small_config(),
        "num_words": 8,
        "num_frames": 4,
        "temporal": dict(temporal),
        "head": dict(head),
        "masks": masks,
        "preprocess": PIXELS,
    }
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    network = build_network(read_config(folder), merges=folder / "merges.txt", positions=16)
    tensors = {file_key(key): value for key, value in network.state_dict().items()}
    save_file({name: made(name, value.shape) for name, value in tensors.items()}, folder / "model.safetensors")


def made(name: str, shape: torch.Size) -> Tensor:
    """Numbers that follow from a tensor's name and shape alone."""
    count = shape.numel()
    return ((torch.arange(count) + zlib.crc32(name.encode())) % 97 / 97.0 - 0.5).float().reshape(shape)
