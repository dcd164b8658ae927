"""Weights as others publish them, found and read: one file, or a folder such as Hugging Face's, of any layout.

A folder may hold one file, the numbered parts of one, or a file for each tower; its config.json says what shapes
can't. Nothing is built here: the outcome is an official state dict and the towers' configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from model.checkpoint import CONFIG_FILE, MERGES_FILE, read_state
from model.errors import CheckpointMismatch, WeightsUnavailable
from model.layouts import Layout, layout_of, merge_towers, to_official, tower_config
from model.layouts_hf import TowerOptions, tower_options

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
CLIP_VOCAB_SIZE = 49408

# the first pattern that any file fits counts: a hub folder often holds the same weights in several forms
_PATTERNS = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin", "*.bin", "*.pt", "*.pth")


@dataclass(frozen=True)
class Published:
    """state: official names, float32; model_cfg: open_clip's; merges: a vocabulary of its own lying beside."""

    layout: Layout
    state: dict[str, Tensor]
    model_cfg: dict[str, Any]
    merges: Path | None


def is_published(path: Path) -> bool:
    """Whether a path is a file of weights, or a folder of them that isn't one of ours."""
    if path.is_file():
        return path.suffix in WEIGHT_SUFFIXES
    return path.is_dir() and "format" not in _config(path) and bool(weight_files(path))


def weight_files(folder: Path) -> list[Path]:
    """The files that make up a folder's weights; of a folder without any, those of Hugging Face's one level below."""
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and "model_type" in _config(path)]
    for places in ([folder], below):
        for pattern in _PATTERNS:
            if found := [file for place in places for file in sorted(place.glob(pattern)) if file.is_file()]:
                return found
    return []


def read_published(path: Path) -> Published:
    """Read a file or a folder. Raises: WeightsUnavailable, CheckpointMismatch."""
    files = [path] if path.is_file() else weight_files(path)
    if not files:
        raise WeightsUnavailable(f"there are no weights in {path}.", f"Files of weights end in {_ends()}.")
    try:
        state = merge_towers(*(read_state(file) for file in files))
        layout = layout_of(state)
        options: TowerOptions | dict[str, Any] = {}
        if layout == "hugging_face":
            configs = (_config(folder) for folder in dict.fromkeys([*(file.parent for file in files), path]))
            options = tower_options(*(config for config in configs if config))
        model_cfg = tower_config(state, **options)
        official = to_official(state)
    except CheckpointMismatch as error:
        raise CheckpointMismatch(f"{path}: {error.message}", error.hint) from error
    merges = (path.parent if path.is_file() else path) / MERGES_FILE
    # a hub folder's merges are CLIP's, which are built in
    is_own = model_cfg["text_cfg"]["vocab_size"] != CLIP_VOCAB_SIZE and merges.is_file()
    return Published(layout, official, model_cfg, merges if is_own else None)


def _config(folder: Path) -> Mapping[str, Any]:
    """A folder's config.json, {} without one. Raises: CheckpointMismatch if it can't be read."""
    file = folder / CONFIG_FILE
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointMismatch(f"{file} can't be read: {error}.") from error
    if not isinstance(values, dict):
        raise CheckpointMismatch(f"{file} holds no configuration.")
    return values


def _ends() -> str:
    return ", ".join(WEIGHT_SUFFIXES)
