"""Which kernel scores on this machine: on the GPU that the model is on, compiled for the CPU, or torch's."""

from __future__ import annotations

import torch

from model.kernels import native
from model.kernels.panel import Kernel
from model.kernels.torch_kernel import TorchKernel


def best_kernel(device: torch.device) -> Kernel:
    """The fastest kernel that there is for a model on `device`."""
    if device.type == "cuda":
        from model.kernels import triton_kernel

        if (on_gpu := triton_kernel.load(device)) is not None:
            return on_gpu
    return native.load() or TorchKernel()
