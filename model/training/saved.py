"""What a run leaves in its folder, and how it is found again after a kill.

    out/run.json           the configuration that the run began with
    out/last/              an ordinary model folder, and what resuming needs beside: optimiser.pt, progress.json
    out/best/              an ordinary model folder: the step with the best validation; validation.json has its figures
    out/log.jsonl          model/training/log.py
    out/plot.svg           model/training/plot.py

`last` is written whole beside the old one and then takes its place, so that a kill -9 at any instant leaves one of the
two. Random numbers and the order of the data follow from the seed and the step (model/training/batches.py), so that
the number of the step is all there is to store of them.
"""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import TENSORS_FILE, save_checkpoint
from model.errors import TrainingError
from model.networks import Network
from model.training.config import TrainConfig, differences

RUN_FILE, OPTIMISER_FILE, PROGRESS_FILE, VALIDATION_FILE = (
    "run.json",
    "optimiser.pt",
    "progress.json",
    "validation.json",
)
LOG_FILE, PLOT_FILE = "log.jsonl", "plot.svg"
LAST, BEST = "last", "best"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Best:
    """The best validation so far. figure: text-to-video R@1 as a fraction; -1 before any."""

    step: int = 0
    figure: float = -1.0

    def as_dict(self) -> dict[str, float]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands. step: how many were taken; also where the data goes on."""

    step: int = 0
    total_steps: int = 0
    best: Best = field(default_factory=Best)


class RunFolder:
    """The files of one run below `out`. Only rank 0 writes."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.last, self.best = out / LAST, out / BEST
        self.log_path, self.plot_path = out / LOG_FILE, out / PLOT_FILE

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and keep it to this run, by a lock that goes with the process. Raises: TrainingError."""
        with self._writing():
            self.out.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.out, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TrainingError(
                    f"Another training writes into {self.out}.",
                    "Wait for its end, or name another folder by --out.",
                ) from error
            except OSError:
                pass  # some network drives know no locks: training goes on there without
            yield
        finally:
            os.close(descriptor)

    def begin(self, config: TrainConfig, *, is_fresh: bool) -> None:
        """Make the held folder ready for this configuration; a run that is there goes on unless `is_fresh`.

        Raises: TrainingError where the run there began with another configuration, or the folder can't be written.
        """
        with self._writing():
            if is_fresh:
                self._clear()
            self._mend()
            before = self._read_json(self.out / RUN_FILE)
            if before is None:
                self._clear()
                _write(self.out / RUN_FILE, _as_json({"format": FORMAT, "config": config.as_dict()}))
                return
        changed = differences(before.get("config", {}), config)
        if changed:
            raise TrainingError(
                f"The run in {self.out} began with another configuration: {'; '.join(changed)}.",
                "Set these back, begin anew with --fresh, or name another folder by --out.",
            )

    def progress(self) -> Progress | None:
        """Where the run was saved; None if it never was. Raises: TrainingError for a file that isn't ours."""
        values = self._read_json(self.last / PROGRESS_FILE)
        if values is None:
            return None
        try:
            return Progress(values["step"], values["total_steps"], Best(**values["best"]))
        except (KeyError, TypeError) as error:
            raise TrainingError(f"{self.last / PROGRESS_FILE} lacks {error}.", "Begin anew with --fresh.") from error

    def load_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        """Put the saved state into an optimiser of the same groups. Raises: TrainingError."""
        path = self.last / OPTIMISER_FILE
        try:
            optimiser.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise TrainingError(f"{path} can't be read: {error}.", "Begin anew with --fresh.") from error

    def save_last(self, network: Network, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
        """Write `last` whole, then let it take the old one's place. Raises: TrainingError, and the old one stays."""
        new, old = self.out / f"{LAST}.new", self.out / f"{LAST}.old"
        with self._writing():
            shutil.rmtree(new, ignore_errors=True)
            save_checkpoint(new, network)
            torch.save(optimiser.state_dict(), new / OPTIMISER_FILE)
            _write(new / PROGRESS_FILE, _as_json(asdict(progress)))
            for name in (TENSORS_FILE, OPTIMISER_FILE):
                _flush(new / name)
            shutil.rmtree(old, ignore_errors=True)
            if self.last.exists():
                self.last.rename(old)
            new.rename(self.last)
            shutil.rmtree(old, ignore_errors=True)

    def save_best(self, network: Network, figures: dict[str, Any]) -> None:
        """Write `best`; each of its files is the new one or the old one. Raises: TrainingError."""
        with self._writing():
            save_checkpoint(self.best, network)
            _write(self.best / VALIDATION_FILE, _as_json(figures))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # torch's writer says RuntimeError where the disk is full
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
            raise TrainingError(
                f"The folder {str(self.out)!r} can't be written: {reason}.",
                "Make room, or name another by --out; what was saved before is still there.",
            ) from error

    def _mend(self) -> None:
        """After a kill between the two renames of `save_last`: the old one comes back."""
        old = self.out / f"{LAST}.old"
        if not self.last.exists() and old.exists():
            old.rename(self.last)

    def _clear(self) -> None:
        """Remove what a run writes, and nothing else that may lie there."""
        for folder in (self.last, self.best, self.out / f"{LAST}.old", self.out / f"{LAST}.new"):
            if folder.exists():
                shutil.rmtree(folder)
        for path in (self.out / RUN_FILE, self.log_path, self.plot_path):
            path.unlink(missing_ok=True)

    def _read_json(self, path: Path) -> dict[str, Any] | None:
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise TrainingError(f"{path} can't be read: {error}.", "Begin anew with --fresh.") from error
        if not isinstance(values, dict):
            raise TrainingError(f"{path} isn't a run's file.", "Begin anew with --fresh.")
        return values


def _as_json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    _flush(partial)
    partial.replace(path)


def _flush(path: Path) -> None:
    """Onto the disk itself, so that a power cut doesn't leave an empty file under a good name."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
