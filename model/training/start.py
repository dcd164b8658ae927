"""The network a training begins with: towers of the start, and its head or a new one.

It loads by model.registry and knows no data and no optimiser.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from model.checked import BadValue
from model.errors import InvalidTraining
from model.families import family_of
from model.network import Network, NetworkConfig
from model.registry import build_network, load_network
from model.temporal import TRANSFORMERS, TemporalConfig, default_heads
from model.training.config import ModelPart

DEFAULT_LAYERS = 4


def start_network(part: ModelPart, num_words: int | None, num_frames: int | None, seed: int) -> tuple[Network, str]:
    """The network, on the CPU, and a sentence on what it starts from. None: W and F of the start.

    What starts at random follows from the seed. Raises: InvalidTraining, ShapeError where a head can't start from the
    text tower, and what load_network raises.
    """
    loaded = load_network(part.start, masks=part.masks)
    before = loaded.config
    wanted = _wanted(part, before, num_words, num_frames, loaded.backbone.context_length)
    if _fits(loaded, before, wanted) and not part.is_random:
        loaded.reconfigure(num_words=wanted.num_words, num_frames=wanted.num_frames)
        return loaded, f"towers and {loaded.kind} head of {part.start}"
    torch.manual_seed(seed)
    backbone = loaded.backbone
    network = build_network(wanted, merges=backbone.merges_path, positions=backbone.context_length)
    if not part.is_random:
        network.backbone = backbone
    if network.starts_from_text_tower:
        network.start_from_clip()
    towers = f"random towers of the shape of {part.start}" if part.is_random else f"towers of {part.start}"
    return network, f"{towers}, a new {network.kind} head"


def _fits(loaded: Network, before: NetworkConfig, wanted: NetworkConfig) -> bool:
    """Whether the start's head is the one that is wanted. Some heads' weights fix W and F, others F by positions."""
    if (before.kind, before.head, before.temporal) != (wanted.kind, wanted.head, wanted.temporal):
        return False
    if loaded.has_fixed_sizes:
        return (before.num_words, before.num_frames) == (wanted.num_words, wanted.num_frames)
    return loaded.can_have(num_words=wanted.num_words, num_frames=wanted.num_frames)


def _wanted(
    part: ModelPart, before: NetworkConfig, num_words: int | None, num_frames: int | None, context_length: int
) -> NetworkConfig:
    family = family_of(part.kind or before.kind)
    words, frames = num_words or before.num_words, num_frames or before.num_frames
    if words > context_length:
        raise InvalidTraining(f"[data] num_words is {words}; the text tower of {part.start} takes {context_length}.")
    wanted = replace(
        before,
        kind=family.kind,
        num_words=words,
        num_frames=frames,
        temporal=_temporal(part, before, family),
        head=_head(part, before, family, context_length),
        masks=part.masks,
    )
    if family.positions_needed(wanted) > context_length:
        raise InvalidTraining(
            f"[data] num_frames is {frames}; this head starts from the text tower's {context_length} positions.",
            "Take fewer frames, or mean or seqLSTM.",
        )
    return family.settled(wanted, int(before.model_cfg["embed_dim"]))


def _temporal(part: ModelPart, before: NetworkConfig, family: type[Network]) -> TemporalConfig:
    given = {
        "temporal": part.temporal,
        "temporal_layers": part.temporal_layers,
        "temporal_heads": part.temporal_heads,
    }
    named = [name for name, value in given.items() if value is not None]
    if not family.temporal_kinds:
        if named and given != {"temporal": "mean", "temporal_layers": None, "temporal_heads": None}:
            raise InvalidTraining(
                f"[model] {named[0]} doesn't belong to the kind {family.kind!r}.", "Its switches are in [model.head]."
            )
        return TemporalConfig()
    old = before.temporal
    chosen = part.temporal or old.kind
    if chosen not in family.temporal_kinds:
        raise InvalidTraining(
            f"[model] temporal is {chosen!r}, which {family.kind} can't have.",
            f"It can have {', '.join(family.temporal_kinds)}.",
        )
    if chosen not in TRANSFORMERS:
        if named and named[-1] != "temporal":
            raise InvalidTraining(
                f"[model] {named[-1]} is for {' and '.join(TRANSFORMERS)}, and the temporal encoder is {chosen!r}."
            )
        return TemporalConfig(chosen)
    width = int(before.model_cfg["embed_dim"])
    layers, heads = part.temporal_layers, part.temporal_heads
    layers = layers if layers is not None else old.layers if old.is_transformer else DEFAULT_LAYERS
    heads = heads if heads is not None else (old.heads if old.is_transformer else None) or default_heads(width)
    if layers < 1 or heads < 1 or width % heads:
        raise InvalidTraining(f"[model] {layers} temporal layers of {heads} heads don't fit a width of {width}.")
    return TemporalConfig(chosen, layers, heads)


def _head(part: ModelPart, before: NetworkConfig, family: type[Network], context_length: int) -> Any:
    """The head's switches: of the start where the kind is the same, with what is given laid over them."""
    values = family.head_values(before.head) if family.kind == before.kind else {}
    values = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v is not None}
    values.pop("num_positions", None)
    width = int(before.model_cfg["embed_dim"])
    try:
        return family.read_switches({**values, **part.head}, "[model.head]", width, context_length)
    except BadValue as error:
        raise InvalidTraining(error.message, error.hint) from error
