"""In what precision a training step computes: the towers in bfloat16 where asked, all else in float32.

Weights, gradients and the optimiser's state are float32 throughout; autocast makes the low-precision copies as it goes.
bfloat16 has float32's range, so no loss scaling is needed. It knows no network.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

Precision = Literal["bf16", "fp32"]


def towers_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Around the forward pass of the towers, never around the head: bf16 autocast, or nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def attention_for(device: torch.device) -> AbstractContextManager[None]:
    """Around forward and backward: on a CPU the plain attention, elsewhere torch's own choice.

    For the few tokens of a small tower the fused CPU kernel's backward pass costs more than it saves
    (docs/experiments.md). A block that is computed again in the backward pass must find the same kernel there.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
