"""State dicts of CLIP and of the three papers, between the layouts they are published in.

"official" is the hub: `clip.` + OpenAI's name for the towers, bare names for temporal encoder and head, as X-CLIP,
CLIP4Clip and CLIP2Video save them. "openai" holds OpenAI's names and three sizes; "open_clip" the same names without
the sizes, or with `text.` before those of the text tower; "hugging_face" is model/checkpoints/hugging_face.py.
Pure functions of names and tensors: no file is read, no network built. What a layout doesn't know is an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from model.checkpoints import hugging_face
from model.checkpoints.names import (
    IMAGE,
    IMAGE_BLOCKS,
    LOGIT_SCALE,
    TEXT,
    TEXT_BLOCKS,
    TOWERS_PREFIX,
    is_head,
    is_tower,
    is_vit,
    num_layers,
    passed_over,
    tower_of,
    wanted_tower_names,
)
from model.errors import CheckpointMismatch

Layout = Literal["official", "openai", "open_clip", "hugging_face"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
CLIP_LOGIT_SCALE = math.log(100.0)  # where training holds CLIP's temperature; ranking doesn't depend on it
HEAD_WIDTH = 64

_TEXT_PREFIX = "text."
_SIZES = ("input_resolution", "context_length", "vocab_size")


def layout_of(state: Mapping[str, Any]) -> Layout:
    """Which layout a state dict has (wrapped in `state_dict` or prefixed with `module.` or not).

    Raises: CheckpointMismatch naming the keys that its layout doesn't know.
    """
    return _read(state)[0]


def to_official(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Any layout -> official names, float32 (integers stay); tensors that no network reads are left out.

    A temperature is added to towers that were saved without one.
    Raises: CheckpointMismatch naming unknown or missing keys, or the tower that is absent.
    """
    _, towers, heads = _halves(state)
    official = {TOWERS_PREFIX + name: value for name, value in towers.items()} | heads
    return {name: value.float() if value.is_floating_point() else value for name, value in official.items()}


def from_official(state: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Official names -> a layout, in the numbers' own type.

    Raises: CheckpointMismatch for tensors of a head, which only "official" can hold, and for unknown or missing keys.
    """
    found, towers, heads = _halves(state)
    if found != "official":
        raise CheckpointMismatch(f"official names are needed here, and these have the layout {found!r}.")
    if layout == "official":
        return {TOWERS_PREFIX + name: value for name, value in towers.items()} | heads
    if heads:
        raise CheckpointMismatch(
            f"the layout {layout!r} holds towers only, and there is a head: {_some(heads)}.",
            "Leave the head behind (towers only), or choose the layout 'official'.",
        )
    if layout == "hugging_face":
        return hugging_face.to_hf(towers)
    if layout == "openai":
        shape = tower_config(state, vision_heads=1, text_heads=1)
        numbers = (
            shape["vision_cfg"]["image_size"],
            shape["text_cfg"]["context_length"],
            shape["text_cfg"]["vocab_size"],
        )
        return towers | {name: torch.tensor(number) for name, number in zip(_SIZES, numbers, strict=True)}
    return towers


def towers_only(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict without its temporal encoder and head."""
    return {name: value for name, value in state.items() if name.startswith(TOWERS_PREFIX)}


def head_names(state: Mapping[str, Tensor]) -> list[str]:
    """The names of an official state dict that belong to its temporal encoder and head."""
    return [name for name in state if not name.startswith(TOWERS_PREFIX)]


def merge_towers(*states: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dicts of one tower each, of one layout, as one. Raises: CheckpointMismatch if they disagree on a tensor."""
    merged: dict[str, Tensor] = {}
    for state in states:
        plain = unwrapped(state)
        twice = [name for name in plain.keys() & merged.keys() if not torch.equal(plain[name], merged[name])]
        if twice:
            raise CheckpointMismatch(f"two files disagree on {_some(sorted(twice))}.", "Keep one file per tower.")
        merged |= plain
    return merged


def tower_config(
    state: Mapping[str, Any],
    *,
    quick_gelu: bool | None = None,
    vision_heads: int | None = None,
    text_heads: int | None = None,
) -> dict[str, Any]:
    """The open_clip model configuration that a state dict of any layout was made with, derived from its shapes.

    quick_gelu: shapes don't show the activation. None: QuickGELU, which OpenAI's, the papers' and by default
    Hugging Face's towers have; for open_clip's own, which have either, it is required.
    Heads are 64 wide, as in all of OpenAI's, unless their number is given.
    Raises: CheckpointMismatch where shapes contradict each other, or the activation can't be known.
    """
    layout, towers, _ = _halves(state)
    if quick_gelu is None and layout == "open_clip":
        raise CheckpointMismatch(
            "weights with open_clip's names don't record whether they were trained with GELU or QuickGELU.",
            "Name the architecture, as in ViT-B-32/path/to/weights or ViT-B-32-quickgelu/path/to/weights.",
        )
    shapes = {name: tuple(value.shape) for name, value in towers.items()}
    try:
        vision_cfg, vision_embed = _vision_config(shapes, vision_heads)
        text_cfg, text_embed = _text_config(shapes, text_heads)
    except (IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointMismatch(f"the towers' shapes aren't CLIP's: {error}.") from error
    if vision_embed != text_embed:
        raise CheckpointMismatch(f"the image tower ends in {vision_embed} numbers and the text tower in {text_embed}.")
    return {
        "embed_dim": text_embed,
        "quick_gelu": True if quick_gelu is None else quick_gelu,
        "vision_cfg": vision_cfg,
        "text_cfg": text_cfg,
    }


def unwrapped(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The plain state dict of one that lies under `state_dict`, or whose names begin with `module.`.

    Raises: CheckpointMismatch if something else than tensors is in it.
    """
    for wrapper in ("state_dict", "model_state_dict"):
        if isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    strange = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointMismatch(f"this is no state dict: {_some(strange)} aren't tensors.")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _read(state: Mapping[str, Any]) -> tuple[Layout, dict[str, Tensor]]:
    plain = unwrapped(state)
    skipped = passed_over(plain)
    given = {name: value for name, value in plain.items() if name not in skipped}
    if not given:
        raise CheckpointMismatch("there are no weights in this state dict.")
    bare: Layout = "open_clip" if skipped.keys().isdisjoint(_SIZES) else "openai"
    candidates: tuple[Layout, ...] = ("official", "hugging_face", bare, "open_clip")
    strangers = {layout: _unknown(layout, given) for layout in candidates}
    layout = min(candidates, key=lambda candidate: len(strangers[candidate]))
    if strangers[layout]:
        raise CheckpointMismatch(
            f"{len(strangers[layout])} of {len(given)} keys are unknown in the layout {layout!r}, the nearest: "
            f"{_some(strangers[layout])}.",
            "Towers that aren't OpenAI's load by the name of their architecture, as in ARCH/path/to/weights.",
        )
    return layout, given


def _unknown(layout: Layout, given: Mapping[str, Tensor]) -> list[str]:
    if layout == "hugging_face":
        return [name for name in given if hugging_face.openai_name(name) is None]
    names = _openai_names(layout, given)
    sees = is_vit([ours for ours in names.values() if ours])
    known = {name for name, ours in names.items() if ours and is_tower(ours, is_vit=sees)}
    return [name for name in given if name not in known and not (layout == "official" and is_head(name))]


def _openai_names(layout: Layout, given: Mapping[str, Tensor]) -> dict[str, str | None]:
    """The name that OpenAI gives each tensor of a tower; None for one of no tower."""
    if layout == "official":
        return {name: name.removeprefix(TOWERS_PREFIX) if name.startswith(TOWERS_PREFIX) else None for name in given}
    if layout == "open_clip" and any(name.startswith(_TEXT_PREFIX) for name in given):
        bare = {name: name.removeprefix(_TEXT_PREFIX) for name in given}
        return {name: ours if (name != ours) == (tower_of(ours) == TEXT) else None for name, ours in bare.items()}
    return {name: name for name in given}


def _halves(state: Mapping[str, Any]) -> tuple[Layout, dict[str, Tensor], dict[str, Tensor]]:
    """(layout, complete towers under OpenAI's names, temporal encoder and head)."""
    layout, given = _read(state)
    heads: dict[str, Tensor] = {}
    if layout == "hugging_face":
        towers = {LOGIT_SCALE: torch.tensor(CLIP_LOGIT_SCALE)} | hugging_face.from_hf(given)
    else:
        names = _openai_names(layout, given)
        towers = {ours: given[name] for name, ours in names.items() if ours}
        heads = {name: given[name] for name, ours in names.items() if not ours}
    _check_complete(towers, layout)
    if towers[LOGIT_SCALE].numel() == 1:  # some of open_clip's have one entry instead of none
        towers[LOGIT_SCALE] = towers[LOGIT_SCALE].reshape(())
    return layout, towers, heads


def _check_complete(towers: Mapping[str, Tensor], layout: Layout) -> None:
    present = {tower_of(name) for name in towers}
    for absent, other in ((TEXT, IMAGE), (IMAGE, TEXT)):
        if absent not in present:
            raise CheckpointMismatch(
                f"the {absent} tower is missing: these weights hold only the {other} tower.",
                "Put the files of both towers in one folder and name the folder.",
            )
    missing = [name for name in wanted_tower_names(towers) if name not in towers]
    if missing:
        prefix = TOWERS_PREFIX if layout == "official" else ""
        is_hf = layout == "hugging_face"
        names = [theirs for name in missing for theirs in (hugging_face.hf_names(name) if is_hf else [prefix + name])]
        raise CheckpointMismatch(f"{len(names)} keys are missing: {_some(names)}.")


def _vision_config(shapes: Mapping[str, tuple[int, ...]], heads: int | None) -> tuple[dict[str, Any], int]:
    if not is_vit(shapes):
        stages = [num_layers(shapes, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)]
        width = shapes["visual.layer1.0.conv1.weight"][0]
        side = _side(shapes["visual.attnpool.positional_embedding"][0] - 1)
        config = {"image_size": side * 32, "layers": stages, "width": width, "patch_size": None}
        return config, shapes["visual.attnpool.c_proj.weight"][0]
    width, _, patch, _ = shapes["visual.conv1.weight"]
    side = _side(shapes["visual.positional_embedding"][0] - 1)
    config = {
        "image_size": side * patch,
        "layers": num_layers(shapes, IMAGE_BLOCKS),
        "width": width,
        "patch_size": patch,
        **_mlp_ratio(shapes, IMAGE_BLOCKS, width),
    }
    if heads is not None and heads * HEAD_WIDTH != width:
        config["head_width"] = _divided(width, heads)
    elif heads is None:
        _divided(width, HEAD_WIDTH)
    return config, shapes["visual.proj"][1]


def _text_config(shapes: Mapping[str, tuple[int, ...]], heads: int | None) -> tuple[dict[str, Any], int]:
    vocab_size, width = shapes["token_embedding.weight"]
    if heads is not None:
        _divided(width, heads)
    config = {
        "context_length": shapes["positional_embedding"][0],
        "vocab_size": vocab_size,
        "width": width,
        "heads": _divided(width, HEAD_WIDTH) if heads is None else heads,
        "layers": num_layers(shapes, TEXT_BLOCKS),
        **_mlp_ratio(shapes, TEXT_BLOCKS, width),
    }
    return config, shapes["text_projection"][1]


def _mlp_ratio(shapes: Mapping[str, tuple[int, ...]], blocks: str, width: int) -> dict[str, float]:
    hidden = shapes[f"{blocks}0.mlp.c_fc.weight"][0]
    ratio = hidden / width
    while int(width * ratio) < hidden:  # the quotient may round to just below
        ratio = math.nextafter(ratio, math.inf)
    return {} if hidden == 4 * width else {"mlp_ratio": ratio}


def _side(num_cells: int) -> int:
    side = math.isqrt(num_cells)
    if side * side != num_cells or side < 1:
        raise ValueError(f"{num_cells} image positions don't make a square")
    return side


def _divided(width: int, heads: int) -> int:
    if width % heads:
        raise ValueError(f"a width of {width} can't be divided by {heads} for its attention heads")
    return width // heads


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:6]) + (", ..." if len(listed) > 6 else "")
