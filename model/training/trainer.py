"""The loop of a run: steps, log, validation, saving; and going on where a run was broken off.

What it needs is handed in: the network, a source of pairs, a validation. It knows no data set and no command line.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from model.network import Network
from model.training.batches import Batch, Each, PairSource, collate
from model.training.config import TrainConfig
from model.training.distributed import Ranks, any_rank, wait_for_all
from model.training.log import RunLog, read_log
from model.training.optimiser import Optimisation
from model.training.plot import charts_of, svg_of
from model.training.prefetch import made_ahead
from model.training.saved import Best, Progress, RunFolder
from model.training.step import StepResult, inputs_of, take_step
from model.training.validation import Validation


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended in this process."""

    status: Literal["finished", "stopped"]
    """stopped: by request; `vidgrain train` with the same configuration resumes it."""
    progress: Progress
    is_first: bool = True
    """Whether this is the process that reports."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run's lengths in steps; an epoch of data without end is the run."""

    total_steps: int
    steps_per_epoch: int
    validate_every: int
    save_every: int

    @classmethod
    def of(cls, config: TrainConfig, steps_per_epoch: int | None) -> Plan:
        """steps_per_epoch: of the data. Raises: ValueError for epochs of data without end."""
        run = config.run
        if run.steps is not None:
            total = run.steps
        elif run.epochs is not None and steps_per_epoch is not None:
            total = run.epochs * steps_per_epoch
        else:
            raise ValueError("data without end have no epochs; the run's steps are needed")
        epoch = min(total, steps_per_epoch or total)
        validate_every = run.validate_every or epoch
        return cls(total, epoch, validate_every, run.save_every or validate_every)


class Trainer:
    """One run on one device of one process; all ranks run it side by side, the first writes and validates."""

    def __init__(
        self,
        config: TrainConfig,
        plan: Plan,
        network: Network,
        optimisation: Optimisation,
        source: PairSource,
        validate: Validation,
        folder: RunFolder,
        log: RunLog,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self._config, self._plan = config, plan
        self._network, self._optimisation = network, optimisation
        self._source, self._validate = source, validate
        self._folder, self._log = folder, log
        self._device, self._ranks = device, ranks
        self._since, self._reported = 0.0, 0  # when, and at which step, speed was last reported

    def run(self, progress: Progress, should_stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Go on from `progress` to the end, or until should_stop() after a step.

        Raises: TrainingDiverged (what was saved before stays), DatasetError.
        """
        plan, run = self._plan, self._config.run
        self._network.train()
        last_saved = progress.step
        with made_ahead(self._make, progress.step, plan.total_steps, run.workers) as batches:
            self._since, self._reported = time.monotonic(), progress.step
            for batch in batches:
                seed_step(run.seed, progress.step, self._ranks.rank)
                result = take_step(
                    self._network,
                    self._optimisation,
                    inputs_of(batch, self._network, self._device),
                    progress.step,
                    ranks=self._ranks,
                    precision=run.precision,
                    max_grad_norm=self._config.optimiser.max_grad_norm,
                )
                progress = replace(progress, step=progress.step + 1)
                is_last = progress.step == plan.total_steps
                self._report(progress.step, result, is_last)
                if is_last or progress.step % plan.validate_every == 0:
                    progress = self._validated(progress)
                if is_last or progress.step % plan.save_every == 0:
                    self._save(progress)
                    last_saved = progress.step
                if not is_last and any_rank(self._ranks, should_stop(), self._device):
                    if last_saved != progress.step:
                        self._save(progress)
                    self._log.write("stopped", progress.step, total_steps=plan.total_steps)
                    self._draw()
                    return Outcome("stopped", progress, self._ranks.is_first)
        self._log.write("finished", progress.step, best_step=progress.best.step, best_r1=progress.best.figure)
        self._draw()
        return Outcome("finished", progress, self._ranks.is_first)

    def _make(self, step: int, each: Each[int, Any]) -> Batch:
        pairs = self._source.load(step, self._ranks.rows(self._config.run.batch_size), each)
        network = self._network
        batch = collate(pairs, network.backbone, network.num_words, network.num_frames)
        return batch.pinned() if self._device.type == "cuda" else batch

    def _report(self, step: int, result: StepResult, is_last: bool) -> None:
        if step % self._config.run.log_every and not is_last:
            return
        now = time.monotonic()
        speed = (step - self._reported) * self._config.run.batch_size / max(1e-9, now - self._since)
        self._since, self._reported = now, step
        self._log.write(
            "step_done",
            step,
            total_steps=self._plan.total_steps,
            epoch=(step - 1) // self._plan.steps_per_epoch,
            loss=result.loss,
            learning_rates=result.learning_rates,
            grad_norm=result.grad_norm,
            logit_scale=result.logit_scale,
            samples_per_s=round(speed, 2),
        )

    def _validated(self, progress: Progress) -> Progress:
        """Rank 0 validates and keeps the best; the others wait. The clock of samples_per_s doesn't run meanwhile."""
        started = time.monotonic()
        if self._ranks.is_first:
            figures = self._validate(self._network, self._device)
            figure = float(figures["text_to_video"]["r1"])
            is_best = figure > progress.best.figure
            if is_best:
                progress = replace(progress, best=Best(progress.step, figure))
                self._folder.save_best(self._network, {"step": progress.step, **figures})
            self._log.write("validated", progress.step, **figures, is_best=is_best)
            self._draw()
        wait_for_all(self._ranks)
        self._since += time.monotonic() - started
        return progress

    def _save(self, progress: Progress) -> None:
        started = time.monotonic()
        if self._ranks.is_first:
            self._folder.save_last(self._network, self._optimisation.optimiser, progress)
            self._log.write("saved", progress.step)
        wait_for_all(self._ranks)
        self._since += time.monotonic() - started

    def _draw(self) -> None:
        if self._ranks.is_first and self._folder.log_path.is_file():
            charts = charts_of(read_log(self._folder.log_path))
            self._folder.save_plot(svg_of(charts, self._folder.out.name))


def seed_step(seed: int, step: int, rank: int) -> None:
    """Let torch's random numbers of a step (dropout) follow from seed, step and rank: none has to be saved."""
    state = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))
