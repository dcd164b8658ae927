"""A training step on a GPU: bfloat16 towers over float32 masters, near the CPU's. Skips where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.heads.multi_grained import MultiGrainedHead
from model.training.batches import ShapesPairs, collate
from model.training.config import OptimiserPart
from model.training.optimiser import build_optimisation
from model.training.precision import Precision
from model.training.step import StepResult, inputs_of, take_step
from tests.unit.model.small import small_network

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def step_on(device: torch.device, precision: Precision, folder: Path, *, is_checkpointed: bool = False) -> StepResult:
    network = small_network(folder, "seqTransf")
    network.head.load_state_dict(MultiGrainedHead(network.backbone.embed_dim, 8, 4).state_dict())
    network.to(device).train()
    if is_checkpointed:
        network.backbone.checkpoint_gradients()
    optimisation, _ = build_optimisation(network, OptimiserPart(warmup=0.0, coef_lr=1.0), 10, freeze_layer_num=0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    batch = collate(ShapesPairs(8, 4, 32, 1).load(0, range(8), map), network.backbone, 8, 4)
    batch = batch.pinned() if device.type == "cuda" else batch
    result = take_step(network, optimisation, inputs_of(batch, network, device), 0, precision=precision)
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert "backbone.clip.visual.proj" in moved and "head.local_mat_weight" in moved
    return result


def test_a_step_in_bf16_is_near_the_one_in_fp32(tmp_path: Path) -> None:
    cpu = step_on(torch.device("cpu"), "fp32", tmp_path)
    gpu = step_on(torch.device("cuda"), "fp32", tmp_path)
    assert gpu.loss == pytest.approx(cpu.loss, rel=5e-3)
    half = step_on(torch.device("cuda"), "bf16", tmp_path)
    assert half.loss == pytest.approx(gpu.loss, rel=0.02)
    again = step_on(torch.device("cuda"), "bf16", tmp_path, is_checkpointed=True)
    assert again.loss == pytest.approx(half.loss, rel=1e-2)
