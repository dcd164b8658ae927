"""One rank of a small training, as the main function of a process: gradients and weights go to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from model.checkpoints.official import file_key
from model.families import family_of
from model.heads.clip2video import Clip2VideoConfig
from model.heads.tight import TightConfig
from model.network import Network, NetworkConfig
from model.temporal import TemporalConfig
from model.training.config import OptimiserPart
from model.training.distributed import Ranks, average_gradients, same_weights
from model.training.optimiser import build_optimisation
from model.training.step import Inputs, batch_loss, take_step
from tests.unit.model.small import small_backbone, small_network

KINDS = ("xclip", "clip4clip", "clip2video", "tight")
BATCH, FRAMES, WORDS, SIDE = 6, 4, 8, 32
STEPS = 3
CLIPPED = 0.02


def build(kind: str, folder: Path) -> Network:
    """A small network with every part that a kind has; the same on each call. Nothing in it is random in training."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(11)
    if kind == "xclip":
        return small_network(folder, "seqTransf", WORDS, FRAMES)
    backbone = small_backbone(folder)
    heads: dict[str, Any] = {
        "clip2video": Clip2VideoConfig(backbone.embed_dim, layers=1, heads=2, num_positions=16),
        "tight": TightConfig(layers=1, heads=2, num_positions=16),
    }
    temporal = TemporalConfig("seqLSTM")
    network = family_of(kind)(backbone, NetworkConfig(kind, WORDS, FRAMES, temporal, heads.get(kind)))
    for module in network.head.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def rows_of(ranks: Ranks, step: int) -> Inputs:
    """This rank's rows of a global batch, with segments and sentences of unequal lengths."""
    made = torch.Generator().manual_seed(100 + step)
    counts = torch.randint(1, FRAMES + 1, (BATCH,), generator=made)
    mask = torch.arange(FRAMES)[None] < counts[:, None]
    pixels = torch.randn(BATCH, FRAMES, 3, SIDE, SIDE, generator=made) * mask[..., None, None, None]
    lengths = torch.randint(3, WORDS + 1, (BATCH,), generator=made)
    words = torch.arange(WORDS)[None] < lengths[:, None]
    ids = torch.randint(1, 500, (BATCH, WORDS), generator=made) * words
    ids[:, 0] = 518
    ids[torch.arange(BATCH), lengths - 1] = 519
    rows = slice(ranks.rows(BATCH).start, ranks.rows(BATCH).stop)
    return Inputs(pixels[rows], mask[rows], ids[rows], words[rows])


def train(ranks: Ranks, kind: str, folder: Path) -> dict[str, torch.Tensor]:
    """Gradients of the first batch, then the weights after some steps, under names of the files."""
    network = build(kind, folder).train()
    same_weights(ranks, network)
    part = OptimiserPart(learning_rate=1e-3, coef_lr=1.0, warmup=0.0, max_grad_norm=CLIPPED)
    optimisation, _ = build_optimisation(network, part, STEPS + 1, freeze_layer_num=0)
    batch_loss(network, rows_of(ranks, 0), ranks, "fp32").backward()  # type: ignore[no-untyped-call]
    average_gradients(ranks, optimisation.parameters)
    found = {
        f"grad.{file_key(name)}": parameter.grad.clone()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }
    optimisation.optimiser.zero_grad(set_to_none=True)
    for step in range(STEPS):
        result = take_step(network, optimisation, rows_of(ranks, step), step, ranks=ranks, max_grad_norm=CLIPPED)
        found[f"loss.{step}"] = torch.tensor(result.loss)
        found[f"norm.{step}"] = torch.tensor(result.grad_norm)
    return found | {f"weight.{file_key(name)}": value.clone() for name, value in network.state_dict().items()}


def main(rank: int, world: int, folder: Path) -> None:
    """Join the others by a file, train each kind, write what came of it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    try:
        ranks = Ranks(rank, world, rank)
        for kind in KINDS:
            torch.save(train(ranks, kind, folder / f"{kind}{rank}"), folder / f"{kind}-{rank}.pt")
    finally:
        dist.destroy_process_group()
