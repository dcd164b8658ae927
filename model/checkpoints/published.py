"""Weights as others publish them, found and read: one file, or a folder such as Hugging Face's, of any layout.

A folder may hold one file, the numbered parts of one, or a file for each tower; its config.json holds what shapes
don't show, its preprocessor_config.json how frames become pixels. A folder of open_clip's has all of it in
open_clip_config.json.
Nothing is built here: the outcome is an official state dict, or open_clip's file, and the towers' configuration.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from model.checkpoints.folder import CONFIG_FILE, MERGES_FILE
from model.checkpoints.hugging_face import MODEL_TYPES, TowerOptions, tower_options
from model.checkpoints.layouts import Layout, layout_of, merge_towers, to_official, tower_config
from model.checkpoints.pixels import from_hugging_face, from_open_clip
from model.checkpoints.state_file import read_state
from model.errors import CheckpointMismatch, WeightsUnavailable, reason_of
from model.preprocess import Preprocess

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
CLIP_VOCAB_SIZE = 49408
OPEN_CLIP_CONFIG = "open_clip_config.json"
PIXELS_FILE = "preprocessor_config.json"

_PROCESSOR_FILE = "processor_config.json"  # newer releases of transformers write one file for all inputs
_OPEN_CLIP_PREFIX = "open_clip"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")

# the first pattern that any file fits counts: a hub folder often holds the same weights in several forms
_OPEN_CLIP_PATTERNS = ("open_clip*.safetensors", "open_clip*.bin", "open_clip*.pth")
_PATTERNS = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin", "*.bin", "*.pt", "*.pth")


@dataclass(frozen=True)
class Published:
    """Weights read, and what lies beside them."""

    layout: Layout
    """In which they were published."""

    state: dict[str, Tensor]
    """Official names, float32."""

    model_cfg: dict[str, Any]
    """The towers in open_clip's format."""

    merges: Path | None
    """A vocabulary of its own; None for CLIP's."""

    preprocess: Preprocess | None
    """How frames become pixels, if a file beside the weights has it."""


@dataclass(frozen=True)
class OpenClipFolder:
    """Weights in open_clip's own names, the configuration beside them, and a tokenizer or vocabulary lying there."""

    weights: Path
    model_cfg: dict[str, Any]
    preprocess: Preprocess
    merges: Path | None
    tokenizer: Path | None

    @property
    def config_file(self) -> Path:
        """Where the configuration stands."""
        return self.weights.parent / OPEN_CLIP_CONFIG


def is_published(path: Path) -> bool:
    """Whether a path is a file of weights, or a folder of them that isn't one of ours."""
    if path.is_file():
        return path.suffix in WEIGHT_SUFFIXES
    return path.is_dir() and "format" not in _config(path) and bool(weight_files(path))


def weight_files(folder: Path) -> list[Path]:
    """The files that make up a folder's weights; where it has none, those of Hugging Face's one level below."""
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
        raise WeightsUnavailable("There are no weights in it.", f"Files of weights end in {_ends()}.", path=path)
    folders = list(dict.fromkeys([*(file.parent for file in files), path if path.is_dir() else path.parent]))
    try:
        state = merge_towers(*(read_state(file) for file in files))
        layout = layout_of(state)
        options: TowerOptions | dict[str, Any] = {}
        if layout == "hugging_face":
            configs = map(_config, folders)
            options = tower_options(*(config for config in configs if config))
        model_cfg = tower_config(state, **options)
        official = to_official(state)
    except CheckpointMismatch as error:
        raise CheckpointMismatch(error.message, error.hint, path=error.path or path) from error
    folder = path.parent if path.is_file() else path
    preprocess = _pixels(folders, model_cfg["vision_cfg"]["image_size"]) if layout == "hugging_face" else None
    return Published(layout, official, model_cfg, _merges(folder, model_cfg), preprocess)


def open_clip_weights(path: Path) -> Path | None:
    """The weights that go with an open_clip_config.json; None without one, or where they belong to another library's.

    path: a folder, or a file of weights in it. Raises: CheckpointMismatch if several files could be meant.
    """
    folder = path.parent if path.is_file() else path
    if not (folder / OPEN_CLIP_CONFIG).is_file() or "format" in _config(folder):
        return None
    if path.is_file():
        return path if path.name.startswith(_OPEN_CLIP_PREFIX) and path.suffix in WEIGHT_SUFFIXES else None
    for pattern in _OPEN_CLIP_PATTERNS:
        if found := sorted(folder.glob(pattern)):
            return found[0]
    if _config(folder).get("model_type") in MODEL_TYPES:  # a hub folder with only Hugging Face's half
        return None
    files = [file for file in weight_files(folder) if file.parent == folder]
    if len(files) > 1:
        raise CheckpointMismatch(
            f"It has {OPEN_CLIP_CONFIG} and {len(files)} files of weights, such as {files[0].name}.",
            f"Name the one that belongs to it {_OPEN_CLIP_PREFIX}_model{files[0].suffix}.",
            path=folder,
        )
    return files[0] if files else None


def read_open_clip(weights: Path) -> OpenClipFolder:
    """What lies beside weights that open_clip_weights found. Raises: CheckpointMismatch naming what is wrong there."""
    folder = weights.parent
    file = folder / OPEN_CLIP_CONFIG
    values = _json(file)
    model_cfg, pixels = values.get("model_cfg"), values.get("preprocess_cfg") or {}
    if not isinstance(model_cfg, dict) or not isinstance(model_cfg.get("embed_dim"), int):
        raise CheckpointMismatch("It has no model_cfg with an embed_dim.", path=file)
    vision, text = model_cfg.get("vision_cfg"), model_cfg.get("text_cfg")
    if not isinstance(vision, dict) or not isinstance(text, dict) or not isinstance(pixels, dict):
        raise CheckpointMismatch("It needs vision_cfg and text_cfg in its model_cfg, and a preprocess_cfg.", path=file)
    size = vision.get("image_size", 224)
    sides = set(size) if isinstance(size, list) else {size}
    side = sides.pop() if len(sides) == 1 else None
    if not isinstance(side, int):
        raise CheckpointMismatch(f"It asks for images of {size} pixels; only square ones are supported.", path=file)
    tokenizer = folder if any((folder / name).is_file() for name in _TOKENIZER_FILES) else None
    merges = None if text.get("hf_tokenizer_name") else _merges(folder, model_cfg)
    return OpenClipFolder(weights, model_cfg, from_open_clip(pixels, side, file), merges, tokenizer)


def _merges(folder: Path, model_cfg: Mapping[str, Any]) -> Path | None:
    """A vocabulary of the model's own; the merges in a hub folder are CLIP's, which are built in."""
    merges = folder / MERGES_FILE
    is_own = model_cfg["text_cfg"].get("vocab_size", CLIP_VOCAB_SIZE) != CLIP_VOCAB_SIZE
    return merges if is_own and merges.is_file() else None


def _pixels(folders: Iterable[Path], image_size: int) -> Preprocess | None:
    """The values of the first image processor in the folders; None without any."""
    for folder in folders:
        if values := _json(folder / PIXELS_FILE):
            return from_hugging_face(values, image_size, folder / PIXELS_FILE)
        nested = _json(folder / _PROCESSOR_FILE).get("image_processor")
        if isinstance(nested, dict):
            return from_hugging_face(nested, image_size, folder / _PROCESSOR_FILE)
    return None


def _config(folder: Path) -> Mapping[str, Any]:
    """A folder's config.json, {} without one. Raises: CheckpointMismatch if it can't be read."""
    return _json(folder / CONFIG_FILE)


def _json(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointMismatch(f"It can't be read: {reason_of(error)}.", path=file) from error
    if not isinstance(values, dict):
        raise CheckpointMismatch("It doesn't hold a configuration.", path=file)
    return values


def _ends() -> str:
    return ", ".join(WEIGHT_SUFFIXES)
