"""What a run leaves in its folder, and how it is found again after a kill.

    out/run.json           the configuration that the run started with
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
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from model.checkpoints.folder import save_checkpoint
from model.checkpoints.state_file import DAMAGED, load_failure
from model.errors import InvalidTraining, TrainingError
from model.files import remove_partial, sync, write_atomic
from model.network import Network
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
        if self.out.exists() and not self.out.is_dir():
            raise TrainingError(f"{self.out} is a file; a folder is needed.", "Name another by --out.")
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
                pass  # some network drives have no locks: training goes on there without
            yield
        finally:
            os.close(descriptor)

    def check_fresh(self, config: TrainConfig) -> None:
        """Whether a run may start over here. Raises: InvalidTraining if it would remove what it starts from."""
        start = Path(config.model.start).resolve()
        if {self.last.resolve(), self.best.resolve()} & {start, *start.parents}:
            raise InvalidTraining(
                f"[model] start is {config.model.start}, which --fresh would remove.", "Name another folder by --out."
            )

    def check(self, config: TrainConfig) -> None:
        """Whether a run of this configuration may start or go on in the held folder; nothing in it is removed.

        Raises: TrainingError where the run there started with another configuration, or no run left what lies there.
        """
        before = self._read_json(self.out / RUN_FILE)
        if before is None:
            there = [path.name for path in self._leavings() if path.exists()]
            if there:
                raise TrainingError(
                    f"{self.out} holds {', '.join(there)} and no {RUN_FILE}: it isn't a run that could go on.",
                    "Name another folder by --out; or start over with --fresh, which removes them.",
                )
            return
        with self._writing():
            self._mend()
        began = before.get("config")
        if not isinstance(began, dict) or not all(isinstance(part, dict) for part in began.values()):
            raise TrainingError(f"{self.out / RUN_FILE} isn't a run's file.", "Start over with --fresh.")
        changed = differences(began, config)
        if changed:
            raise TrainingError(
                f"The run in {self.out} started with another configuration: {'; '.join(changed)}.",
                "Set these back, start over with --fresh, or name another folder by --out.",
            )

    def claim(self, config: TrainConfig, *, is_fresh: bool) -> None:
        """Give the checked folder to this run: only now is an old one removed, if `is_fresh`.

        Raises: TrainingError if the folder can't be written.
        """
        with self._writing():
            if is_fresh:
                self._clear()
            if not (self.out / RUN_FILE).exists():
                write_atomic(self.out / RUN_FILE, _as_json({"format": FORMAT, "config": config.as_dict()}))

    def progress(self) -> Progress | None:
        """Where the run was saved; None if it never was. Raises: TrainingError for a file that isn't ours."""
        path = self.last / PROGRESS_FILE
        values = self._read_json(path)
        if values is None:
            return None
        try:
            best = Best(_whole(values["best"]["step"]), float(values["best"]["figure"]))
            progress = Progress(_whole(values["step"]), _whole(values["total_steps"]), best)
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{path} lacks or misstates {error}.", "Start over with --fresh.") from error
        if not best.step <= progress.step <= progress.total_steps:
            raise TrainingError(f"{path} has impossible numbers of steps.", "Start over with --fresh.")
        return progress

    def load_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        """Put the saved state into an optimiser of the same groups. Raises: TrainingError."""
        path = self.last / OPTIMISER_FILE
        try:
            optimiser.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except DAMAGED as error:
            raise TrainingError(
                f"{path} can't be read: {load_failure(error, path)}.", "Start over with --fresh."
            ) from error

    def save_last(self, network: Network, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
        """Write `last` whole, then let it take the old one's place. Raises: TrainingError, and the old one stays."""
        new, old = self.out / f"{LAST}.new", self.out / f"{LAST}.old"
        with self._writing():
            shutil.rmtree(new, ignore_errors=True)
            save_checkpoint(new, network)
            torch.save(optimiser.state_dict(), new / OPTIMISER_FILE)
            write_atomic(new / PROGRESS_FILE, _as_json(asdict(progress)))
            sync(new / OPTIMISER_FILE)
            sync(new)
            shutil.rmtree(old, ignore_errors=True)
            if self.last.exists():
                self.last.rename(old)
            new.rename(self.last)
            sync(self.out)
            shutil.rmtree(old, ignore_errors=True)

    def save_best(self, network: Network, figures: dict[str, Any]) -> None:
        """Write `best`; each of its files is the new one or the old one. Raises: TrainingError."""
        with self._writing():
            remove_partial(self.best)
            save_checkpoint(self.best, network)
            write_atomic(self.best / VALIDATION_FILE, _as_json(figures))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError where the disk is full
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

    def save_plot(self, svg: str) -> None:
        """Write the plot. Raises: TrainingError."""
        with self._writing():
            write_atomic(self.plot_path, svg.encode())

    def _leavings(self) -> list[Path]:
        """What a run writes, its configuration last."""
        folders = [self.last, self.best, self.out / f"{LAST}.old", self.out / f"{LAST}.new"]
        return [*folders, self.log_path, self.plot_path, self.out / RUN_FILE]

    def _clear(self) -> None:
        """Remove what a run writes, and nothing else that may lie there."""
        for path in self._leavings():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _read_json(self, path: Path) -> dict[str, Any] | None:
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise TrainingError(f"{path} can't be read: {error}.", "Start over with --fresh.") from error
        if not isinstance(values, dict):
            raise TrainingError(f"{path} isn't a run's file.", "Start over with --fresh.")
        return values


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} for a number of steps")
    return value


def _as_json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
