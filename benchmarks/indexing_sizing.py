"""Hours of video that a machine indexes in an hour, by model, precision and device, and the memory it takes: a table.

One run of each over the mixed 720p videos; it makes the table of docs/operations.md, from which a user plans hardware.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from benchmarks.apart import apart
from benchmarks.indexing_alone import num_cores
from benchmarks.indexing_clips import Library
from benchmarks.indexing_encode import has_precisions
from benchmarks.indexing_whole import WholeRun, Work, index_whole
from benchmarks.machine import describe_machine


@dataclass(frozen=True, slots=True)
class Sized:
    """One run, and what made it."""

    model: str
    precision: str
    device: str
    run: WholeRun
    cores: int
    """That the machine has."""


def sizing(library: Library, models: Mapping[str, str]) -> str:
    """Measure every model in every precision and on every device, and print the table. models: name -> folder."""
    found = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for name, folder in models.items():
            for precision in ("fp32", "bf16") if has_precisions() and name != "tiny" else ("fp32",):
                run = apart(index_whole, Work(library.mixed, folder, precision, device))
                found.append(Sized(name, precision, device, run, num_cores()))
    machine = ", ".join(f"{name} {value}" for name, value in describe_machine().items() if value is not None)
    return f"{machine}\n\n{table(found)}"


def table(found: Sequence[Sized]) -> str:
    """The Markdown of docs/operations.md: an hour of video is an hour of the file's own time."""
    lines = [
        "| model | where | hours of 720p video an hour | per core | cores busy | memory, worker and children |",
        "|---|---|---|---|---|---|",
    ]
    for one in found:
        where = f"{one.cores} cores" if one.device == "cpu" else f"GPU beside {one.cores} cores"
        speed = one.run.times_real_time
        lines.append(
            f"| {one.model}, {one.precision} | {where} | {speed:.3g} | {speed / one.cores:.3g} "
            f"| {one.run.used.cores:.1f} | {one.run.used.peak.best / 2**20:,.0f} MiB |"
        )
    return "\n".join(lines)
