"""A model's name -> the model, assembled: here backbone, temporal encoder, head and weights come together.

Names: "tiny" (bundled), a folder with config.json and model.safetensors, "ARCH/TAG" (weights that open_clip publishes),
"ARCH/path/to/weights" (a CLIP, or an official X-CLIP, CLIP4Clip or CLIP2Video state dict), or just the path of such
weights, of OpenAI's TorchScript archive, or of a hub folder of open_clip's or Hugging Face's, where they show their
architecture. It reads no environment variable.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.backbone import OFFLINE_HINT, Backbone, architectures, build_backbone, weight_tags
from model.checkpoints.folder import CONFIG_FILE, MERGES_FILE, TENSORS_FILE, read_config
from model.checkpoints.layouts import Layout, layout_of, to_official
from model.checkpoints.names import TOWERS_PREFIX, passed_over
from model.checkpoints.official import config_of_state, load_state, num_positions
from model.checkpoints.published import WEIGHT_SUFFIXES, is_published, open_clip_weights, read_open_clip, read_published
from model.checkpoints.state_file import read_state
from model.checkpoints.torchscript import is_torchscript
from model.errors import CheckpointMismatch, DeviceUnavailable, UnknownModel, WeightsUnavailable
from model.families import ZERO_SHOT, family_of
from model.network import MaskReading, Network, NetworkConfig
from model.picture_tower import FramePrecision, PictureTower
from model.precision import in_precision
from model.preprocess import Preprocess
from model.query_text import QueryPrecision
from model.served_model import ServedModel
from model.spec import build_spec
from model.types import public_name
from model.unset_weights import unset_weights

log = logging.getLogger(__name__)

TINY_FOLDER = Path(__file__).parent / "tiny"
DEFAULT_NUM_WORDS = 32
DEFAULT_NUM_FRAMES = 12
NAME_HINT = (
    "A name is 'tiny', a folder with config.json and model.safetensors, ARCH/TAG such as "
    "ViT-B-32-quickgelu/openai, ARCH/path/to/weights, or the path of weights that show their architecture: an official "
    "state dict, OpenAI's ViT-B-32.pt, a folder with open_clip_config.json, or one of Hugging Face's."
)


def load_model(
    name: str,
    *,
    device: str = "auto",
    num_frames: int | None = None,
    masks: MaskReading | None = "masked",
    query_precision: QueryPrecision = "fp32",
    precision: FramePrecision = "fp32",
) -> ServedModel:
    """Load a model by its name, ready to encode.

    name: "tiny"; one of our folders; ARCH/TAG or ARCH/path/to/weights; or weights that show their architecture: an
    official state dict, CLIP as OpenAI released it (ViT-B-32.pt), a folder with open_clip_config.json, one of Hugging
    Face's.
    device: "auto" (the GPU where there is one), "cpu", "cuda" or "cuda:N". num_frames: F of models whose weights don't
    settle it (default 12). masks: how padding is read ("reference": let in, as the papers' code does); None: as
    the weights were trained, which for a plain CLIP means masked. query_precision: what sentences are encoded in;
    "auto" for bfloat16 on CPUs where that is faster and as good. precision: what frames are encoded in, which is part
    of the fingerprint; "auto" for bfloat16 where the device has it and the tower keeps its direction.
    Raises: UnknownModel, WeightsUnavailable, TokenizerUnavailable, CheckpointMismatch, DeviceUnavailable.
    """
    chosen = find_device(device)
    network = load_network(name, num_frames=num_frames, masks=masks)
    spec = build_spec(name, network)
    pictures = PictureTower(network.to(chosen).eval(), chosen, precision)
    return ServedModel(network, in_precision(spec, pictures.precision), chosen, query_precision, pictures)


def load_network(name: str, *, num_frames: int | None = None, masks: MaskReading | None = "masked") -> Network:
    """The network of a name, on the CPU: what training starts from. Raises as load_model, except for the device."""
    if num_frames is not None and num_frames < 1:
        raise UnknownModel(f"{num_frames} frame slots were asked for; at least 1 is needed.")
    refuse_overlong(name)
    folder = TINY_FOLDER if name == "tiny" else Path(name)
    if name and (weights := open_clip_weights(folder)):
        return _load_open_clip(weights, num_frames, masks)
    if name and is_published(folder):
        return _load_published(folder, num_frames, masks)
    if (folder / CONFIG_FILE).is_file():
        return _load_folder(folder, num_frames, masks)
    if name == "tiny":
        raise WeightsUnavailable("The bundled model isn't there.", "Install the package again.", path=folder)
    architecture, _, tag = name.partition("/")
    if architecture in architectures() and tag:
        return _load_architecture(architecture, tag, num_frames, masks)
    if folder.suffix in WEIGHT_SUFFIXES:
        raise WeightsUnavailable("There is no such file.", OFFLINE_HINT, path=folder)
    if folder.is_dir():
        raise UnknownModel(f"The folder has no {CONFIG_FILE}.", NAME_HINT, path=folder)
    raise unknown_model(name)


def unknown_model(name: str) -> UnknownModel:
    """The error for a name that means nothing here; the path in it, if there is one, is the error's subject."""
    architecture, _, weights = name.partition("/")
    if weights.startswith("/") and architecture:
        return UnknownModel(f"There is no architecture {architecture!r}.", NAME_HINT, path=Path(weights))
    if Path(name).is_absolute():
        return UnknownModel("There is no such model.", NAME_HINT, path=Path(name))
    return UnknownModel(f"There is no model {name!r}.", NAME_HINT)


def refuse_overlong(name: str) -> None:
    """Raises: UnknownModel for a name that no file can have."""
    parts = [os.fsencode(part) for part in name.split("/")]
    if max(len(part) for part in parts) > 255 or sum(len(part) + 1 for part in parts) > 4000:
        raise UnknownModel(f"{public_name(name)[:60]!r}... is too long for a model's name.", NAME_HINT)


def build_network(config: NetworkConfig, *, merges: Path | None = None, positions: int | None = None) -> Network:
    """A network of random towers with identity mixing. positions: rows of the temporal encoder's position table.

    Raises: UnknownModel, TokenizerUnavailable.
    """
    preprocess = Preprocess.from_dict(config.preprocess) if config.preprocess else None
    return _assemble(build_backbone(config.model_cfg, merges=merges, preprocess=preprocess), config, positions)


def find_device(name: str) -> torch.device:
    """The torch device of a settings value. Raises: DeviceUnavailable."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceUnavailable(f"{name!r} isn't a device.", "Use auto, cpu, cuda or cuda:N.") from error
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    is_there = device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < count)
    if not is_there:
        raise DeviceUnavailable(f"The device {name!r} isn't on this machine; it has {count} GPUs.", "Use auto or cpu.")
    return device


def _load_folder(folder: Path, num_frames: int | None, masks: MaskReading | None) -> Network:
    config = _read_as(read_config(folder), masks)
    _check_frames(folder, config.num_frames, num_frames)
    state = read_state(folder / TENSORS_FILE)
    merges = folder / MERGES_FILE
    try:
        with unset_weights():
            network = build_network(config, merges=merges if merges.is_file() else None, positions=num_positions(state))
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError) as error:
        raise CheckpointMismatch(
            f"It describes a network that can't be built: {type(error).__name__}: {error}.", path=folder / CONFIG_FILE
        ) from error
    load_state(network, state, folder / TENSORS_FILE, is_head_optional=False)
    return network


def _load_architecture(architecture: str, weights: str, num_frames: int | None, masks: MaskReading | None) -> Network:
    if weights in weight_tags(architecture):
        return _zero_shot(_filled_backbone(architecture, weights=weights), num_frames, masks)
    file = Path(weights)
    if not file.is_file():
        if file.suffix in WEIGHT_SUFFIXES or "/" in weights:
            raise WeightsUnavailable("There is no such file.", OFFLINE_HINT, path=file)
        tags = ", ".join(weight_tags(architecture)) or "none"
        raise UnknownModel(f"{architecture} has no published weights {weights!r}.", f"It has: {tags}.")
    state = read_state(file)
    layout = _layout(state)
    if layout == "open_clip" and not is_torchscript(file):
        return _zero_shot(_filled_backbone(architecture, weights=file), num_frames, masks)
    backbone = _filled_backbone(architecture)
    if layout == "open_clip":  # an archive gives only its tensors, so open_clip can't load it
        network = _zero_shot(backbone, num_frames, masks)
        skipped = passed_over(state)
        towers = {TOWERS_PREFIX + name: value for name, value in state.items() if name not in skipped}
        load_state(network, towers, file, is_head_optional=True)
        return network
    if layout != "hugging_face" and not backbone.model_cfg.get("quick_gelu", False):
        log.warning("%s weights expect QuickGELU, and %s has none: use %s-quickgelu", layout, weights, architecture)
    official = state if layout == "official" else to_official(state)
    return _load_official(backbone, official, layout, file, num_frames, masks)


def _load_published(path: Path, num_frames: int | None, masks: MaskReading | None) -> Network:
    found = read_published(path)
    backbone = _filled_backbone(found.model_cfg, merges=found.merges, preprocess=found.preprocess)
    return _load_official(backbone, found.state, found.layout, path, num_frames, masks)


def _load_open_clip(weights: Path, num_frames: int | None, masks: MaskReading | None) -> Network:
    found = read_open_clip(weights)
    try:
        backbone = _filled_backbone(
            found.model_cfg,
            weights=found.weights,
            merges=found.merges,
            preprocess=found.preprocess,
            tokenizer_folder=found.tokenizer,
        )
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointMismatch(
            f"It describes towers that can't be built: {type(error).__name__}: {error}.", path=found.config_file
        ) from error
    return _zero_shot(backbone, num_frames, masks)


def _filled_backbone(architecture: str | Mapping[str, Any], **given: Any) -> Backbone:
    """A backbone as build_backbone makes it, for weights from a file: until they are loaded, it holds any numbers."""
    with unset_weights():
        return build_backbone(architecture, **given)


def _load_official(
    backbone: Backbone,
    state: Mapping[str, Tensor],
    layout: Layout,
    path: Path,
    num_frames: int | None,
    masks: MaskReading | None,
) -> Network:
    """Towers and whatever head an official state dict has. Bare CLIP weights serve zero-shot; the papers' own without
    a head, and Hugging Face's, which a CLIP4Clip was released in, are a CLIP4Clip that pools by the mean."""
    if layout in ("openai", "open_clip"):
        network = _zero_shot(backbone, num_frames, masks)
    else:
        words = min(DEFAULT_NUM_WORDS, backbone.context_length)
        frames = num_frames or DEFAULT_NUM_FRAMES
        config = config_of_state(state, backbone.model_cfg, num_words=words, num_frames=frames)
        _check_frames(path, config.num_frames, num_frames)
        network = _assemble(backbone, _read_as(config, masks), num_positions(state))
    load_state(network, state, path, is_head_optional=True)
    return network


def _layout(state: Mapping[str, Tensor]) -> Layout:
    """The layout of weights whose architecture is named: towers that aren't OpenAI's have names of their own."""
    try:
        return layout_of(state)
    except CheckpointMismatch:
        return "official" if any(key.startswith("clip.") for key in state) else "open_clip"


def _zero_shot(backbone: Backbone, num_frames: int | None, masks: MaskReading | None) -> Network:
    """Towers alone: mean pooling over time and identity mixing."""
    words = min(DEFAULT_NUM_WORDS, backbone.context_length)
    config = NetworkConfig(ZERO_SHOT.kind, words, num_frames or DEFAULT_NUM_FRAMES)
    return _assemble(backbone, _read_as(config, masks), None)


def _assemble(backbone: Backbone, config: NetworkConfig, positions: int | None) -> Network:
    """Backbone and head joined, weights still random."""
    return family_of(config.kind)(backbone, config, positions)


def _read_as(config: NetworkConfig, masks: MaskReading | None) -> NetworkConfig:
    return config if masks is None else replace(config, masks=masks)


def _check_frames(path: Path, fixed: int, asked: int | None) -> None:
    if asked is not None and asked != fixed:
        raise CheckpointMismatch(
            f"It has {fixed} frame slots and {asked} were asked for.",
            "Leave VIDGRAIN_NUM_FRAMES empty for it.",
            path=path,
        )
