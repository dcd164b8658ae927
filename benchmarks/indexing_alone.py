"""What indexing consists of, each part alone: decoding with nothing encoded, encoding frames that are in memory.

Both are looked for at their best: as many decode children as cores, the longest file first; the batch and the threads
that encode fastest. They know no index.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.process_tree import measured
from indexer.defaults import MAX_SEGMENT_S
from indexer.media.sandbox import DecodeSandbox
from indexer.segments import plan_segments
from model.registry import load_model
from model.resize import FrameResize
from model.served_model import ServedModel

CPU_BATCHES = (1, 4, 8)
GPU_BATCHES = (8, 32, 64)
"""Segments in one call."""
TRIED_S = 1.5
"""How long each setting is tried."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast something went, and what it took."""

    per_s: float
    """Frames a second: those that were asked for, not those that had to be decoded."""
    cores: float
    """Busy on average."""
    setting: str = ""
    """How it was fastest."""


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def sandbox(threads: int | None) -> DecodeSandbox:
    """A decode child with so many codec threads, None for its own choice."""
    return DecodeSandbox(**({"threads": threads} if "threads" in signature(DecodeSandbox).parameters else {}))


def model_for(name: str, precision: str, device: str) -> ServedModel:
    """A model in a precision. Raises: ValueError where models have no choice of precision."""
    given: dict[str, Any] = {"precision": precision} if has_precisions() else {}
    if precision != "fp32" and not given:
        raise ValueError(f"this version has no precision {precision!r}")
    return load_model(name, device=device, **given)


def has_precisions() -> bool:
    """Whether models have a choice of precision."""
    return "precision" in signature(load_model).parameters


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
        children = [stack.enter_context(sandbox(1)) for _ in range(num_cores())]
        with ThreadPoolExecutor(len(children)) as pool:
            list(pool.map(lambda child: child.probe(paths[0]), children))  # they start before the clock does
            with measured() as used:
                list(pool.map(drain, children))
    return Speed(sum(asked) / used.wall_s, used.cores, f"{len(children)} children")


def encode_alone(name: str, precision: str, device: str, seconds: float) -> Speed:
    """The fastest setting's rate over `seconds`, frames already of the model's size."""
    model = model_for(name, precision, device)
    cores = num_cores()
    if model.device.type == "cuda":
        settings = [(1, batch, cores) for batch in GPU_BATCHES]
    else:
        sharing = {(cores, 1), (1, cores)}
        settings = [(callers, batch, threads) for callers, threads in sorted(sharing) for batch in CPU_BATCHES]
    encode_rate(model, 1, 1, cores, 0.0)
    tried = {setting: encode_rate(model, *setting, min(TRIED_S, seconds)) for setting in settings}
    best = max(tried, key=lambda setting: tried[setting])
    with measured() as used:
        per_s = encode_rate(model, *best, seconds)
    callers, batch, threads = best
    return Speed(per_s, used.cores, f"{callers} x {threads} threads, {batch} segments a call")


def encode_rate(model: ServedModel, callers: int, batch: int, threads: int, seconds: float) -> float:
    """Frames a second of callers side by side, each with so many torch threads; each makes at least one call."""
    side, slots = model.spec.image_size, model.spec.num_frames
    random = np.random.default_rng(0)
    segments = [random.integers(0, 256, (slots, side, side, 3), dtype=np.uint8) for _ in range(batch)]
    before, start = torch.get_num_threads(), threading.Barrier(callers)

    def call(_: int) -> float:
        torch.set_num_threads(threads)  # holds for the calling thread
        num_frames = 0
        start.wait()
        began_s = time.perf_counter()
        while not num_frames or time.perf_counter() - began_s < seconds:
            model.encode_video(segments).pooled.cpu()  # the copy waits for the device
            num_frames += batch * slots
        return num_frames / (time.perf_counter() - began_s)

    with ThreadPoolExecutor(callers) as pool:
        rates = list(pool.map(call, range(callers)))
    torch.set_num_threads(before)
    return sum(rates)


def copy_rate(model: ServedModel, batch: int, seconds: float) -> float:
    """Frames a second from page-locked memory to the GPU."""
    side, slots = model.spec.image_size, model.spec.num_frames
    frames = torch.zeros(batch * slots, side, side, 3, dtype=torch.uint8).pin_memory()
    began_s, count = time.perf_counter(), 0
    while time.perf_counter() - began_s < seconds:
        frames.to(model.device)
        torch.cuda.synchronize(model.device)
        count += len(frames)
    return count / (time.perf_counter() - began_s)
