"""The papers' claims on drawn shapes: which model ranks best under one budget, and what improves on X-CLIP.

    python -m benchmarks.claims --out DIR             everything, some four hours on two cores; goes on where it stopped
    python -m benchmarks.claims --out DIR --quick     the same ways at sizes that say nothing, in a minute
    python -m benchmarks.claims --out DIR --table     what is there, as Markdown (--json: as JSON)
    python -m benchmarks.claims --out DIR --rates     two other learning rates for three models

Training every model from pixels costs more than two cores have for dozens of runs, so all share a start: a small CLIP
trained on still frames (claims_start.py), whose convolutions are then frozen and whose last feature maps of a fixed
pool of clips are stored once (claims_data.py). From there each run trains the attention pool, the text tower,
the temporal encoder and the head (claims_run.py). Start, pool and held-out clips are the same for all runs; a
seed moves the batches and what a head starts at random. One JSON file per run: a run that is done isn't run again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.claims_data import sample_pool, write_items, write_pool
from benchmarks.claims_models import CONTESTANTS
from benchmarks.claims_run import RunSettings, run
from benchmarks.claims_start import StartTraining, feature_maps, load_start, train_start
from benchmarks.claims_table import as_json, as_markdown
from benchmarks.machine import describe_machine
from model.datasets.shapes import HELD_OUT_SEED, Item, held_out

POOL_SEED = 11
RATES = (1e-3, 2e-3)
"""Tried beside the rate of every run."""
RATE_MODELS = ("clip4clip-transf", "clip2video", "xclip")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything. held_out and validation: numbers of mixed clips and of pairs of twins."""

    start: StartTraining = field(default_factory=StartTraining)
    run: RunSettings = field(default_factory=RunSettings)
    pool_clips: int = 32_768
    held_out: tuple[int, int] = (500, 250)
    validation: tuple[int, int] = (200, 100)
    seeds: tuple[int, ...] = (1, 2, 3)


QUICK = Sizes(
    start=StartTraining(steps=2, batch_size=8),
    run=RunSettings(steps=2, batch_size=8, warmup_steps=1),
    pool_clips=64,
    held_out=(12, 6),
    validation=(6, 3),
    seeds=(1, 2),
)


@dataclass(frozen=True, slots=True)
class Task:
    """One run: whose, with which seed and budget, and the name of its result."""

    name: str
    contestant: str
    seed: int
    settings: RunSettings


def plan(sizes: Sizes, names: Sequence[str]) -> Iterator[Task]:
    """Every run, seed by seed, the table of models before that of variants."""
    for table in ("models", "variants"):
        for seed in sizes.seeds:
            for name in names:
                if CONTESTANTS[name].table == table:
                    yield Task(f"{name}-seed{seed}", name, seed, sizes.run)


def plan_rates(sizes: Sizes) -> Iterator[Task]:
    """The runs that a learning rate is chosen by."""
    for rate in RATES:
        for name in RATE_MODELS:
            yield Task(f"rate-{rate:g}-{name}", name, 1, replace(sizes.run, learning_rate=rate))


def prepare(out: Path, sizes: Sizes, tasks: Sequence[Task]) -> None:
    """The start and the clips that the tasks need, made unless they are there."""
    start = out / "start.safetensors"
    if not start.exists():
        train_start(start, sizes.start, _tell)
    backbone = load_start(start)
    maps_of = feature_maps(backbone)
    places = sample_pool(sizes.pool_clips, POOL_SEED)
    for num_frames in sorted({CONTESTANTS[task.contestant].num_frames for task in tasks}):
        for name, items in _exams(sizes).items():
            write_items(out / f"{name}-{num_frames}", items, num_frames, backbone, maps_of)
        write_pool(out / f"pool-{num_frames}", places, num_frames, backbone, maps_of, POOL_SEED)
        _tell(f"clips of {num_frames} frames are there")


def run_task(out: Path, sizes: Sizes, task: Task) -> None:
    """Run it and write its result, unless that is there."""
    file = out / "runs" / f"{task.name}.json"
    if file.exists():
        return
    contestant = CONTESTANTS[task.contestant]
    exams = {name: (out / f"{name}-{contestant.num_frames}", items) for name, items in _exams(sizes).items()}
    pool = out / f"pool-{contestant.num_frames}"
    found = run(contestant, task.settings, task.seed, out / "start.safetensors", pool, exams, _tell)
    result = {"contestant": task.contestant, "table": contestant.table, **found, "machine": describe_machine()}
    file.parent.mkdir(exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.rename(file)
    first = result["exams"]["held_out"]["all"]["text_to_video"]["r1"]
    _tell(f"{task.name}: text-to-video R@1 {first:.3f}, {result['train_s']:.0f} s")


def results(out: Path) -> list[dict[str, Any]]:
    """What the runs left, those of `--rates` too, each under its "name"."""
    files = sorted((out / "runs").glob("*.json"))
    return [{"name": file.stem, **json.loads(file.read_text(encoding="utf-8"))} for file in files]


def run_all(out: Path, sizes: Sizes, tasks: Sequence[Task], workers: int) -> None:
    """Prepare, then run what is missing: here, or in as many processes of one thread each."""
    prepare(out, sizes, tasks)
    if workers <= 1:
        for task in tasks:
            run_task(out, sizes, task)
        return
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        for done in [pool.submit(run_task, out, sizes, task) for task in tasks]:
            done.result()


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of start, clips and results")
    parser.add_argument("--quick", action="store_true", help="sizes that say nothing, to see that it works")
    parser.add_argument("--table", action="store_true", help="run nothing, print what is there")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rates", action="store_true", help="run what the learning rate is chosen by")
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--workers", type=int, default=2, help="runs beside one another, one thread each")
    chosen = parser.parse_args(arguments)
    sizes = QUICK if chosen.quick else Sizes()
    sizes = replace(sizes, seeds=tuple(chosen.seeds)) if chosen.seeds else sizes
    if not chosen.table:
        tasks = list(plan_rates(sizes) if chosen.rates else plan(sizes, chosen.only))
        run_all(chosen.out, sizes, tasks, chosen.workers)
    found = results(chosen.out)
    if chosen.json:
        json.dump(as_json(found), sys.stdout, indent=1)
        print()
    else:
        print(as_markdown(found))


def _exams(sizes: Sizes) -> dict[str, list[Item]]:
    return {
        "held_out": held_out(*sizes.held_out),
        "validation": held_out(*sizes.validation, seed=HELD_OUT_SEED + 1),
    }


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
