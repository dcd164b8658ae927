"""A network -> the state dict of another layout, where that layout can hold what the network is.

A layout holds names and tensors and leaves the rest to its readers: OpenAI's and the papers' code takes heads 64 wide
and QuickGELU for granted, X-CLIP's four grains and CLIP2Video's even mix too. So before anything is written, the
tensors are read back as a reader would, and every difference is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from model.checkpoints.hugging_face import hf_config, tower_options
from model.checkpoints.layouts import Layout, from_official, head_names, tower_config, towers_only
from model.checkpoints.official import config_of_state, file_key
from model.checkpoints.pixels import from_hugging_face, to_hugging_face
from model.errors import CheckpointMismatch
from model.families import family_of
from model.families.clip4clip import PooledNetwork
from model.network import Network, NetworkConfig
from model.preprocess import Preprocess
from model.temporal import TemporalConfig, default_heads

_UNSAID = {"head_width": 64, "mlp_ratio": 4.0}
# open_clip's own values of what a configuration leaves out
_VISION = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16}
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}


def export_state(network: Network, layout: Layout, *, has_config: bool = False) -> dict[str, Tensor]:
    """The network's tensors in a layout, float32; has_config: Hugging Face's configurations are written beside.

    For layouts that hold only towers, a head that is the identity is left out silently.
    Raises: CheckpointMismatch naming what the layout can't hold.
    """
    state = {file_key(key): value.detach().cpu() for key, value in network.state_dict().items()}
    backbone = network.backbone
    if layout != "official":
        if not network.is_towers_only:
            raise CheckpointMismatch(
                f"The layout {layout!r} holds towers only, and {', '.join(head_names(state)[:6])}, ... are a head.",
                "Leave it behind with --towers-only, or choose --to official or --to vidgrain.",
            )
        state = towers_only(state)
    if layout == "open_clip":  # named by its architecture when it is read, so it may hold any towers
        return {key.removeprefix("clip."): value for key, value in state.items()}
    converted = from_official(state, layout)
    plain = plain_config(backbone.model_cfg)
    options = tower_options(*([hf_config(plain)] if has_config else []))
    problems = _differences(plain, tower_config(state, **options))
    read = Preprocess(image_size=backbone.image_size)
    if layout == "hugging_face" and has_config:
        written = to_hugging_face(backbone.preprocess)
        read = from_hugging_face(written, backbone.image_size, Path("preprocessor_config.json"))
    problems += _differences(backbone.preprocess.as_dict(), read.as_dict())
    if layout == "official":
        config = network.config
        found = config_of_state(state, backbone.model_cfg, num_words=config.num_words, num_frames=config.num_frames)
        problems += _differences(_head_values(config), _head_values(found))
    if problems:
        raise CheckpointMismatch(
            f"In the layout {layout!r} this model would be read as another: {'; '.join(problems)}.",
            "Choose --to vidgrain, which holds everything.",
        )
    return converted


def without_head(network: Network) -> Network:
    """The towers alone, as CLIP4Clip pools them: by the mean."""
    config = replace(network.config, kind=PooledNetwork.kind, temporal=TemporalConfig(), head=None)
    return PooledNetwork(network.backbone, config).eval()


def plain_config(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """An open_clip configuration as `tower_config` writes it: sizes explicit, defaults left out."""
    vision, text = (
        {name: value for name, value in model_cfg[part].items() if _UNSAID.get(name) != value}
        for part in ("vision_cfg", "text_cfg")
    )
    if isinstance(vision.get("layers"), (list, tuple)):
        vision = {"patch_size": None} | vision | {"layers": list(vision["layers"])}
    return {"quick_gelu": False} | dict(model_cfg) | {"vision_cfg": _VISION | vision, "text_cfg": _TEXT | text}


def _head_values(config: NetworkConfig) -> dict[str, Any]:
    """Kind, temporal encoder and head, with the number of attention heads made explicit."""
    width, family = int(config.model_cfg["embed_dim"]), family_of(config.kind)
    settled = family.settled(config, width)
    values = family.head_values(settled.head)
    if "heads" in values:
        values["heads"] = values["heads"] or default_heads(width)
    return {"kind": config.kind, **values, "temporal": asdict(settled.temporal)}


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], at: str = "") -> list[str]:
    """What isn't the same, each as 'text_cfg.heads is 4 and would be 2'."""
    found = []
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        mine, read = ours.get(key), theirs.get(key)
        if isinstance(mine, Mapping) and isinstance(read, Mapping):
            found += _differences(mine, read, f"{at}{key}.")
        elif mine != read:
            found.append(f"{at}{key} is {mine} and would be {read}")
    return found
