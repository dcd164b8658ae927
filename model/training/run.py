"""A configuration -> a run: data, network, optimiser and folder built, joined, and set going where they were left.

Decoding is handed in: model/ knows no decoder. It prints nothing; its log lines go to a listener.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch

from model.errors import InvalidTraining, TrainingError
from model.network import Network
from model.registry import find_device, load_network
from model.training.config import TrainConfig
from model.training.distributed import Ranks, join_ranks, leave_ranks, same_weights, wait_for_all
from model.training.log import Listener, RunLog
from model.training.optimiser import build_optimisation
from model.training.saved import Progress, RunFolder
from model.training.sources import DrawnData, MakeReader, SplitData, open_data
from model.training.start import start_network
from model.training.trainer import Outcome, Plan, Trainer


def run_training(
    config: TrainConfig,
    folder: RunFolder,
    make_reader: MakeReader,
    listener: Listener,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    is_fresh: bool = False,
) -> Outcome:
    """Train, or go on with what `folder` holds of this configuration; under torchrun as one of its processes.

    Of several processes only the first calls the listener. Raises: TrainingError and its kinds, DatasetError, and what
    loading a model raises.
    """
    device = find_device(config.run.device)
    ranks = join_ranks(device.type)
    try:
        if ranks.world > 1 and device.type == "cuda":
            device = torch.device("cuda", ranks.local_rank)
            torch.cuda.set_device(device)
        if config.run.batch_size % ranks.world:
            raise InvalidTraining(
                f"[run] batch_size {config.run.batch_size} can't be shared by {ranks.world} processes."
            )
        log = RunLog(folder.log_path if ranks.is_first else None, listener if ranks.is_first else _say_nothing)
        with folder.held() if ranks.is_first else nullcontext():
            return _run(config, folder, make_reader, log, device, ranks, should_stop, is_fresh)
    finally:
        leave_ranks()


def _run(
    config: TrainConfig,
    folder: RunFolder,
    make_reader: MakeReader,
    log: RunLog,
    device: torch.device,
    ranks: Ranks,
    should_stop: Callable[[], bool],
    is_fresh: bool,
) -> Outcome:
    data = open_data(config)
    if ranks.is_first:
        (folder.check_fresh if is_fresh else folder.check)(config)
    wait_for_all(ranks)
    saved = None if is_fresh else folder.progress()
    if saved is not None and saved.step >= saved.total_steps:
        return Outcome("finished", saved, ranks.is_first)
    network, origin = _network(config, data, folder, saved)
    network.to(device)
    same_weights(ranks, network)
    network.to(memory_format=torch.channels_last)  # convolutions are faster so, on CPUs much
    if config.run.gradient_checkpointing:
        network.backbone.checkpoint_gradients()
    source, validate = data.prepare(config, network, make_reader, log)
    plan = Plan.of(config, source.steps_per_epoch)
    optimisation, frozen = build_optimisation(network, config.optimiser, plan.total_steps, config.run.freeze_layer_num)
    if saved is not None:
        if saved.total_steps != plan.total_steps:
            raise TrainingError(
                f"The run in {folder.out} was of {saved.total_steps} steps, and the data now make {plan.total_steps}.",
                "Clips were added or are missing; start over with --fresh.",
            )
        folder.load_optimiser(optimisation.optimiser)
    if ranks.is_first:  # by now nothing is left that could keep the run from beginning
        folder.claim(config, is_fresh=is_fresh)
        log.cut(saved.step if saved else 0)
    log.write(
        "started" if saved is None else "resumed",
        saved.step if saved else 0,
        start=origin,
        kind=network.kind,
        num_words=network.num_words,
        num_frames=network.num_frames,
        trained_parameters=sum(parameter.numel() for parameter in optimisation.parameters),
        frozen_tensors=len(frozen),
        device=str(device),
        processes=ranks.world,
        total_steps=plan.total_steps,
        steps_per_epoch=plan.steps_per_epoch,
        **data.facts(),
    )
    trainer = Trainer(config, plan, network, optimisation, source, validate, folder, log, device, ranks)
    return trainer.run(saved or Progress(total_steps=plan.total_steps), should_stop)


def _network(
    config: TrainConfig, data: DrawnData | SplitData, folder: RunFolder, saved: Progress | None
) -> tuple[Network, str]:
    if saved is not None:
        return load_network(str(folder.last), masks=None), f"the step {saved.step} that was saved"
    return start_network(config.model, data.num_words, data.num_frames, config.run.seed)


def _say_nothing(line: Mapping[str, Any]) -> None:
    """The listener of all processes but the first."""
