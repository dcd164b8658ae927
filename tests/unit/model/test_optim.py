"""Parameter groups, freezing, and the parts of the optimiser that no golden number shows."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from model.checkpoints.official import file_key
from model.errors import InvalidTraining
from model.training.optim import (
    MAX_LOGIT_SCALE,
    OfficialAdam,
    OptimiserSettings,
    clip_and_step,
    freeze_clip,
    parameter_groups,
)
from tests.unit.model.small import small_network

NAMES = (
    "clip.visual.conv1.weight",
    "clip.visual.ln_pre.bias",
    "clip.visual.transformer.resblocks.0.ln_1.weight",
    "clip.visual.transformer.resblocks.11.ln_1.bias",
    "clip.transformer.resblocks.2.mlp.c_fc.weight",
    "clip.text.transformer.resblocks.0.ln_1.weight",
    "clip.visual.proj",
    "clip.visual.positional_embedding",
    "clip.logit_scale",
    "transformerClip.resblocks.0.ln_1.weight",
    "transformerClip.resblocks.0.ln_1.bias",
    "global_mat_weight",
)


def some_parameters() -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.ones(2)) for name in NAMES}


def test_groups_go_by_name() -> None:
    named = some_parameters()
    found = {group["name"]: group for group in parameter_groups(named.items())}
    names = {id(parameter): name for name, parameter in named.items()}
    members = {key: {names[id(p)] for p in group["params"]} for key, group in found.items()}
    assert members == {
        "clip": {name for name in NAMES if name.startswith("clip.") and "bias" not in name},
        "clip_bias": {"clip.visual.ln_pre.bias", "clip.visual.transformer.resblocks.11.ln_1.bias"},
        "head": {"transformerClip.resblocks.0.ln_1.weight", "global_mat_weight"},
        "head_bias": {"transformerClip.resblocks.0.ln_1.bias"},
    }
    assert {key: group["lr"] for key, group in found.items()} == pytest.approx(
        {"clip": 1e-7, "clip_bias": 1e-7, "head": 1e-4, "head_bias": 1e-4}
    )
    decay = {key: group["weight_decay"] for key, group in found.items()}
    assert decay == {"clip": 0.2, "clip_bias": 0.0, "head": 0.2, "head_bias": 0.0}


@pytest.mark.parametrize(
    ("freeze_layer_num", "expected"),
    [
        (-1, set()),
        (0, {"clip.visual.conv1.weight", "clip.visual.ln_pre.bias", "clip.visual.positional_embedding"}),
        (3, set(NAMES[:8]) - {"clip.visual.transformer.resblocks.11.ln_1.bias", "clip.visual.proj"}),
    ],
)
def test_freezing(freeze_layer_num: int, expected: set[str]) -> None:
    named = some_parameters()
    assert set(freeze_clip(named.items(), freeze_layer_num)) == expected
    assert {name for name, parameter in named.items() if not parameter.requires_grad} == expected
    assert sum(len(group["params"]) for group in parameter_groups(named.items())) == len(NAMES) - len(expected)


@pytest.mark.parametrize("name", ["clip.visual.layer1.0.conv1.weight", "clip.text.transformer.encoder.layer.0.weight"])
def test_a_tower_that_would_stand_still_as_a_whole_is_refused(name: str) -> None:
    tower = "image" if "visual" in name else "text"
    named = {name: nn.Parameter(torch.ones(1)), **{n: p for n, p in some_parameters().items() if "transformerC" in n}}
    with pytest.raises(InvalidTraining, match=f"The {tower} tower has no blocks") as found:
        freeze_clip(named.items(), 0)
    assert "-1" in found.value.hint and named[name].requires_grad
    assert freeze_clip(named.items(), -1) == ()


def test_freezing_less_than_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="-2"):
        freeze_clip([], -2)


def test_a_network_of_ours_is_frozen_by_its_official_names(tmp_path: Path) -> None:
    network = small_network(tmp_path, "seqTransf")
    named = [(file_key(name), parameter) for name, parameter in network.named_parameters()]
    assert set(freeze_clip(named, 0)) == {
        "clip.positional_embedding",
        "clip.token_embedding.weight",
        "clip.visual.class_embedding",
        "clip.visual.positional_embedding",
        "clip.visual.conv1.weight",
        "clip.visual.ln_pre.weight",
        "clip.visual.ln_pre.bias",
    }
    assert {group["name"] for group in parameter_groups(named)} == {"clip", "clip_bias", "head", "head_bias"}


def step_with(optimiser: OfficialAdam, parameter: nn.Parameter, seed: int) -> None:
    parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    optimiser.step()


def test_a_resumed_optimiser_goes_on_as_if_nothing_happened(tmp_path: Path) -> None:
    first = nn.Parameter(torch.arange(6.0).reshape(2, 3))
    optimiser = OfficialAdam([first], total_steps=8)
    for seed in range(3):
        step_with(optimiser, first, seed)
    torch.save({"optimiser": optimiser.state_dict(), "parameter": first.detach()}, tmp_path / "saved.pt")
    saved = torch.load(tmp_path / "saved.pt", weights_only=True)
    second = nn.Parameter(saved["parameter"].clone())
    resumed = OfficialAdam([second], total_steps=8)
    resumed.load_state_dict(saved["optimiser"])
    assert resumed.learning_rates() == optimiser.learning_rates() != [0.0]
    for seed in range(3, 6):
        step_with(optimiser, first, seed)
        step_with(resumed, second, seed)
    assert torch.equal(first, second)
    assert not torch.equal(second.detach(), saved["parameter"])


def test_the_loop_clips_all_gradients_together_and_holds_the_scale() -> None:
    scale, weight = nn.Parameter(torch.tensor(9.0)), nn.Parameter(torch.zeros(2))
    steps = OfficialAdam([scale, weight], total_steps=4, settings=OptimiserSettings(learning_rate=0.1, warmup=0.0))
    scale.grad, weight.grad = torch.tensor(12.0), torch.tensor([3.0, 4.0])
    assert clip_and_step(steps, scale) == pytest.approx(13.0)
    assert scale.item() == pytest.approx(MAX_LOGIT_SCALE) == pytest.approx(math.log(100.0))
    assert scale.grad is None
    assert weight.grad is None
    # clipped to 3/13 and 4/13: the mean of the first step keeps a tenth of it
    torch.testing.assert_close(steps.state[weight]["mean"], torch.tensor([0.3, 0.4]) / 13.0)


def test_a_broken_gradient_changes_nothing() -> None:
    scale = nn.Parameter(torch.tensor(1.0))
    steps = OfficialAdam([scale], total_steps=4, settings=OptimiserSettings(warmup=0.0))
    scale.grad = torch.tensor(float("inf"))
    with pytest.raises(FloatingPointError, match="inf"):
        clip_and_step(steps, scale)
    assert scale.item() == 1.0
    assert not steps.state


def test_a_parameter_without_gradient_stands_still() -> None:
    moved, still = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimiser = OfficialAdam([moved, still], total_steps=4, settings=OptimiserSettings(warmup=0.0))
    step_with(optimiser, moved, 1)
    assert not torch.equal(moved.detach(), torch.ones(2))
    assert torch.equal(still.detach(), torch.ones(2))
    assert still not in optimiser.state


def test_a_closure_is_run_and_its_loss_returned() -> None:
    parameter = nn.Parameter(torch.ones(1))
    optimiser = OfficialAdam([parameter], total_steps=4, settings=OptimiserSettings(warmup=0.0))

    def closure() -> float:
        loss = (parameter * 2.0).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    assert optimiser.step(closure) == 2.0
    assert parameter.item() < 1.0


@pytest.mark.parametrize(
    ("total_steps", "settings"),
    [
        (0, OptimiserSettings()),
        (1, OptimiserSettings(warmup=1.0)),
        (1, OptimiserSettings(betas=(0.9, 1.0))),
        (1, OptimiserSettings(learning_rate=-1.0)),
        (1, OptimiserSettings(eps=0.0)),
    ],
)
def test_numbers_out_of_range_are_refused(total_steps: int, settings: OptimiserSettings) -> None:
    with pytest.raises(ValueError, match=r"total_steps|warmup|betas|below 0"):
        OfficialAdam([nn.Parameter(torch.ones(1))], total_steps=total_steps, settings=settings)
