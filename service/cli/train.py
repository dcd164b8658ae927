"""`vidgrain train`: runs a training configuration with a real decoder; a signal stops it cleanly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from indexer.media.clip_frames import ClipFrames
from indexer.media.pool import DecodePool
from indexer.media.sandbox import SandboxLimits
from model.datasets.frames import FrameReader, FrameRule
from model.errors import InvalidTraining
from model.resize import FrameResize
from model.threads import limit_threads
from model.training.config import TrainConfig
from model.training.run import run_training
from model.training.saved import RunFolder
from model.training.trainer import Outcome
from service.settings import Settings

NAMES_SHOWN = 10
RATES = ("head", "clip")
"""Groups of parameters whose learning rate is printed; those without decay have the same."""


def train(settings: Settings, config: TrainConfig, say: Callable[[str], None], *, is_fresh: bool = False) -> Outcome:
    """Train, or resume, in [run] out. say: prints one line.

    Ctrl-C and SIGTERM stop it after the current step, with everything saved; a second one stops it at once.
    Raises: TrainingError and its kinds, DatasetError, ModelError.
    """
    if not config.run.out:
        raise InvalidTraining("[run] out is needed.", "Name the folder in the file, or by --out.")
    if config.run.device == "auto":
        config = replace(config, run=replace(config.run, device=settings.device))
    limit_threads(settings.torch_threads)
    folder = RunFolder(Path(config.run.out))
    limits = SandboxLimits(settings.decode_timeout_s, settings.decode_memory_bytes)
    with DecodePool(config.run.workers, settings.decoder, limits) as sandboxes, _asked_to_stop() as stop:

        def make_reader(rule: FrameRule, resize: FrameResize) -> FrameReader:
            return ClipFrames(sandboxes, rule, resize=resize)

        def listen(line: Mapping[str, Any]) -> None:
            for text in spoken(line):
                say(text)

        return run_training(config, folder, make_reader, listen, should_stop=stop.is_set, is_fresh=is_fresh)


def spoken(line: Mapping[str, Any]) -> Iterator[str]:
    """A line of the log as text."""
    event, step = line["event"], line["step"]
    if event in ("started", "resumed"):
        yield (
            f"{event} at step {step} of {line['total_steps']} on {line['device']}"
            + (f", {line['processes']} processes" if line["processes"] > 1 else "")
            + f": {line['start']}; W {line['num_words']}, F {line['num_frames']}, "
            f"{line['trained_parameters'] / 1e6:.1f} M parameters train, {line['frozen_tensors']} tensors are frozen"
        )
        for name in ("train", "val"):
            yield from _split_lines(name, line.get(name))
    elif event == "step_done":
        rates = " ".join(
            f"{name} {line['learning_rates'][name]:.1e}" for name in RATES if name in line["learning_rates"]
        )
        yield (
            f"step {step}/{line['total_steps']}  epoch {line['epoch']}  loss {line['loss']:.4f}  "
            f"gradient {line['grad_norm']:.2f}  scale {line['logit_scale']:.1f}  rate {rates}  "
            f"{line['samples_per_s']:.1f} pairs/s"
        )
    elif event == "validated":
        ways = ("text_to_video", "text to video"), ("video_to_text", "video to text")
        figures = "  ".join(
            f"{label}: R@1 {line[way]['r1']:.3f} R@5 {line[way]['r5']:.3f} MnR {line[way]['mnr']:.1f}"
            for way, label in ways
        )
        yield f"validated at step {step}  {figures}" + ("  (best so far)" if line["is_best"] else "")
    elif event == "clip_unreadable":
        yield f"a clip can't be read and was replaced by another: {line['reason']}"
    elif event == "stopped":
        yield f"stopped at step {step} of {line['total_steps']}; run the same command again to resume"


def _split_lines(name: str, facts: Mapping[str, Any] | None) -> Iterator[str]:
    if facts is None:
        return
    yield f"{name}: {facts['clips']:,} clips, {facts['captions']:,} captions"
    if facts["missing"]:
        shown = ", ".join(facts["missing_names"][:NAMES_SHOWN])
        rest = ", ... (all in the log)" if facts["missing"] > NAMES_SHOWN else ""
        yield f"{name}: {facts['missing']} videos are missing: {shown}{rest}"
    if facts["note"]:
        yield f"{name}: {facts['note']}"


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one has its usual effect."""
    stop = threading.Event()
    before: dict[signal.Signals, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()
        restore()

    def restore() -> None:
        for which, handler in before.items():
            signal.signal(which, handler)

    try:
        for which in (signal.SIGINT, signal.SIGTERM):
            before[which] = signal.signal(which, ask)
        yield stop
    finally:
        restore()
