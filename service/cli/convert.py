"""`vidgrain convert`: any model the registry loads -> our folder, or a file of another layout.

The target is complete or absent: it is written under another name and renamed at the end. Nothing that exists is
overwritten. The command line is in service/cli/models.py, what a layout can hold in model/checkpoints/export.py.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import save
from torch import Tensor

from model.checkpoints.export import export_state, plain_config, without_head
from model.checkpoints.folder import CONFIG_FILE, MERGES_FILE, TENSORS_FILE, save_checkpoint
from model.checkpoints.hugging_face import hf_config
from model.checkpoints.layouts import Layout
from model.checkpoints.pixels import to_hugging_face
from model.checkpoints.published import PIXELS_FILE
from model.errors import CheckpointMismatch
from model.network import Network
from model.registry import DEFAULT_NUM_FRAMES, DEFAULT_NUM_WORDS, load_network
from service.settings import InvalidSettings

Target = Literal["vidgrain", "official", "openai", "open_clip", "hugging_face"]
TARGETS: tuple[Target, ...] = get_args(Target)
Dtype = Literal["fp16", "fp32"]
DTYPES: dict[Dtype, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}
SAFE = ".safetensors"
PICKLED = (".pt", ".pth", ".bin")


@dataclass(frozen=True)
class Conversion:
    """What was written, and what the layout could not say for itself."""

    source: str
    target: str
    layout: Target
    kind: str
    num_tensors: int
    size_bytes: int
    notes: tuple[str, ...]


def convert(
    source: str,
    target: Path,
    *,
    to: Target | None = None,
    architecture: str | None = None,
    dtype: Dtype = "fp32",
    is_towers_only: bool = False,
) -> Conversion:
    """Load `source`, write `target`. to: None for "official" where the target is a file, else "vidgrain".

    Raises: InvalidSettings for a target that can't be, and what load_network and export_state raise.
    """
    is_file = target.suffix in (SAFE, *PICKLED)
    layout: Target = to or ("official" if is_file else "vidgrain")
    _check_target(target, layout, is_file)
    network = load_network(f"{architecture}/{source}" if architecture else source, masks=None)
    if is_towers_only:
        network = without_head(network)
    place: Path | None = None
    try:
        place = Path(tempfile.mkdtemp(prefix=f".{target.name[:80]}-", dir=target.parent))
        partial = place / target.name
        if layout == "vidgrain":
            _check_range(network.state_dict(), dtype)
            save_checkpoint(partial, network, dtype=DTYPES[dtype])
            num_tensors = len(network.state_dict())
        else:
            num_tensors = _write_layout(partial, network, layout, target.suffix if is_file else "", dtype)
        partial.rename(target)
    except OSError as error:
        raise InvalidSettings(f"{target} can't be written: {error.strerror or error}.", "Name another.") from error
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
    return Conversion(
        source=source,
        target=str(target),
        layout=layout,
        kind=network.kind,
        num_tensors=num_tensors,
        size_bytes=sum(f.stat().st_size for f in ([target] if is_file else target.iterdir())),
        notes=tuple(_notes(network, layout, is_file)),
    )


def _check_target(target: Path, layout: Target, is_file: bool) -> None:
    if target.exists():
        raise InvalidSettings(f"{target} is already there.", "Name another target; nothing is overwritten.")
    if not target.parent.is_dir():
        raise InvalidSettings(f"the folder {target.parent} isn't there.", "Make it, or name another target.")
    if layout == "vidgrain" and is_file:
        raise InvalidSettings(f"our own layout is a folder, and {target} is a file's name.", "Leave the ending away.")
    if layout not in ("vidgrain", "hugging_face") and not is_file:
        raise InvalidSettings(f"the layout {layout!r} is one file.", f"End the target in {SAFE}.")
    if target.suffix in PICKLED and layout != "official":
        raise InvalidSettings(
            f"{target} would be a pickled file, which is written for the papers' own code only (--to official).",
            f"End the target in {SAFE}.",
        )


def _write_layout(partial: Path, network: Network, layout: Layout, suffix: str, dtype: Dtype) -> int:
    """Write one file, or without a suffix a folder as Hugging Face's library reads it; how many tensors."""
    state = export_state(network, layout, has_config=not suffix)
    _check_range(state, dtype)
    state = {
        name: value.to(DTYPES[dtype] if value.is_floating_point() else value.dtype).contiguous()
        for name, value in state.items()
    }
    if suffix in PICKLED:
        try:
            torch.save({name: value.clone() for name, value in state.items()}, partial)
        except RuntimeError as error:  # what torch's writer says of a full disk
            raise OSError(str(error).splitlines()[0]) from error
        return len(state)
    content = save(state, metadata={"format": "pt"})  # without it the transformers library refuses the file
    if suffix:
        partial.write_bytes(content)
        return len(state)
    partial.mkdir()
    (partial / TENSORS_FILE).write_bytes(content)
    config = hf_config(plain_config(network.backbone.model_cfg))
    pixels = to_hugging_face(network.backbone.preprocess)
    for name, values in ((CONFIG_FILE, config), (PIXELS_FILE, pixels)):
        (partial / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    if network.backbone.merges_path is not None:
        (partial / MERGES_FILE).write_bytes(network.backbone.merges_path.read_bytes())
    return len(state)


def _check_range(state: dict[str, Tensor], dtype: Dtype) -> None:
    if dtype == "fp32":
        return
    greatest = torch.finfo(torch.float16).max
    over = [name for name, value in state.items() if value.is_floating_point() and bool((value.abs() > greatest).any())]
    if over:
        raise CheckpointMismatch(f"fp16 ends at {greatest:g}, and {over[0]} goes beyond it.", "Use --dtype fp32.")


def _notes(network: Network, layout: Target, is_file: bool) -> list[str]:
    if layout == "vidgrain":
        return []
    notes = []
    is_unusual = (network.num_words, network.num_frames) != (DEFAULT_NUM_WORDS, DEFAULT_NUM_FRAMES)
    if is_unusual and (layout != "official" or not network.has_fixed_sizes):
        notes.append(f"this layout doesn't hold W = {network.num_words} and F = {network.num_frames}")
    if layout == "official" and network.masks == "masked":
        notes.append(
            "trained with padding masked out; this layout can't say so: the papers' code, and Vidgrain from this file, "
            "let padding in and score differently"
        )
    if layout == "open_clip":
        notes.append(
            "this layout doesn't name its architecture: load it as ARCH/path/to/weights if open_clip has the shape"
        )
    if is_file and network.backbone.merges_path is not None:
        notes.append(f"this layout doesn't hold the vocabulary: put {network.backbone.merges_path} beside the file")
    return notes
