"""Checkpoints on disk: our folder (config.json, model.safetensors, maybe merges.txt) and the official files of X-CLIP.

The tensors of both carry the official names: `clip.` + OpenAI's key for the towers, bare names for temporal encoder
and head. Loading is strict: a key too many, too few or of another shape is an error that names it.
This file knows names and shapes; it builds no network.
Source: state dict layout of the official X-CLIP code at revision 6b5344f.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from model.errors import CheckpointMismatch, WeightsUnavailable
from model.temporal import LstmTemporal, TemporalKind, TransformerTemporal
from model.video_text_model import XClipNetwork

FORMAT = "vidgrain-xclip-1"
CONFIG_FILE = "config.json"
TENSORS_FILE = "model.safetensors"
MERGES_FILE = "merges.txt"

MIXING_KEYS = (
    "global_mat_weight",
    "local_mat_weight",
    "word_logit_weight",
    "word_mat_weight",
    "word_mat_weight2",
    "frame_logit_weight",
    "frame_mat_weight",
    "frame_mat_weight2",
)
POSITIONS_KEY = "frame_position_embeddings.weight"

# our network's prefix -> the files' prefix; the first that fits counts
_PREFIXES = (
    ("backbone.clip.", "clip."),
    ("temporal.transformer.", "transformerClip."),
    ("temporal.lstm.", "lstm_visual."),
    ("temporal.", ""),
    ("head.", ""),
)
_IGNORED = {"clip.input_resolution", "clip.context_length", "clip.vocab_size"}


@dataclass(frozen=True)
class TemporalConfig:
    """kind as in model.temporal; layers and heads count for seqTransf only (heads None: width / 64)."""

    kind: TemporalKind = "mean"
    layers: int = 4
    heads: int | None = None


@dataclass(frozen=True)
class CheckpointConfig:
    """What config.json says: the towers (open_clip's format), W, F, the temporal encoder and the preprocessing.

    preprocess is `Preprocess.as_dict()`; empty means what the towers' configuration says.
    """

    model_cfg: dict[str, Any]
    num_words: int
    num_frames: int
    temporal: TemporalConfig = TemporalConfig()
    preprocess: dict[str, Any] = field(default_factory=dict)


def config_of(network: XClipNetwork) -> CheckpointConfig:
    """The configuration that builds a network of this shape again."""
    temporal = TemporalConfig()
    if isinstance(network.temporal, LstmTemporal):
        temporal = TemporalConfig("seqLSTM")
    elif isinstance(network.temporal, TransformerTemporal):
        stack = network.temporal.transformer
        temporal = TemporalConfig("seqTransf", layers=len(stack.resblocks), heads=stack.heads)
    backbone = network.backbone
    return CheckpointConfig(
        backbone.model_cfg, network.num_words, network.num_frames, temporal, backbone.preprocess.as_dict()
    )


def save_checkpoint(folder: Path, network: XClipNetwork, *, dtype: torch.dtype = torch.float32) -> None:
    """Write our folder; floating tensors are stored as `dtype`. An existing checkpoint there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    config, merges = config_of(network), network.backbone.merges_path
    tensors = {
        file_key(key): value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype).contiguous()
        for key, value in network.state_dict().items()
    }
    _write_whole(folder / TENSORS_FILE, save(tensors))  # the library's own writer makes it readable by its owner only
    if merges is not None and merges.resolve() != (folder / MERGES_FILE).resolve():
        _write_whole(folder / MERGES_FILE, merges.read_bytes())
    temporal = {"kind": config.temporal.kind, "layers": config.temporal.layers, "heads": config.temporal.heads}
    values = {
        "format": FORMAT,
        "model_cfg": config.model_cfg,
        "num_words": config.num_words,
        "num_frames": config.num_frames,
        "temporal": temporal,
        "preprocess": config.preprocess,
    }
    _write_whole(folder / CONFIG_FILE, (json.dumps(values, indent=2) + "\n").encode())


def _write_whole(path: Path, content: bytes) -> None:
    """The file is the new one or, if we are killed, the old one; never a part."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def read_config(folder: Path) -> CheckpointConfig:
    """Read a folder's config.json. Raises: CheckpointMismatch naming what is wrong with it."""
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointMismatch(f"{path} can't be read: {error}.") from error
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise CheckpointMismatch(f"{path} has the format {found!r}; this version reads {FORMAT!r}.")
    try:
        temporal = TemporalConfig(**values["temporal"])
        config = CheckpointConfig(
            model_cfg=dict(values["model_cfg"]),
            num_words=int(values["num_words"]),
            num_frames=int(values["num_frames"]),
            temporal=temporal,
            preprocess=dict(values.get("preprocess", {})),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointMismatch(f"{path} lacks or misstates {error}.") from error
    if temporal.kind not in get_args(TemporalKind):
        raise CheckpointMismatch(f"{path} names the temporal encoder {temporal.kind!r}, which is none of ours.")
    return config


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a pickled state dict read without running its code; float32.

    Raises: WeightsUnavailable if the file is absent, damaged, or of a kind that can't be read safely.
    """
    if not file.is_file():
        raise WeightsUnavailable(f"there are no weights at {file}.", "Check the path, or set VIDGRAIN_MODEL=tiny.")
    try:
        if file.suffix == ".safetensors":
            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsUnavailable(
            f"the weights at {file} can't be read: {str(error).splitlines()[0] if str(error) else error!r}",
            "A .safetensors file or a plain state dict is needed; a TorchScript archive isn't one.",
        ) from error
    for wrapper in ("state_dict", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsUnavailable(f"the weights at {file} aren't a state dict (names to tensors).")
    plain = {str(key).removeprefix("module."): value for key, value in state.items()}
    return {key: value.float() if value.is_floating_point() else value for key, value in plain.items()}


def file_key(key: str) -> str:
    """The official name of one of our network's tensors."""
    for ours, theirs in _PREFIXES:
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    return key


def load_state(network: nn.Module, state: Mapping[str, Tensor], source: str, *, is_head_optional: bool) -> None:
    """Load official names into our network. With is_head_optional the eight matrices may be absent, all together.

    Raises: CheckpointMismatch naming the keys and shapes that don't fit.
    """
    ours = {file_key(key): key for key in network.state_dict()}
    ignored = _IGNORED if POSITIONS_KEY in ours else _IGNORED | {POSITIONS_KEY}
    given = {key: value for key, value in state.items() if key not in ignored}
    if is_head_optional and not any(key in given for key in MIXING_KEYS):
        ours = {key: value for key, value in ours.items() if key not in MIXING_KEYS}
    shapes = {file_key(key): tuple(value.shape) for key, value in network.state_dict().items()}
    # OpenAI's temperature is a scalar, some of open_clip's have one entry
    given = {k: v.reshape(shapes[k]) if k in shapes and v.numel() == 1 else v for k, v in given.items()}
    misshapen = [
        f"{key} is {tuple(given[key].shape)} and should be {shapes[key]}"
        for key in sorted(ours.keys() & given.keys())
        if tuple(given[key].shape) != shapes[key]
    ]
    problems = [
        *_problem("missing", sorted(ours.keys() - given.keys())),
        *_problem("unknown", sorted(given.keys() - ours.keys())),
        *_problem("misshapen", misshapen),
    ]
    if problems:
        raise CheckpointMismatch(f"{source} doesn't fit: {'; '.join(problems)}.")
    network.load_state_dict({ours[key]: value for key, value in given.items()}, strict=not is_head_optional)


def config_of_state(
    state: Mapping[str, Tensor], model_cfg: dict[str, Any], *, num_words: int, num_frames: int
) -> CheckpointConfig:
    """What an official state dict says of itself; num_words and num_frames where it has no head to tell them."""
    kind = "mean"
    layers = {key.split(".")[2] for key in state if key.startswith("transformerClip.resblocks.")}
    if layers:
        kind = "seqTransf"
    elif any(key.startswith("lstm_visual.") for key in state):
        kind = "seqLSTM"
    if "word_logit_weight" in state and "frame_logit_weight" in state:
        num_words, num_frames = len(state["word_logit_weight"]), len(state["frame_logit_weight"])
    temporal = TemporalConfig(cast(TemporalKind, kind), layers=len(layers) or 4)
    return CheckpointConfig(model_cfg, num_words, num_frames, temporal)


def num_positions(state: Mapping[str, Tensor]) -> int | None:
    """How many frame positions a state dict holds; None without any."""
    positions = state.get(POSITIONS_KEY)
    return None if positions is None else int(positions.shape[0])


def _problem(what: str, items: list[str]) -> list[str]:
    if not items:
        return []
    shown = ", ".join(items[:6]) + (", ..." if len(items) > 6 else "")
    return [f"{len(items)} {what} ({shown})"]
