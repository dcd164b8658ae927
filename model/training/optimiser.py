"""The optimiser of a run and its schedule, behind one verb: the papers' own Adam, or AdamW.

It knows parameters by their official names; it knows no loss and no file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from model.checkpoints.official import file_key
from model.training.config import OptimiserPart
from model.training.optim import OfficialAdam, OptimiserSettings, freeze_clip, parameter_groups, warmup_cosine


@dataclass(frozen=True, slots=True)
class Optimisation:
    """An optimiser over named groups, with the schedule of its rates."""

    optimiser: torch.optim.Optimizer
    total_steps: int
    warmup_steps: int
    highest: tuple[float, ...] | None
    """AdamW's highest rate of each group; None for the official optimiser, which has a schedule of its own."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained, in a fixed order."""
        return [parameter for group in self.optimiser.param_groups for parameter in group["params"]]

    def begin(self, step: int) -> dict[str, float]:
        """Set the rates of a step (from 0) and return them by group."""
        groups = self.optimiser.param_groups
        if self.highest is not None:
            factor = warmup_cosine(step, self.total_steps, self.warmup_steps)
            for group, highest in zip(groups, self.highest, strict=True):
                group["lr"] = highest * factor
            rates = [float(group["lr"]) for group in groups]
        else:
            assert isinstance(self.optimiser, OfficialAdam)
            rates = self.optimiser.learning_rates()
        return {str(group["name"]): rate for group, rate in zip(groups, rates, strict=True)}


def build_optimisation(
    network: nn.Module, part: OptimiserPart, total_steps: int, freeze_layer_num: int
) -> tuple[Optimisation, tuple[str, ...]]:
    """Freeze what the run freezes and build the optimiser for the rest; also the official names of what is frozen.

    AdamW decays only matrices, as is usual; the papers' optimiser decays everything but biases.
    """
    named = [(file_key(name), parameter) for name, parameter in network.named_parameters()]
    frozen = freeze_clip(named, freeze_layer_num)
    settings = OptimiserSettings(
        learning_rate=part.learning_rate,
        coef_lr=part.coef_lr,
        weight_decay=part.weight_decay,
        warmup=part.warmup,
    )
    if part.kind == "official":
        groups = parameter_groups(named, settings)
        official = OfficialAdam(groups, total_steps=total_steps, settings=settings)
        return Optimisation(official, total_steps, 0, None), frozen
    groups = _usual_groups(named, settings)
    adamw = torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps)
    highest = tuple(float(group["lr"]) for group in groups)
    return Optimisation(adamw, total_steps, round(part.warmup * total_steps), highest), frozen


def _usual_groups(named: Iterable[tuple[str, nn.Parameter]], settings: OptimiserSettings) -> list[dict[str, Any]]:
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            members.setdefault(("clip." in name, parameter.ndim >= 2), []).append(parameter)
    return [
        {
            "name": ("clip" if is_tower else "head") + ("" if is_decayed else "_undecayed"),
            "params": parameters,
            "lr": settings.learning_rate * (settings.coef_lr if is_tower else 1.0),
            "weight_decay": settings.weight_decay if is_decayed else 0.0,
        }
        for (is_tower, is_decayed), parameters in sorted(members.items())
    ]
