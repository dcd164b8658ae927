"""The optimiser that CLIP4Clip and X-CLIP were trained with, its schedule, and what each parameter gets of it.

It is Adam without the correction of its early averages, with the decay added to the update, and with every
tensor's own gradient clipped once more than the training loop clips them all. Parameters come with their official
names (`model.checkpoints.official.file_key`): a rate and a decay go by name. It knows no network and no data.
Source: the training code of CLIP4Clip (508ffa3) and X-CLIP (6b5344f); arXiv:2104.08860, arXiv:2207.07285.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.errors import InvalidTraining

MAX_LOGIT_SCALE = math.log(100.0)
"""Scores are never scaled by more than 100."""

_CLIP = "clip."
_ALWAYS_TRAINED = ("ln_final.", "text_projection", "logit_scale", "visual.ln_post.", "visual.proj")
_BLOCKS = ("transformer.resblocks.", "visual.transformer.resblocks.")


@dataclass(frozen=True, slots=True)
class OptimiserSettings:
    """The papers' numbers. Rates are per step."""

    learning_rate: float = 1e-4
    """The highest rate of the temporal encoder and the head."""
    coef_lr: float = 1e-3
    """CLIP's towers have the rate learning_rate * coef_lr."""
    weight_decay: float = 0.2
    """Per unit of learning rate."""
    warmup: float = 0.1
    """As a fraction of all steps."""
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    max_tensor_norm: float = 1.0
    """The gradient of a single tensor is clipped to this L2 norm, besides the clipping of all in the loop."""


def rise_then_cosine(progress: float, warmup: float) -> float:
    """The factor on the learning rate when a fraction `progress` of all steps is done; the first step gets 0.

    The cosine isn't shifted to where the rise ends: with warmup 0.1 it starts at 0.976. After the last step it
    stays at 0, where the official one would rise again.
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def warmup_cosine(step: int, total_steps: int, warmup_steps: int) -> float:
    """The factor on the learning rate at a step (from 0): a linear rise, then half a cosine down to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


class OfficialAdam(torch.optim.Optimizer):
    """p -= lr_t * (m / (sqrt(v) + eps) + weight_decay * p), lr_t by `rise_then_cosine` over `total_steps`.

    A group may have its own `lr` (the highest) and `weight_decay`; `lr` is never written to. Each tensor counts its
    own steps: one without a gradient stands still. State and arithmetic have the parameter's dtype. Gradients are
    read, not changed. Raises: ValueError for numbers out of range; RuntimeError for a sparse gradient.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        total_steps: int,
        settings: OptimiserSettings | None = None,
    ) -> None:
        chosen = settings or OptimiserSettings()
        if total_steps < 1:
            raise ValueError(f"total_steps is {total_steps}; at least 1 is needed")
        if not 0.0 <= chosen.warmup < 1.0:
            raise ValueError(f"warmup is {chosen.warmup}; a fraction of the steps, below 1, is needed")
        if not all(0.0 <= beta < 1.0 for beta in chosen.betas):
            raise ValueError(f"betas are {chosen.betas}; both must be at least 0 and below 1")
        if min(chosen.learning_rate, chosen.weight_decay) < 0.0 or min(chosen.eps, chosen.max_tensor_norm) <= 0.0:
            raise ValueError(f"a rate or a decay below 0, or an eps or norm that isn't above it: {chosen}")
        defaults = {
            "lr": chosen.learning_rate,
            "weight_decay": chosen.weight_decay,
            "total_steps": total_steps,
            "warmup": chosen.warmup,
            "betas": chosen.betas,
            "eps": chosen.eps,
            "max_tensor_norm": chosen.max_tensor_norm,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient; with a closure, after it was run, and return its loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def learning_rates(self) -> list[float]:
        """What each group's next step will be multiplied by, for the log."""
        return [
            self._rate(group, max((self._steps(p) for p in group["params"]), default=0)) for group in self.param_groups
        ]

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if gradient.is_sparse:
            raise RuntimeError("a sparse gradient can't be used")
        state = self.state[parameter]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
        norm = torch.linalg.vector_norm(gradient)
        gradient = gradient * (group["max_tensor_norm"] / (norm + 1e-6)).clamp(max=1.0)
        beta_mean, beta_square = group["betas"]
        state["mean"].mul_(beta_mean).add_(gradient, alpha=1.0 - beta_mean)
        state["square"].mul_(beta_square).addcmul_(gradient, gradient, value=1.0 - beta_square)
        update = state["mean"] / (state["square"].sqrt() + group["eps"])
        if group["weight_decay"]:
            update.add_(parameter, alpha=group["weight_decay"])
        parameter.add_(update, alpha=-self._rate(group, state["step"]))
        state["step"] += 1

    def _steps(self, parameter: Tensor) -> int:
        return int(self.state[parameter]["step"]) if parameter in self.state else 0

    @staticmethod
    def _rate(group: dict[str, Any], step: int) -> float:
        return float(group["lr"]) * rise_then_cosine(step / group["total_steps"], group["warmup"])


def clip_and_step(optimiser: torch.optim.Optimizer, logit_scale: Tensor, max_grad_norm: float = 1.0) -> float:
    """One turn of the papers' loop after the backward pass; the L2 norm of all gradients before clipping.

    Clips all gradients together, steps, forgets them, and holds logit_scale at or below ln 100.
    Raises: FloatingPointError, with no parameter changed, if a gradient is NaN or infinite.
    """
    moved = [p for group in optimiser.param_groups for p in group["params"]]
    norm = float(nn.utils.clip_grad_norm_(moved, max_grad_norm))
    if not math.isfinite(norm):
        raise FloatingPointError(f"the norm of the gradients is {norm}")
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    with torch.no_grad():
        logit_scale.clamp_(max=MAX_LOGIT_SCALE)
    return norm


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], settings: OptimiserSettings | None = None
) -> list[dict[str, Any]]:
    """Groups of {"name", "params", "lr", "weight_decay"} of official names, without what is frozen; none is empty.

    A name that holds "clip." has the rate learning_rate * coef_lr (transformerClip has a capital and isn't one); a
    name that holds "bias" has no decay. Norms, embeddings and logit_scale are decayed, as the official code does.
    """
    chosen = settings or OptimiserSettings()
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            members.setdefault((_CLIP in name, "bias" not in name), []).append(parameter)
    return [
        {
            "name": ("clip" if is_tower else "head") + ("" if is_decayed else "_bias"),
            "params": parameters,
            "lr": chosen.learning_rate * (chosen.coef_lr if is_tower else 1.0),
            "weight_decay": chosen.weight_decay if is_decayed else 0.0,
        }
        for (is_tower, is_decayed), parameters in sorted(members.items())
    ]


def freeze_clip(named: Iterable[tuple[str, nn.Parameter]], freeze_layer_num: int) -> tuple[str, ...]:
    """Stop CLIP's stem, and its blocks below `freeze_layer_num`, from training; the official names of what was frozen.

    0 freezes what lies before the blocks (patch convolution, class token, positions, ln_pre, token embedding) and no
    block; -1 freezes nothing. The last norms, both projections and logit_scale always train, and so does
    all that isn't CLIP's. Raises: ValueError below -1; InvalidTraining for a tower without blocks of OpenAI's
    names, which would stand still as a whole.
    """
    if freeze_layer_num < -1:
        raise ValueError(f"freeze_layer_num is {freeze_layer_num}; -1 (nothing) is the least")
    if freeze_layer_num == -1:
        return ()
    towers = [(name, parameter) for name, parameter in named if name.startswith(_CLIP)]
    _refuse_without_blocks([_inner(name) for name, _ in towers])
    frozen = []
    for name, parameter in towers:
        if not _is_trained(name, freeze_layer_num):
            parameter.requires_grad_(False)
            frozen.append(name)
    return tuple(frozen)


def _refuse_without_blocks(names: list[str]) -> None:
    for tower, blocks in zip(("text", "image"), _BLOCKS, strict=True):
        of_tower = [name for name in names if name.startswith("visual.") == (tower == "image")]
        if of_tower and not any(name.startswith(blocks) for name in of_tower):
            raise InvalidTraining(
                f"The {tower} tower has no blocks {blocks}0, 1, ... that freeze_layer_num could count: a ResNet's "
                "or another library's tower would stand still as a whole.",
                "Set [run] freeze_layer_num = -1, which trains everything.",
            )


def _inner(name: str) -> str:
    """Without "clip.", and without "text.", under which open_clip keeps some text towers."""
    return name.removeprefix(_CLIP).removeprefix("text.")


def _is_trained(name: str, freeze_layer_num: int) -> bool:
    inner = _inner(name)
    if inner.startswith(_BLOCKS):
        return int(inner.split("resblocks.", 1)[1].split(".", 1)[0]) >= freeze_layer_num
    return inner.startswith(_ALWAYS_TRAINED)
