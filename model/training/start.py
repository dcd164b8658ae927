"""The network a training begins with: towers of the start, and its head or a new one.

It loads by model.registry and knows no data and no optimiser.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from model.checkpoints.folder import CheckpointConfig, HeadConfig, TemporalConfig, TightConfig, config_of
from model.errors import InvalidTraining
from model.evaluation.fit import most_frames
from model.heads.clip2video import Clip2VideoConfig
from model.heads.multi_grained import GrainOptions
from model.networks import Network
from model.registry import build_network, load_network
from model.temporal import DifferenceTemporal, TransformerTemporal
from model.training.checked import checked
from model.training.config import ModelPart
from model.types import GRAINS, HeadKind

DEFAULT_LAYERS = 4
TRANSFORMERS = ("seqTransf", "TDB")
"""Temporal encoders with layers, heads and positions."""


def start_network(part: ModelPart, num_words: int | None, num_frames: int | None, seed: int) -> tuple[Network, str]:
    """The network, on the CPU, and a sentence on what it starts from. None: W and F of the start.

    What starts at random follows from the seed. Raises: InvalidTraining, ShapeError where a head can't start from the
    text tower, and what load_network raises.
    """
    loaded = load_network(part.start, masks=part.masks)
    before = config_of(loaded)
    wanted = _wanted(part, before, num_words, num_frames, loaded.backbone.context_length)
    if _fits(loaded, before, wanted) and not part.is_random:
        loaded.num_words, loaded.num_frames = wanted.num_words, wanted.num_frames
        return loaded, f"towers and {loaded.kind} head of {part.start}"
    torch.manual_seed(seed)
    backbone = loaded.backbone
    network = build_network(wanted, merges=backbone.merges_path, positions=backbone.context_length)
    if not part.is_random:
        network.backbone = backbone
    if _starts_from_text_tower(network):
        network.start_from_clip()
    towers = f"random towers of the shape of {part.start}" if part.is_random else f"towers of {part.start}"
    return network, f"{towers}, a new {network.kind} head"


def _fits(loaded: Network, before: CheckpointConfig, wanted: CheckpointConfig) -> bool:
    """Whether the start's head is the one that is wanted. X-CLIP's matrices fix W and F, other heads F by positions."""
    if (before.head_values(), before.temporal) != (wanted.head_values(), wanted.temporal):
        return False
    if before.kind == "xclip":
        return (before.num_words, before.num_frames) == (wanted.num_words, wanted.num_frames)
    return wanted.num_frames <= (most_frames(loaded) or wanted.num_frames)


def _wanted(
    part: ModelPart, before: CheckpointConfig, num_words: int | None, num_frames: int | None, context_length: int
) -> CheckpointConfig:
    kind = part.kind or before.kind
    words, frames = num_words or before.num_words, num_frames or before.num_frames
    if words > context_length:
        raise InvalidTraining(f"[data] num_words is {words}; the text tower of {part.start} takes {context_length}.")
    temporal = _temporal(part, before, kind)
    places = frames + 1 if kind == "tight" else frames
    if places > context_length and (kind in ("tight", "clip2video") or temporal.kind in TRANSFORMERS):
        raise InvalidTraining(
            f"[data] num_frames is {frames}; this head starts from the text tower's {context_length} positions.",
            "Take fewer frames, or mean or seqLSTM.",
        )
    return replace(
        before,
        num_words=words,
        num_frames=frames,
        temporal=temporal,
        kind=kind,
        head=_head(part, before, kind, context_length),
        masks=part.masks,
    )


def _temporal(part: ModelPart, before: CheckpointConfig, kind: HeadKind) -> TemporalConfig:
    given = {
        "temporal": part.temporal,
        "temporal_layers": part.temporal_layers,
        "temporal_heads": part.temporal_heads,
    }
    named = [name for name, value in given.items() if value is not None]
    if kind in ("tight", "clip2video"):
        if named and given != {"temporal": "mean", "temporal_layers": None, "temporal_heads": None}:
            raise InvalidTraining(
                f"[model] {named[0]} doesn't belong to the kind {kind!r}.", "Its switches are [model.head]'s."
            )
        return TemporalConfig()
    old = before.temporal
    chosen = part.temporal or (old.kind if before.kind in ("xclip", "clip4clip") else "mean")
    if chosen == "TDB" and kind != "xclip":
        raise InvalidTraining(f"[model] temporal is 'TDB', which {kind} can't have.", 'There is kind = "clip2video".')
    if chosen not in TRANSFORMERS:
        if named and named[-1] != "temporal":
            raise InvalidTraining(
                f"[model] {named[-1]} is of {' and '.join(TRANSFORMERS)}, and the temporal encoder is {chosen!r}."
            )
        return TemporalConfig(chosen)
    width = int(before.model_cfg["embed_dim"])
    is_old = old.kind in TRANSFORMERS
    layers, heads = part.temporal_layers, part.temporal_heads
    layers = layers if layers is not None else old.layers if is_old else DEFAULT_LAYERS
    heads = heads if heads is not None else (old.heads if is_old else None) or max(1, width // 64)
    if layers < 1 or heads < 1 or width % heads:
        raise InvalidTraining(f"[model] {layers} temporal layers of {heads} heads don't fit a width of {width}.")
    return TemporalConfig(chosen, layers, heads)


def _head(part: ModelPart, before: CheckpointConfig, kind: HeadKind, context_length: int) -> HeadConfig:
    """The head's switches: of the start where the kind is the same, with what is given laid over them."""
    where = "[model.head]"
    values = before.head_values() if kind == before.kind else {}
    values = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v is not None}
    for own in ("kind", "num_positions"):
        values.pop(own, None)
    values |= part.head
    if kind == "xclip":
        options = checked(GrainOptions, values, where)
        if not options.grains or not set(options.grains) <= set(GRAINS):
            raise InvalidTraining(f"{where} grains are {list(options.grains)}.", f"There are {', '.join(GRAINS)}.")
        if len(set(options.grains)) < len(options.grains):
            raise InvalidTraining(f"{where} grains has one twice: {', '.join(options.grains)}.")
        if not options.temperature > 0.0:
            raise InvalidTraining(f"{where} temperature is {options.temperature}; it must be above 0.")
        return options
    places: dict[str, int] = {"num_positions": context_length}
    if kind == "tight":
        return checked(TightConfig, values, where, leave_out=frozenset(places), **places)
    if kind == "clip2video":
        places["embed_dim"] = int(before.model_cfg["embed_dim"])
        return checked(Clip2VideoConfig, values, where, leave_out=frozenset({"masks", *places}), **places)
    if values:
        raise InvalidTraining(f"{where} has the key {next(iter(values))!r}, and clip4clip's head has none.")
    return None


def _starts_from_text_tower(network: Network) -> bool:
    """Whether the head has anything to take from there; towers of another width then matter to nobody."""
    if network.kind in ("tight", "clip2video"):
        return True
    encoder = getattr(network, "temporal", None) or getattr(network.head, "temporal", None)
    return isinstance(encoder, TransformerTemporal | DifferenceTemporal)
