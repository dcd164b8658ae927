"""Small members of every family of towers, with random weights: milliseconds to build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch

from model.backbone import Backbone, build_backbone
from model.families import family_of
from model.families.xclip import XClipNetwork
from model.heads.clip2video import Clip2VideoConfig
from model.heads.tight import TightConfig
from model.network import MaskReading, Network, NetworkConfig
from model.temporal import TemporalConfig, TemporalKind
from model.types import HeadKind

MERGES = ("d o", "do g</w>", "r e", "re d</w>", "c a", "ca t</w>")
VOCAB_SIZE = 512 + len(MERGES) + 2


def small_config(**changes: Any) -> dict[str, Any]:
    """Towers of two thin layers; `changes` go into the text tower's part."""
    return {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 16, "head_width": 16},
        "text_cfg": {
            "context_length": 16,
            "vocab_size": VOCAB_SIZE,
            "width": 32,
            "heads": 2,
            "layers": 2,
            **changes,
        },
    }


def named_config(architecture: str) -> dict[str, Any]:
    """The configuration of an architecture with its transformers cut to one thin layer."""
    config: dict[str, Any] = open_clip.get_model_config(architecture)
    config["text_cfg"] |= {"layers": 1, "width": 64, "heads": 2}
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] |= {"layers": 1, "width": 64, "heads": 2}
    if "width" in config["vision_cfg"]:
        config["vision_cfg"] |= {"layers": 1, "width": 64, "head_width": 32}
    return config


def write_merges(folder: Path) -> Path:
    """The vocabulary of `small_config`."""
    path = folder / "merges.txt"
    path.write_text("\n".join(MERGES) + "\n", encoding="utf-8")
    return path


def small_backbone(folder: Path, seed: int = 3, **changes: Any) -> Backbone:
    """A backbone of `small_config`; its merges file is written to `folder`."""
    torch.manual_seed(seed)
    return build_backbone(small_config(**changes), merges=write_merges(folder))


def small_network(folder: Path, kind: TemporalKind = "mean", num_words: int = 8, num_frames: int = 4) -> XClipNetwork:
    """An X-CLIP with random mixing matrices, so that a loader that forgets one is seen."""
    network = small_network_of("xclip", folder, kind, num_words=num_words, num_frames=num_frames)
    assert isinstance(network, XClipNetwork)
    return network


def small_network_of(
    head: HeadKind,
    folder: Path,
    kind: TemporalKind = "mean",
    *,
    num_words: int = 8,
    num_frames: int = 4,
    masks: MaskReading = "masked",
) -> Network:
    """A network of any of the papers, no parameter of its head where training starts it."""
    backbone = small_backbone(folder)
    heads: dict[HeadKind, Any] = {
        "tight": TightConfig(layers=1, heads=2, num_positions=16),
        "clip2video": Clip2VideoConfig(backbone.embed_dim, num_centres=3, layers=1, heads=2, num_positions=16),
    }
    config = NetworkConfig(
        head, num_words, num_frames, TemporalConfig(kind, layers=1, heads=2), heads.get(head), masks=masks
    )
    network = family_of(head)(backbone, config, num_positions=16)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.startswith("backbone."):
                parameter.normal_(std=0.1 if "_mat_weight" not in name and "_logit_weight" not in name else 1.0)
    return network.eval()
