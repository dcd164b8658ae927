"""The optimiser and its schedule against the trajectory of the official ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.training.optim import OfficialAdam, OptimiserSettings, rise_then_cosine
from tests.parity.golden import case_names, load_case

RATES = {"a": (1e-2, 0.2), "b": (1e-1, 0.0)}


@pytest.mark.parametrize("name", case_names("optim/bertadam"))
def test_schedule(name: str) -> None:
    for row in load_case(name).about["lr_multiplier"]:
        assert rise_then_cosine(row["x"], row["warmup"]) == pytest.approx(row["mult"], abs=1e-12), row


@pytest.mark.parametrize("name", case_names("optim/bertadam"))
def test_trajectory(name: str) -> None:
    case = load_case(name)
    own = {key: nn.Parameter(case[f"init.{key}"].clone()) for key in RATES}
    groups = [{"params": [own[key]], "lr": lr, "weight_decay": decay} for key, (lr, decay) in RATES.items()]
    optimiser = OfficialAdam(groups, total_steps=10, settings=OptimiserSettings(warmup=0.3))
    num_steps = sum(key.startswith("grad") and key.endswith(".a") for key in case.tensors)
    assert num_steps == 8
    for step in range(num_steps):
        for key, parameter in own.items():
            parameter.grad = case[f"grad{step}.{key}"].clone()
        optimiser.step()
        for key, parameter in own.items():
            gap = float((parameter.detach() - case[f"after{step}.{key}"]).abs().max())
            assert gap <= case.about["tolerance"]["atol"], (step, key, gap)
    assert not torch.equal(own["a"].detach(), case["init.a"])
