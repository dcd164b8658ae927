"""Memory of a worker and its decode children over many short clips: what is most, and whether it grows.

Flat means that the median of the last quarter's samples is at most 5 % above that of the second quarter; the first
quarter is left to caches and pools that fill. The bundled model is small, so that what grows isn't hidden by weights.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.apart import apart
from benchmarks.indexing_clips import Library
from benchmarks.indexing_encode import model_for
from benchmarks.indexing_whole import run_to_the_end
from benchmarks.process_tree import Memory, measured, memory_of_tree
from benchmarks.report import Row, at_most
from indexer.index import VideoIndex

NUM_SAMPLES = 40
PEAK_EVERY_S = 0.25
MIB = 2**20


@dataclass(frozen=True, slots=True)
class MemoryRun:
    """What one run took."""

    samples: Sequence[Memory]
    """After every so many videos."""
    peak: Memory
    """The most that was seen, also between them."""
    num_videos: int


def memory_rows(library: Library) -> list[Row]:
    """One run over all the clips, in a process of its own."""
    return rows_of(apart(index_and_sample, library.tiny))


def index_and_sample(paths: Sequence[Path]) -> MemoryRun:
    """Index the clips with the bundled model, and look at the memory NUM_SAMPLES times on the way."""
    samples: list[Memory] = []
    num_published = 0
    every = max(1, len(paths) // NUM_SAMPLES)

    def on_published() -> None:
        nonlocal num_published
        num_published += 1
        if num_published % every == 0:
            samples.append(memory_of_tree())

    with (
        tempfile.TemporaryDirectory() as folder,
        VideoIndex.open(Path(folder), model_for("tiny", "fp32", "cpu")) as index,
    ):
        for path in paths:
            index.add(path)
        with measured(PEAK_EVERY_S) as used:
            run_to_the_end(index, index.worker(on_published=on_published).run)
    return MemoryRun(samples, max(used.peak, *samples, key=lambda memory: memory.best), num_published)


def rows_of(run: MemoryRun) -> list[Row]:
    """The most, and the growth."""
    kind = "resident" if run.peak.pss is None else "proportional"
    what = f"memory of a worker and its children, {run.num_videos:,} clips ({kind})"
    sizes = [sample.best / MIB for sample in run.samples]
    return [
        Row(f"{what}: most", run.peak.best / MIB, "MiB", {"resident": run.peak.rss / MIB}),
        Row(
            f"{what}: at the end",
            sizes[-1],
            "MiB",
            {"second quarter": _second_quarter(sizes), "last quarter": _last_quarter(sizes)},
            growth(sizes),
            at_most(1.05, "ratio"),
        ),
    ]


def growth(sizes: Sequence[float]) -> float:
    """How many times the second quarter's median the last quarter's is. Raises: ValueError for fewer than 4 samples."""
    if len(sizes) < 4:
        raise ValueError(f"{len(sizes)} samples have no quarters")
    return _last_quarter(sizes) / _second_quarter(sizes)


def _second_quarter(sizes: Sequence[float]) -> float:
    return statistics.median(sizes[len(sizes) // 4 : len(sizes) // 2])


def _last_quarter(sizes: Sequence[float]) -> float:
    return statistics.median(sizes[-(len(sizes) // 4) :])
