"""Encoding alone at its best: frames in memory, the batch and the threads that are fastest; and copying to a GPU alone.

It knows no decoder and no index.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.indexing_alone import Speed, num_cores
from benchmarks.process_tree import measured
from model.checkpoints.folder import save_checkpoint
from model.network import NetworkConfig
from model.registry import build_network, load_model
from model.served_model import ServedModel

CPU_BATCHES = (1, 4, 8)
GPU_BATCHES = (8, 32, 64)
"""Segments in one call."""
TRIED_S = 1.5
"""How long each setting is tried."""


def make_model(folder: Path, *, is_small: bool = False) -> str:
    """ViT-B/32 with random weights, in a folder; its name. is_small: two layers only, to try a benchmark out."""
    import open_clip  # here: processes that only measure start without it

    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    if is_small:
        config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = 2
    torch.manual_seed(0)
    save_checkpoint(folder, build_network(NetworkConfig("xclip", 32, 12, model_cfg=config)).eval())
    return str(folder)


def model_for(name: str, precision: str, device: str) -> ServedModel:
    """A model in a precision. Raises: ValueError where models have no choice of precision."""
    given: dict[str, Any] = {"precision": precision} if has_precisions() else {}
    if precision != "fp32" and not given:
        raise ValueError(f"this version has no precision {precision!r}")
    return load_model(name, device=device, **given)


def has_precisions() -> bool:
    """Whether models have a choice of precision."""
    return "precision" in signature(load_model).parameters


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
