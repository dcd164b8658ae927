"""One training over several processes, one per GPU, started by torchrun: its ranks, and their exchanges of tensors.

Letters: R ranks, N rows of one rank. Each rank encodes its part of the global batch; the loss is that of the whole
batch on every rank, over features gathered from all. Gradients must then equal those of one process with all rows:

- `gather` hands back, for a rank's own rows, the sum of their gradients in all ranks' losses;
- `average_gradients` takes the mean over the ranks. For what lies before the gather (towers, temporal encoder) a rank
  holds R times its own rows' share, so the mean is the sum of all shares. For what lies behind it (head, logit scale)
  every rank holds the whole gradient, and the mean changes nothing.

The official code differs: the backward pass of its gather keeps the rank's own rows without the sum, so that the mean
makes the gradient of towers and temporal encoder R times too small beside the head's. Adam hides that, except in the
clipping of the norm over both. Ours is right, so a run doesn't depend on how many GPUs it has.

The gradients are averaged after the backward pass rather than by DistributedDataParallel: a network is called through
several verbs with the gather between them, where a wrapper's hooks around one forward don't fit; the price is that the
exchange doesn't overlap with the backward pass.

It reads no environment variable: torch.distributed does, as torchrun sets them.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET_FLOATS = 16 * 2**20
"""Gradients are exchanged in buckets of about this many numbers (64 MiB)."""
PATIENCE = datetime.timedelta(hours=4)
"""How long ranks wait for one another: rank 0 validates alone."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which process this is out of how many; the first one writes the files and reports."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def rows(self, batch_size: int) -> range:
        """This rank's rows of a global batch."""
        share = batch_size // self.world
        return range(self.rank * share, (self.rank + 1) * share)


def join_ranks(device_type: str) -> Ranks:
    """Under torchrun join the other processes (NCCL between GPUs, gloo between CPUs); else the one process there is."""
    if dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size(), dist.get_rank())
    if not dist.is_torchelastic_launched():
        return Ranks()
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=PATIENCE)
    return Ranks(dist.get_rank(), dist.get_world_size(), dist.get_node_local_rank())


def leave_ranks() -> None:
    """Undo `join_ranks`; nothing to do for a single process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def gather(ranks: Ranks, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Each tensor (N, ...) -> (R * N, ...), rows in the order of the ranks; gradients flow back to each rank's rows.

    N must be the same on all ranks. With a single process nothing changes.
    """
    if ranks.world == 1:
        return tuple(tensors)
    found: tuple[Tensor, ...] = _Gather.apply(ranks, *tensors)
    return found


def average_gradients(ranks: Ranks, parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the ranks; parameters without one have none on any rank."""
    if ranks.world == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        flat /= ranks.world
        for gradient, part in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


def same_weights(ranks: Ranks, module: nn.Module) -> None:
    """Give every rank the first one's parameters and buffers."""
    if ranks.world > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


def any_rank(ranks: Ranks, flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on any rank; all ranks must ask at the same point."""
    if ranks.world == 1:
        return flag
    highest = torch.tensor(int(flag), device=device)
    dist.all_reduce(highest, op=dist.ReduceOp.MAX)
    return bool(highest.item())


def wait_for_all(ranks: Ranks) -> None:
    """Return when all ranks have come here."""
    if ranks.world > 1:
        dist.barrier()


class _Gather(torch.autograd.Function):
    """One node for all features of a batch, so that every rank exchanges their gradients in the same order."""

    @staticmethod
    def forward(ctx: Any, ranks: Ranks, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.ranks = ranks
        ctx.set_materialize_grads(False)
        found = []
        for tensor in tensors:
            parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(ranks.world)]
            dist.all_gather(parts, tensor.contiguous())
            found.append(torch.cat(parts))
        ctx.mark_non_differentiable(*(tensor for tensor in found if not tensor.is_floating_point()))
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        ranks: Ranks = ctx.ranks
        shares: list[Tensor | None] = []
        for gradient in gradients:
            if gradient is None:
                shares.append(None)
                continue
            total = gradient.contiguous().clone()
            dist.all_reduce(total)
            rows = ranks.rows(len(total))
            shares.append(total[rows.start : rows.stop])
        return (None, *shares)


def _buckets(gradients: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and size + gradient.numel() > BUCKET_FLOATS:
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel()
    if bucket:
        yield bucket
