"""The names a checkpoint may hold: OpenAI's for the towers, the papers' own for temporal encoders and heads.

The families declare the names of their heads. Any other name that isn't in here, or in the small table of names passed
over, is a mistake or a model we don't have, and is reported. This file knows names only; no tensor is read.
Sources: state dicts of OpenAI's CLIP, and of X-CLIP 6b5344f, CLIP4Clip 508ffa3 and CLIP2Video e941318.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from model.families import FAMILIES

TOWERS_PREFIX = "clip."
TEXT, IMAGE = "text", "image"

# a transformer block, the same in the towers and in every temporal encoder
_BLOCK_PARTS = ("attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
BLOCK_NAMES = (
    "attn.in_proj_weight",
    "attn.in_proj_bias",
    *(f"{part}.{kind}" for part in _BLOCK_PARTS for kind in ("weight", "bias")),
)
TEXT_NAMES = ("token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias", "text_projection")
VIT_NAMES = (
    "visual.class_embedding",
    "visual.positional_embedding",
    "visual.conv1.weight",
    *(f"visual.{part}.{kind}" for part in ("ln_pre", "ln_post") for kind in ("weight", "bias")),
    "visual.proj",
)
LOGIT_SCALE = "logit_scale"
TEXT_BLOCKS, IMAGE_BLOCKS = "transformer.resblocks.", "visual.transformer.resblocks."

_BLOCK = r"\d+\.(" + "|".join(re.escape(name) for name in BLOCK_NAMES) + ")"
_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_TEXT = re.compile("|".join([*map(re.escape, TEXT_NAMES), re.escape(TEXT_BLOCKS) + _BLOCK]))
_VIT = re.compile("|".join([*map(re.escape, VIT_NAMES), re.escape(IMAGE_BLOCKS) + _BLOCK]))
_RESNET = re.compile(
    rf"visual\.(conv[123]\.weight|bn[123]\.{_NORM}"
    rf"|layer[1-4]\.\d+\.(conv[123]\.weight|bn[123]\.{_NORM}|downsample\.0\.weight|downsample\.1\.{_NORM})"
    r"|attnpool\.(positional_embedding|[qkvc]_proj\.(weight|bias)))"
)
_HEADS = (
    r"frame_position_embeddings\.weight|transformerClip\.resblocks\.{block}|lstm_visual\.(weight|bias)_(ih|hh)_l0",
    *(family.tensor_names for family in FAMILIES if family.tensor_names),
)
_HEAD = re.compile("|".join(_HEADS).replace("{block}", _BLOCK))


@dataclass(frozen=True)
class PassedOver:
    """A name that files hold and no network reads; `unless`: it is read where a name of this kind is present too."""

    pattern: re.Pattern[str]
    reason: str
    unless: re.Pattern[str] | None = None


PASSED_OVER = (
    PassedOver(
        re.compile(r"(clip\.)?(input_resolution|context_length|vocab_size)"),
        "sizes that OpenAI's archive carries beside its weights; the weights' shapes show them",
    ),
    PassedOver(
        re.compile(r"(text\.)?(transformer\.resblocks\.\d+\.)?attn_mask"),
        "the causal mask, which a TorchScript archive may carry; towers make their own",
    ),
    PassedOver(
        re.compile(r"(text|vision)_model\.embeddings\.position_ids"),
        "a buffer that counts 0, 1, 2, ...; older releases of transformers saved it",
    ),
    PassedOver(
        re.compile(r"frame_position_embeddings\.weight"),
        "CLIP4Clip's seqLSTM makes the table and never reads it, nor does meanP",
        unless=re.compile(r"(transformerClip|frame2t_attention|actionClip|type_position_embeddings)\..*"),
    ),
    PassedOver(
        re.compile(r"trans_layernorm\.(weight|bias)"),
        "CLIP2Video normalises differences between frames only where it projects them",
        unless=re.compile(r"frame2t_(attention\..*|projection)"),
    ),
)


def passed_over(names: Iterable[str]) -> dict[str, str]:
    """Those of the names that no network reads, each with the reason."""
    given = list(names)
    found: dict[str, str] = {}
    for rule in PASSED_OVER:
        if rule.unless is None or not any(rule.unless.fullmatch(name) for name in given):
            found |= {name: rule.reason for name in given if rule.pattern.fullmatch(name)}
    return found


def is_head(name: str) -> bool:
    """Whether an official name belongs to a temporal encoder or a head."""
    return _HEAD.fullmatch(name) is not None


def is_tower(name: str, *, is_vit: bool) -> bool:
    """Whether OpenAI's CLIP has a tensor of this name; is_vit: its image tower is a transformer, not a ResNet."""
    image = _VIT if is_vit else _RESNET
    return name == LOGIT_SCALE or _TEXT.fullmatch(name) is not None or image.fullmatch(name) is not None


def is_vit(names: Iterable[str]) -> bool:
    """Whether towers of these OpenAI names see with a vision transformer."""
    return not any(name.startswith(("visual.layer", "visual.attnpool.", "visual.bn")) for name in names)


def tower_of(name: str) -> str | None:
    """TEXT or IMAGE for an OpenAI name; None for the temperature, which belongs to both."""
    return None if name == LOGIT_SCALE else IMAGE if name.startswith("visual.") else TEXT


def wanted_tower_names(names: Iterable[str]) -> list[str]:
    """All OpenAI names that towers with these layers must have, the temperature included."""
    given = set(names)
    wanted = [*TEXT_NAMES, *blocks(given, TEXT_BLOCKS), LOGIT_SCALE]
    return wanted + ([*VIT_NAMES, *blocks(given, IMAGE_BLOCKS)] if is_vit(given) else _resnet_names(given))


def blocks(names: set[str], prefix: str) -> list[str]:
    """The block names under a prefix for every layer up to the highest that is there; one layer at least."""
    return [f"{prefix}{layer}.{name}" for layer in range(num_layers(names, prefix) or 1) for name in BLOCK_NAMES]


def num_layers(names: Iterable[str], prefix: str) -> int:
    """How many layers the names under a prefix count (one more than the highest number, or than the names)."""
    given = list(names)
    numbers = [found[1] for name in given if (found := re.match(re.escape(prefix) + r"(\d{1,9})\.", name))]
    return min(max(map(int, numbers), default=-1), len(given)) + 1


def _resnet_names(given: set[str]) -> list[str]:
    norm = ("weight", "bias", "running_mean", "running_var")
    stem = [f"visual.conv{n}.weight" for n in (1, 2, 3)] + [f"visual.bn{n}.{kind}" for n in (1, 2, 3) for kind in norm]
    wanted = [*stem, "visual.attnpool.positional_embedding"]
    wanted += [f"visual.attnpool.{letter}_proj.{kind}" for letter in "qkvc" for kind in ("weight", "bias")]
    for stage in ("visual.layer1.", "visual.layer2.", "visual.layer3.", "visual.layer4."):
        wanted += [f"{stage}0.downsample.0.weight"] + [f"{stage}0.downsample.1.{kind}" for kind in norm]
        for layer in range(num_layers(given, stage) or 1):
            wanted += [f"{stage}{layer}.conv{n}.weight" for n in (1, 2, 3)]
            wanted += [f"{stage}{layer}.bn{n}.{kind}" for n in (1, 2, 3) for kind in norm]
    return wanted
