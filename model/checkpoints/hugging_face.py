"""CLIP as the transformers library names it, to OpenAI's names and back; and its config.json.

Three things differ besides the names: queries, keys and values are three matrices instead of one, the two projections
are transposed, and the number of heads and the activation stand in config.json. Its models of one tower
(CLIPTextModelWithProjection, CLIPVisionModelWithProjection) use the same names for their half, and hold no
temperature. No file is read here.
Source: modeling_clip.py and configuration_clip.py of transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor

from model.checkpoints.names import IMAGE_BLOCKS, TEXT_BLOCKS
from model.errors import CheckpointMismatch

PREFIXES = ("text_model.", "vision_model.", "text_projection.", "visual_projection.")

_NAMES = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # their spelling
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
_BLOCKS = {TEXT_BLOCKS: "text_model.encoder.layers.", IMAGE_BLOCKS: "vision_model.encoder.layers."}
_PARTS = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
_BLOCK_NAMES = {f"{ours}.{kind}": f"{hf}.{kind}" for ours, hf in _PARTS.items() for kind in ("weight", "bias")}
_BLOCK_NAMES |= {f"attn.out_proj.{kind}": f"self_attn.out_proj.{kind}" for kind in ("weight", "bias")}
_PACKED = {f"attn.in_proj_{kind}": [f"self_attn.{part}_proj.{kind}" for part in "qkv"] for kind in ("weight", "bias")}

_OPENAI = {hf: ours for ours, hf in (_NAMES | _TRANSPOSED).items()}
_OPENAI_BLOCK = {hf: ours for ours, hf in _BLOCK_NAMES.items()}
_OPENAI_PACKED = {hf: ours for ours, parts in _PACKED.items() for hf in parts}
_ACTIVATIONS = {"quick_gelu": True, "gelu": False}
NORM_EPS = 1e-5
MODEL_TYPES = ("clip", "clip_text_model", "clip_vision_model")


class TowerOptions(TypedDict):
    """What the shapes of towers don't show: the activation and the attention heads."""

    quick_gelu: bool
    vision_heads: int | None
    text_heads: int | None


def hf_names(openai_name: str) -> list[str]:
    """Their name, or the three names for packed attention weights, of a tensor of OpenAI's; [] without one."""
    if openai_name in _NAMES | _TRANSPOSED:
        return [(_NAMES | _TRANSPOSED)[openai_name]]
    for ours, theirs in _BLOCKS.items():
        if found := re.fullmatch(re.escape(ours) + r"(\d+)\.(.+)", openai_name):
            parts = _PACKED.get(found[2]) or [_BLOCK_NAMES[found[2]]] if found[2] in _PACKED | _BLOCK_NAMES else []
            return [f"{theirs}{found[1]}.{part}" for part in parts]
    return []


def openai_name(hf_name: str) -> str | None:
    """The tensor of OpenAI's that a name belongs to; None if there is none."""
    if hf_name in _OPENAI:
        return _OPENAI[hf_name]
    for ours, theirs in _BLOCKS.items():
        if found := re.fullmatch(re.escape(theirs) + r"(\d+)\.(.+)", hf_name):
            part = _OPENAI_BLOCK.get(found[2]) or _OPENAI_PACKED.get(found[2])
            return part and f"{ours}{found[1]}.{part}"
    return None


def from_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their names -> OpenAI's. A tensor with a third missing is left out: the caller reports what is missing.

    Raises: CheckpointMismatch where queries, keys and values of one block don't have one shape.
    """
    converted = {}
    for ours in dict.fromkeys(name for key in state if (name := openai_name(key))):
        names = hf_names(ours)
        parts = [state[name] for name in names if name in state]
        if len(parts) < len(names):
            continue
        if len({tuple(part.shape) for part in parts}) > 1:
            shapes = ", ".join(f"{name} {tuple(state[name].shape)}" for name in names)
            raise CheckpointMismatch(f"the attention's parts don't have one shape: {shapes}.")
        if ours in _TRANSPOSED and parts[0].ndim != 2:
            raise CheckpointMismatch(f"{names[0]} is {tuple(parts[0].shape)} and should be a matrix.")
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        converted[ours] = whole.t().contiguous() if ours in _TRANSPOSED else whole
    return converted


def to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's names -> theirs. Raises: CheckpointMismatch naming what their model has no place for."""
    homeless = [name for name in state if not hf_names(name)]
    if homeless:
        raise CheckpointMismatch(
            f"Hugging Face's CLIP has no place for {', '.join(homeless[:6])}{', ...' if len(homeless) > 6 else ''}.",
            "It sees with a vision transformer only." if any("visual." in name for name in homeless) else "",
        )
    converted: dict[str, Tensor] = {}
    for ours, value in state.items():
        names = hf_names(ours)
        if ours in _TRANSPOSED:
            value = value.t()
        parts = value.chunk(len(names)) if len(names) > 1 else (value,)
        converted |= {name: part.contiguous() for name, part in zip(names, parts, strict=True)}
    return converted


def tower_options(*configs: Mapping[str, Any]) -> TowerOptions:
    """What config.json adds to the shapes, for one whole model or for a text and an image model.

    What it leaves out has that library's default. Raises: CheckpointMismatch for a tower that open_clip can't build.
    """
    text, vision = _section(configs, "text"), _section(configs, "vision")
    sections = [section for section in (text, vision) if section is not None]
    activations = {section.get("hidden_act", "quick_gelu") for section in sections} or {"quick_gelu"}
    if len(activations) > 1 or not activations <= _ACTIVATIONS.keys():
        raise CheckpointMismatch(
            f"config.json asks for {' and '.join(sorted(map(str, activations)))}; quick_gelu or gelu, the same in both "
            "towers, is what can be built."
        )
    odd = [section["layer_norm_eps"] for section in sections if section.get("layer_norm_eps", NORM_EPS) != NORM_EPS]
    if odd:
        raise CheckpointMismatch(f"config.json asks for a layer_norm_eps of {odd[0]}; {NORM_EPS} is what can be built.")
    return TowerOptions(
        quick_gelu=_ACTIVATIONS[activations.pop()],
        vision_heads=None if vision is None else int(vision.get("num_attention_heads", 12)),
        text_heads=None if text is None else int(text.get("num_attention_heads", 8)),
    )


def hf_config(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json that goes with `to_hf`, of an open_clip configuration of plain CLIP towers."""
    vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    shared = {
        "hidden_act": "quick_gelu" if model_cfg.get("quick_gelu", False) else "gelu",
        "layer_norm_eps": NORM_EPS,
        "projection_dim": model_cfg["embed_dim"],
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": model_cfg["embed_dim"],
        "text_config": {
            **shared,
            "model_type": "clip_text_model",
            "vocab_size": text["vocab_size"],
            "hidden_size": text["width"],
            "intermediate_size": int(text["width"] * text.get("mlp_ratio", 4.0)),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "bos_token_id": text["vocab_size"] - 2,
            "eos_token_id": text["vocab_size"] - 1,
        },
        "vision_config": {
            **shared,
            "model_type": "clip_vision_model",
            "hidden_size": vision["width"],
            "intermediate_size": int(vision["width"] * vision.get("mlp_ratio", 4.0)),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision.get("head_width", 64),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
        },
    }


def _section(configs: tuple[Mapping[str, Any], ...], tower: str) -> Mapping[str, Any] | None:
    """The part about one tower; None without one."""
    for config in configs:
        kind = config.get("model_type")
        if kind not in MODEL_TYPES:
            raise CheckpointMismatch(
                f"config.json describes a model of type {kind!r}; CLIP's type is one of {', '.join(MODEL_TYPES)}."
            )
        if kind == f"clip_{tower}_model":
            return config
        if kind == "clip":  # where both keys are there, the older one holds
            section: Mapping[str, Any] = config.get(f"{tower}_config_dict") or config.get(f"{tower}_config") or {}
            return section
    return None
