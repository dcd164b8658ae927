"""Read one golden case: numbers of the official implementations, with the tolerance each carries.

The folder is named by VIDGRAIN_GOLDEN (default `../shared/golden` beside the project); a test that asks for a case is
skipped where the folder is absent. This file knows the layout of the cases and nothing of our model.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

FLOOR_ATOL = 1e-4
GAP_FACTOR = 4.0
RTOL = 1e-5


def golden_folder() -> Path:
    """The folder of golden cases; skips the calling test where there is none."""
    named = os.environ.get("VIDGRAIN_GOLDEN", "../shared/golden")
    folder = (Path(__file__).parents[2] / named).resolve()
    if not folder.is_dir():
        pytest.skip(f"no golden cases at {folder}; name their folder in VIDGRAIN_GOLDEN")
    return folder


def case_names(pattern: str) -> list[str]:
    """Names such as 'xclip/feat_d16_meanP_ones' for a glob such as 'xclip/feat_*'; empty where no folder is.

    For parametrize: it runs at collection, where skipping one test isn't possible.
    """
    folder = (Path(__file__).parents[2] / os.environ.get("VIDGRAIN_GOLDEN", "../shared/golden")).resolve()
    return [p.relative_to(folder).with_suffix("").as_posix() for p in sorted(folder.glob(pattern + ".json"))]


@dataclass(frozen=True)
class GoldenCase:
    """One case: `about` is its JSON, `tensors` its own safetensors file (empty if it has none)."""

    name: str
    about: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.about.get("config", {}))

    def __getitem__(self, key: str) -> Tensor:
        """A tensor of the case's own file by its full name: 'out.sim_matrix'."""
        return self.tensors[key]

    def input(self, name: str) -> Tensor:
        """An input by its bare name ('word_features'), wherever it is stored, cast as the case says."""
        place = self.about.get("inputs", {}).get(name)
        if place is None and name == "pixels" and "pixels" in self.about:
            place = self.about["pixels"]
        return self._at(place) if place is not None else self.tensors[f"in.{name}"]

    def params(self) -> dict[str, Tensor]:
        """Every parameter under its official name, float32."""
        places = self.about.get("params")
        if places is not None:
            return {name: self._at(place).float() for name, place in places.items()}
        return {k.removeprefix("param."): v.float() for k, v in self.tensors.items() if k.startswith("param.")}

    def state(self) -> dict[str, Tensor]:
        """The state dict the case runs with (`state` of its JSON), float32, under its official names."""
        place = self.about["state"]
        return load_state(place["file"] if isinstance(place, dict) else place)

    def tolerance(self, key: str) -> float:
        """The greatest absolute difference allowed for tensor `key`."""
        gaps = self.about.get("fp64_gap", {})
        gap = gaps.get(key, gaps.get(key.split(".", 1)[-1], 0.0))
        floor = max(FLOOR_ATOL, GAP_FACTOR * float(gap))
        return floor + RTOL * float(self.tensors[key].abs().max())

    def check(self, key: str, mine: Tensor) -> None:
        """Assert that `mine` equals tensor `key` in shape and, within its tolerance, in value."""
        theirs = self.tensors[key]
        assert tuple(mine.shape) == tuple(theirs.shape), f"{self.name} {key}: {mine.shape} is not {theirs.shape}"
        gap = float((mine.detach().double().cpu() - theirs.double()).abs().max())
        allowed = self.tolerance(key)
        # `not <=` so that a NaN fails
        assert gap <= allowed, f"{self.name} {key}: off by {gap:.3g}, allowed {allowed:.3g}"

    def _at(self, place: dict[str, str]) -> Tensor:
        same = place["file"] == "<same file>"
        stored = self.tensors if same else _tensors(place["file"])
        value = stored[place["key"]]
        if "scale_key" in place:
            value = value.float() * stored[place["scale_key"]].float()
        if "cast" in place:
            value = value.to(getattr(torch, place["cast"]))
        return value


def load_case(name: str) -> GoldenCase:
    """The case `name`, such as 'xclip/feat_d16_meanP_ones'; skips the calling test where there are no cases."""
    about = json.loads((golden_folder() / f"{name}.json").read_text())
    file = f"{name}.safetensors"
    tensors = dict(_tensors(file)) if (golden_folder() / file).is_file() else {}
    return GoldenCase(name, about, tensors)


def load_state(file: str) -> dict[str, Tensor]:
    """A state dict ('e2e/clip_tiny_state.safetensors') in float32."""
    return {key: value.float() for key, value in _tensors(file).items()}


@cache
def _tensors(file: str) -> dict[str, Tensor]:
    return load_file(golden_folder() / file)


def tiny_clip_config(config: dict[str, Any]) -> dict[str, Any]:
    """The end-to-end cases' CLIP as an open_clip model configuration. Its vocabulary is too small for CLIP's merges."""
    return {
        "embed_dim": config["embed_dim"],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": config["image_resolution"],
            "layers": config["vision_layers"],
            "width": config["vision_width"],
            "patch_size": config["patch_size"],
            "head_width": config["vision_width"] // config["vision_heads"],
        },
        "text_cfg": {
            "context_length": config["context_length"],
            "vocab_size": config["vocab_size"],
            "width": config["text_width"],
            "heads": config["text_heads"],
            "layers": config["text_layers"],
        },
    }


def write_tiny_merges(folder: Path, vocab_size: int = 600) -> Path:
    """A byte-pair vocabulary of the tiny CLIP's size (any pairs do: the cases give token ids, no text)."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [f"{a} {b}" for a in letters for b in letters][: vocab_size - 512 - 2]
    path = folder / "merges.txt"
    path.write_text("\n".join(pairs) + "\n", encoding="utf-8")
    return path
