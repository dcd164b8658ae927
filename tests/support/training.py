"""Small trainings: a start whose steps take milliseconds, the real `vidgrain train` over it, and what its log says."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from model.checkpoints.folder import save_checkpoint
from model.training.log import read_log
from tests.support.server import ROOT, command, environment
from tests.unit.model.small import small_network

BATCH_SIZE = 8


def write_start(folder: Path) -> Path:
    """A model folder of thin transformer towers (32 pixels, W 8, F 4) with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(folder / "start", small_network(folder, "seqTransf"))
    return folder / "start"


def write_config(file: Path, start: Path, **run: Any) -> Path:
    """A configuration on drawn shapes; `run` adds to, or replaces, its [run]."""
    values = {
        "steps": 40,
        "batch_size": BATCH_SIZE,
        "precision": "fp32",
        "validate_every": 20,
        "save_every": 3,
        "log_every": 1,
        "workers": 2,
        "device": "cpu",
        "seed": 5,
    } | run
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    file.write_text(
        f"[model]\nstart = {_toml(str(start))}\n[optimiser]\nlearning_rate = 1e-3\ncoef_lr = 0.1\n[run]\n"
        + "\n".join(lines)
        + "\n"
    )
    return file


def start_training(config: Path, out: Path, *more: str, launcher: list[str] | None = None) -> subprocess.Popen[bytes]:
    """`vidgrain train` in a process of its own; what it says goes to a file beside `out`."""
    with out.with_suffix(".said").open("ab") as said:
        return subprocess.Popen(
            [*(launcher or []), *command("train", "--config", str(config), "--out", str(out), *more)],
            cwd=ROOT,
            env=environment(torch_threads=1),
            stdout=said,
            stderr=said,
        )


def losses(out: Path) -> list[tuple[int, float]]:
    """(step, loss) of every line that has one, in the log's order."""
    return [(line["step"], line["loss"]) for line in read_log(out / "log.jsonl") if line["event"] == "step_done"]


def num_lines(out: Path) -> int:
    """Lines of the log so far."""
    log = out / "log.jsonl"
    return len(log.read_bytes().splitlines()) if log.is_file() else 0


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
