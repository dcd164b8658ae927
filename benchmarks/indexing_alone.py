"""Decoding alone at its best: as many decode children as cores, the longest file first, and nothing encoded.

It knows no index and no model, and imports no torch.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.process_tree import measured
from indexer.defaults import MAX_SEGMENT_S
from indexer.media.sandbox import DecodeSandbox
from indexer.segments import plan_segments
from model.resize import FrameResize


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast something went, and what it took."""

    per_s: float
    """Frames a second: those that were asked for, not those that had to be decoded."""
    cores: float
    """Busy on average."""
    setting: str = ""
    """How it was done."""


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def decode_alone(paths: Sequence[Path], resize: Mapping[str, Any], num_frames: int) -> Speed:
    """Every frame that indexing needs of these files, resized and thrown away; one child a core, one thread a child."""
    waiting: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for path in sorted(paths, key=lambda path: -path.stat().st_size):
        waiting.put(path)
    asked: list[int] = []
    size = FrameResize.from_dict(resize)

    def drain(child: DecodeSandbox) -> None:
        while True:
            try:
                path = waiting.get_nowait()
            except queue.Empty:
                return
            for plan in plan_segments(child.probe(path).duration_s, num_frames, MAX_SEGMENT_S):
                child.read_frames(path, plan.instants_s, size)
                asked.append(len(plan.instants_s))

    with ExitStack() as stack:
        children = [stack.enter_context(DecodeSandbox(threads=1)) for _ in range(num_cores())]
        with ThreadPoolExecutor(len(children)) as pool:
            list(pool.map(lambda child: child.probe(paths[0]), children))  # they start before the clock does
            with measured() as used:
                list(pool.map(drain, children))
    return Speed(sum(asked) / used.wall_s, used.cores, f"{len(children)} children")
