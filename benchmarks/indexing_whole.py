"""Indexing end to end through VideoIndex and its worker, beside decoding alone and encoding alone.

Each measurement has a process of its own, so that none inherits another's threads and memory. Models have random
weights of the real size, which cost what trained ones cost.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.apart import apart
from benchmarks.indexing_alone import Speed, decode_alone, num_cores
from benchmarks.indexing_clips import Library
from benchmarks.indexing_encode import GPU_BATCHES, copy_rate, encode_alone, has_precisions, model_for
from benchmarks.process_tree import Used, measured, memory_of_tree
from benchmarks.report import Row, Spread, at_least
from benchmarks.stages import sampled
from indexer.config import IndexConfig
from indexer.defaults import MAX_SEGMENT_S
from indexer.index import VideoIndex
from indexer.segments import plan_segments

LOOK_EVERY_S = 0.1
"""How often the benchmark looks whether all jobs have ended."""
MEMORY_EVERY_S = 0.5
STAGES = {"encode": ("", "encode_video"), "publish": ("jobs.py", "publish")}
WAITING = "wait for frames"


@dataclass(frozen=True, slots=True)
class Work:
    """What a run is to index, and how."""

    paths: Sequence[Path]
    model: str
    precision: str = "fp32"
    device: str = "cpu"
    max_segment_s: float = MAX_SEGMENT_S


@dataclass(frozen=True, slots=True)
class WholeRun:
    """One run of the worker over all files."""

    num_videos: int
    seconds: float
    """Of video."""
    num_frames: int
    """Asked of the decoder."""
    used: Used
    shares: Mapping[str, float]
    """Of the time, for each stage."""

    @property
    def per_s(self) -> float:
        """Frames a second."""
        return self.num_frames / self.used.wall_s

    @property
    def times_real_time(self) -> float:
        """Seconds of video in a second."""
        return self.seconds / self.used.wall_s


def index_whole(work: Work) -> WholeRun:
    """Index the files in a fresh data folder; adding them and loading the model aren't counted.

    Raises: RuntimeError if a file isn't indexed.
    """
    model = model_for(work.model, work.precision, work.device)
    config = IndexConfig(max_segment_s=work.max_segment_s)
    with tempfile.TemporaryDirectory() as folder, VideoIndex.open(Path(folder), model, config) as index:
        for path in work.paths:
            index.add(path)
        side = model.spec.image_size
        model.encode_video([np.zeros((1, side, side, 3), np.uint8)])  # libraries load their parts at their first call
        worker = index.worker()
        with sampled(STAGES, WAITING) as stages, measured(MEMORY_EVERY_S) as used:
            run_to_the_end(index, worker.run)
        found = index.list(limit=1)[0]
        assert found, "nothing was added"
        seconds, num_frames = _asked(index, model.spec.num_frames, work.max_segment_s)
    used.peak = max(used.peak, memory_of_tree(), key=lambda memory: memory.best)
    return WholeRun(len(work.paths), seconds, num_frames, used, stages.shares())


def run_to_the_end(index: VideoIndex, run: Callable[[threading.Event], None]) -> None:
    """Run a worker until no job is queued or running. Raises: RuntimeError if one didn't succeed."""
    stop = threading.Event()

    def watch() -> None:
        while any(index.jobs(status=status, limit=1)[0] for status in ("queued", "running")):
            time.sleep(LOOK_EVERY_S)
        stop.set()

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    run(stop)
    watching.join()
    if failed := index.jobs(status="failed", limit=1)[0]:
        raise RuntimeError(f"a video wasn't indexed: {failed[0].error_code}: {failed[0].error_message}")


def whole_rows(library: Library, model: str, name: str, rounds: int, device: str = "cpu") -> list[Row]:
    """The mixed videos: decoding alone, then for each precision encoding alone and all of it, round after round."""
    precisions = ["fp32", "bf16"] if has_precisions() else ["fp32"]
    spec, resize = apart(_spec_of, model)
    decoded: list[Speed] = []
    encoded: dict[str, list[Speed]] = {precision: [] for precision in precisions}
    runs: dict[str, list[WholeRun]] = {precision: [] for precision in precisions}
    for _ in range(rounds):
        decoded.append(apart(decode_alone, library.mixed, resize, spec))
        for precision in precisions:
            encoded[precision].append(apart(encode_alone, model, precision, device, library.sizes.encode_s))
            runs[precision].append(apart(index_whole, Work(library.mixed, model, precision, device)))
    rows: list[Row] = []
    for precision in precisions:
        rows += rows_of(f"{name} {precision}", decoded, encoded[precision], runs[precision])
        if device != "cpu":
            rows += stage_rows(f"{name} {precision}", runs[precision], apart(_copy_rate, model, precision, device))
    return rows


def rows_of(name: str, decoded: Sequence[Speed], encoded: Sequence[Speed], runs: Sequence[WholeRun]) -> list[Row]:
    """The rows of one model in one precision."""
    what = f"{runs[0].num_videos} mixed videos at 720p, {name}"
    rate = Spread.of([run.per_s for run in runs])
    decode, encode = (Spread.of([speed.per_s for speed in speeds]) for speeds in (decoded, encoded))
    roof = min(decode.median, encode.median)
    shared = 1 / (1 / decode.median + 1 / encode.median)
    cores = Spread.of([run.used.cores for run in runs])
    memory = Spread.of([run.used.peak.best / 2**20 for run in runs])
    return [
        Row(
            what,
            rate,
            "frames/s",
            {"decode alone": decode, f"encode alone ({encoded[-1].setting})": encode},
            rate.median / roof,
            at_least(0.9, "ratio"),
        ),
        Row(
            f"{what}: of what both can reach on the same cores",
            rate,
            "frames/s",
            {"1 / (1 / decode + 1 / encode)": shared},
            rate.median / shared,
        ),
        Row(
            f"{what}: cores used",
            cores,
            "cores",
            {
                "of": num_cores(),
                "decode alone": Spread.of([speed.cores for speed in decoded]),
                "encode alone": Spread.of([speed.cores for speed in encoded]),
            },
            cores.median / num_cores(),
        ),
        Row(
            f"{what}: speed",
            Spread.of([run.times_real_time for run in runs]),
            "x real time",
            {"videos a minute": 60 * statistics.median(run.num_videos / run.used.wall_s for run in runs)},
        ),
        Row(f"{what}: most memory of the worker and its children", memory, "MiB"),
    ]


def stage_rows(name: str, runs: Sequence[WholeRun], copied_per_s: float) -> list[Row]:
    """Where the time goes on a GPU. copied_per_s: frames a second that are copied to it and nothing else."""
    videos_per_s = Spread.of([run.num_videos / run.used.wall_s for run in runs])
    rows = [Row(f"{name}: videos", videos_per_s, "videos/s")]
    shares = {stage: Spread.of([run.shares.get(stage, 0.0) for run in runs]) for stage in runs[0].shares}
    shares["copy to the device (by its rate alone)"] = Spread.of([run.per_s / copied_per_s for run in runs])
    return rows + [Row(f"{name}: share of the time, {stage}", share, "") for stage, share in shares.items()]


def clips_rows(library: Library, model: str, name: str, rounds: int) -> list[Row]:
    """Many short clips beside one file that holds the same pictures, cut into segments of the same length."""
    precision = "bf16" if has_precisions() and model != "tiny" else "fp32"
    length_s = float(library.sizes.short_s)
    works = {
        "one file": Work([library.one_file], model, precision, max_segment_s=length_s),
        "clips": Work(library.short, model, precision, max_segment_s=length_s),
    }
    runs: dict[str, list[WholeRun]] = {name: [] for name in works}
    for _ in range(rounds):
        for kind, work in works.items():
            runs[kind].append(apart(index_whole, work))
    clips, one_file = (Spread.of([run.times_real_time for run in runs[kind]]) for kind in ("clips", "one file"))
    return [
        Row(
            f"{len(library.short)} clips of {length_s:g} s, {name} {precision}",
            clips,
            "x real time",
            {"the same in one file": one_file},
            clips.median / one_file.median,
            at_least(0.8, "ratio"),
        )
    ]


def gpu_rows(library: Library, model: str, name: str, rounds: int) -> list[Row]:
    """The mixed videos with the GPU; nothing where there is none."""
    if not torch.cuda.is_available():
        print("no GPU here: that part is left out", file=sys.stderr)
        return []
    return whole_rows(library, model, f"{name} on {torch.cuda.get_device_name()},", rounds, "cuda")


def _spec_of(model: str) -> tuple[int, dict[str, Any]]:
    loaded = model_for(model, "fp32", "cpu")
    return loaded.spec.num_frames, loaded.resize.as_dict()


def _copy_rate(model: str, precision: str, device: str) -> float:
    return copy_rate(model_for(model, precision, device), max(GPU_BATCHES), 1.0)


def _asked(index: VideoIndex, num_frames: int, max_segment_s: float) -> tuple[float, int]:
    """Seconds of video that the index holds, and instants that were read for them."""
    seconds, asked, cursor = 0.0, 0, None
    while True:
        page, cursor = index.list(limit=100, cursor=cursor)
        for video in page:
            assert video.media is not None
            seconds += video.media.duration_s
            asked += num_frames * len(plan_segments(video.media.duration_s, num_frames, max_segment_s))
        if cursor is None:
            return seconds, asked
