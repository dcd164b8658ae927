"""Our folder on disk: config.json, model.safetensors and maybe merges.txt.

The tensors carry the official names (official.py); the configuration is the one that the network was built from.
It builds no network. What earlier releases wrote stays readable: their format, names and values.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from model.checked import BadValue, checked
from model.checkpoints.official import file_key
from model.errors import CheckpointMismatch, reason_of
from model.families import family_of
from model.files import write_atomic
from model.network import Network, NetworkConfig, mask_reading
from model.temporal import TemporalConfig

FORMAT = "vidgrain-2"
READABLE_FORMATS = ("vidgrain-xclip-1", FORMAT)
"""The first knew only X-CLIP; it is read as what it was."""
MOST = 100_000
"""Words, frame slots or numbers of an embedding that a configuration may name."""
CONFIG_FILE = "config.json"
TENSORS_FILE = "model.safetensors"
MERGES_FILE = "merges.txt"


def save_checkpoint(folder: Path, network: Network, *, dtype: torch.dtype = torch.float32) -> None:
    """Write our folder; floating tensors are stored as `dtype`. An existing checkpoint there is replaced."""
    config, merges = network.config, network.backbone.merges_path
    tensors = {
        file_key(key): value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype).contiguous()
        for key, value in network.state_dict().items()
    }
    write_atomic(folder / TENSORS_FILE, save(tensors))
    if merges is not None and merges.resolve() != (folder / MERGES_FILE).resolve():
        write_atomic(folder / MERGES_FILE, merges.read_bytes())
    temporal = {"kind": config.temporal.kind, "layers": config.temporal.layers, "heads": config.temporal.heads}
    values = {
        "format": FORMAT,
        "model_cfg": config.model_cfg,
        "num_words": config.num_words,
        "num_frames": config.num_frames,
        "temporal": temporal,
        "head": {"kind": config.kind, **network.head_values(config.head)},
        "masks": config.masks,
        "preprocess": config.preprocess,
    }
    write_atomic(folder / CONFIG_FILE, (json.dumps(values, indent=2) + "\n").encode())


def read_config(folder: Path) -> NetworkConfig:
    """Read a folder's config.json. Raises: CheckpointMismatch naming what is wrong with it."""
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointMismatch(f"It can't be read: {reason_of(error)}.", path=path) from error
    found = values.get("format") if isinstance(values, dict) else None
    if found not in READABLE_FORMATS:
        raise CheckpointMismatch(
            f"It has the format {found!r}; this version reads {', '.join(map(repr, READABLE_FORMATS))}.", path=path
        )
    try:
        return _config_from(values)
    except BadValue as error:
        raise CheckpointMismatch(error.message, error.hint, path=path) from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointMismatch(f"It lacks or misstates {error}.", path=path) from error


def _config_from(values: dict[str, Any]) -> NetworkConfig:
    """Raises: BadValue; KeyError, TypeError, ValueError, OverflowError for what isn't there or of another type."""
    model_cfg = dict(values["model_cfg"])
    sizes = {
        "num_words": int(values["num_words"]),
        "num_frames": int(values["num_frames"]),
        "embed_dim": model_cfg["embed_dim"],
    }
    for name, size in sizes.items():
        if type(size) is not int:
            raise BadValue(f"{name} is {size!r}; a whole number is needed.")
        if not 1 <= size <= MOST:
            raise BadValue(f"{name} is {size}; 1 to {MOST} are possible.")
    head = dict(values.get("head", {"kind": "xclip"}))
    family = family_of(head.pop("kind"))
    return NetworkConfig(
        kind=family.kind,
        num_words=sizes["num_words"],
        num_frames=sizes["num_frames"],
        temporal=checked(TemporalConfig, _without_nulls(values["temporal"]), "temporal"),
        head=family.read_switches(_without_nulls(head), "head", sizes["embed_dim"]),
        masks=mask_reading(values.get("masks", "masked")),
        model_cfg=model_cfg,
        preprocess=dict(values.get("preprocess", {})),
    )


def _without_nulls(values: dict[str, Any]) -> dict[str, Any]:
    """A switch that is null has its default."""
    return {name: value for name, value in dict(values).items() if value is not None}
