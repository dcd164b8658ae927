"""The tiny CLIP of the end-to-end cases, and the comparisons that every head's parity test makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.backbone import Backbone, build_backbone
from model.checkpoints.official import file_key
from tests.parity.golden import GoldenCase, load_case, tiny_clip_config, write_tiny_merges


def tiny_backbone(case: GoldenCase, folder: Path) -> Backbone:
    """The towers with the case's weights; `folder` takes the merges file."""
    backbone = build_backbone(
        tiny_clip_config(case.config), merges=write_tiny_merges(folder, case.config["vocab_size"])
    )
    state = {key.removeprefix("clip."): value for key, value in case.state().items()}
    backbone.clip.load_state_dict({key: state[key] for key in backbone.clip.state_dict()})
    return backbone


def tower_features(case: GoldenCase, backbone: Backbone) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Raw sentences (T, D), words (T, W, D), frames (V, F, D), and the frames' mask."""
    pixels = load_case("e2e/clip_towers")["in.pixels"].float()
    sentence, words = backbone.encode_words(case["in.input_ids"])
    mask = case["in.video_mask"].bool()
    return sentence, words, backbone.encode_frames(pixels.flatten(0, 1)).reshape(*mask.shape, -1), mask


def load_official(head: nn.Module, params: Mapping[str, Tensor], unused: tuple[str, ...]) -> None:
    """Fill a head from official names, every one of its tensors; what is left over must start with one of `unused`."""
    ours = {file_key(key): key for key in head.state_dict()}
    left = [name for name in params if name not in ours and not name.startswith(unused)]
    assert not left, left
    head.load_state_dict({key: params[name] for name, key in ours.items()})


def check_gradients(case: GoldenCase, found: Mapping[str, Tensor | None]) -> None:
    """Every `grad.*` tensor of a case against the gradient found under that name; no other name may have one."""
    wanted = {key.removeprefix("grad.") for key in case.tensors if key.startswith("grad.")}
    assert wanted
    assert {name for name, gradient in found.items() if gradient is not None} == wanted
    for name in wanted:
        gradient = found[name]
        assert gradient is not None
        case.check(f"grad.{name}", gradient)


def check_gradient_norms(case: GoldenCase, backbone: Backbone, head: nn.Module) -> None:
    """The gradient norms of an end-to-end case, towers and head; no other parameter may have a gradient."""
    named = {f"clip.{name}": p for name, p in backbone.clip.named_parameters()}
    named |= {file_key(name): p for name, p in head.named_parameters()}
    norms = {name: float(p.grad.norm()) for name, p in named.items() if p.grad is not None}
    wanted = {name: norm for name, norm in case.about["grad_l2_norms"].items() if norm is not None}
    assert {name for name, norm in norms.items() if norm > 0} <= set(wanted)
    for name, norm in wanted.items():
        assert norms.get(name, 0.0) == pytest.approx(norm, rel=2e-3, abs=1e-5), name


def check_origins(case: GoldenCase, head: nn.Module) -> None:
    """Every parameter that the official initialiser takes from CLIP, or sets, has that value in `head`."""
    clip = {key.removeprefix("clip."): value for key, value in case.state().items()}
    ours = {file_key(key): value for key, value in head.state_dict().items()}
    for name, origin in case.about["origin"].items():
        if origin in ("ones", "zeros"):
            wanted = torch.full_like(ours[name], float(origin == "ones"))
        elif origin.endswith("[0:2]"):
            wanted = clip[origin.removesuffix("[0:2]")][:2]
        else:
            wanted = clip[origin]
        torch.testing.assert_close(ours[name], wanted, atol=0, rtol=0, msg=name)
