"""Which kernel scores on this machine: compiled code, or torch where that wasn't built."""

from __future__ import annotations

import torch

from model.kernels import native
from model.kernels.panel import Kernel
from model.kernels.torch_kernel import TorchKernel


def best_kernel(device: torch.device) -> Kernel:
    """The fastest kernel that there is for a model on `device`."""
    return native.load() or TorchKernel()
