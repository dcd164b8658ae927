"""What a training is told: a TOML file of four parts, and presets that such a file may build on.

    preset = "xclip-msrvtt-1ka"     # optional: what is said here replaces what the preset says
    [model]                         # what is trained, and what it starts from
    [data]                          # what on
    [optimiser]                     # how
    [run]                           # how long, how precisely, and where to

A key or part that isn't known is an error that names it, and so is a value of another kind. It reads TOML; it opens no
model and no data.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from model.errors import InvalidTraining
from model.networks import MaskReading
from model.temporal import TemporalKind
from model.training.checked import check_at_least, checked
from model.training.optim import OptimiserSettings
from model.training.precision import Precision
from model.types import HeadKind

PRESETS = Path(__file__).parent / "presets"

_PAPERS = OptimiserSettings()


@dataclass(frozen=True, slots=True)
class ModelPart:
    """start: a model's name as everywhere (open_clip name, folder, official file, "tiny").

    is_random: only its shape is taken, its weights are random. kind and temporal: None for those of the start; where
    kind, temporal, head (of X-CLIP also W and F) are those of the start, its head's weights are kept, else the head
    starts anew from the text tower, as the papers have it. temporal_heads: None for the width / 64. masks: how padding
    is read while training. head: the head's own switches, such as num_centres of CLIP2Video.
    """

    start: str = "ViT-B-32-quickgelu/openai"
    is_random: bool = False
    kind: HeadKind | None = None
    temporal: TemporalKind | None = None
    temporal_layers: int | None = None
    temporal_heads: int | None = None
    masks: MaskReading = "served"
    head: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DataPart:
    """dataset: "shapes" (drawn, no files) or one of docs/datasets.md, whose files lie in videos and annotations.

    num_words W, num_frames F: None for the dataset's own, of shapes and of your own videos for the start's.
    allow_missing: train although videos are missing; they are named in the log.
    """

    dataset: str = "shapes"
    videos: str | None = None
    annotations: str | None = None
    num_words: int | None = None
    num_frames: int | None = None
    allow_missing: bool = False


@dataclass(frozen=True, slots=True)
class OptimiserPart:
    """kind: the papers' own Adam, or AdamW with a linear rise and half a cosine. learning_rate: the highest, of
    temporal encoder and head; CLIP's is learning_rate * coef_lr. warmup: a fraction of all steps. max_grad_norm: L2, of
    all gradients together.
    """

    kind: Literal["official", "adamw"] = "official"
    learning_rate: float = _PAPERS.learning_rate
    coef_lr: float = _PAPERS.coef_lr
    weight_decay: float = _PAPERS.weight_decay
    warmup: float = _PAPERS.warmup
    max_grad_norm: float = 1.0


@dataclass(frozen=True, slots=True)
class RunPart:
    """out: the folder that the run writes. epochs or steps: how long; of both, steps count. batch_size: pairs per step
    over all GPUs. freeze_layer_num: blocks of CLIP that stay as they are, with its stem; -1 for nothing at all.
    validate_every, save_every: steps; 0 for once an epoch. workers: threads that read clips. device: auto, cpu, cuda,
    cuda:1.
    """

    out: str = ""
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 128
    seed: int = 42
    precision: Precision = "bf16"
    gradient_checkpointing: bool = False
    freeze_layer_num: int = 0
    validate_every: int = 0
    save_every: int = 0
    log_every: int = 10
    workers: int = 4
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A whole training."""

    model: ModelPart = field(default_factory=ModelPart)
    data: DataPart = field(default_factory=DataPart)
    optimiser: OptimiserPart = field(default_factory=OptimiserPart)
    run: RunPart = field(default_factory=RunPart)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, part by part."""
        return asdict(self)


_PARTS: dict[str, type[Any]] = {"model": ModelPart, "data": DataPart, "optimiser": OptimiserPart, "run": RunPart}

MOST = 2**63 - 1

UNBOUND = frozenset(
    {"run.out", "run.device", "run.workers", "run.log_every", "run.save_every", "data.videos", "data.annotations"}
)
"""What may change while a run is interrupted: it moves no number, or, as a device does, only its last digits."""


def read_config(
    file: Path | None = None, preset: str | None = None, over: Mapping[str, Mapping[str, Any]] | None = None
) -> TrainConfig:
    """The configuration of a file, of a preset, or of a file over a preset (the file's own, or the one named).

    over: values by part that win over both, as the command line's. Raises: InvalidTraining.
    """
    values: dict[str, Any] = {} if file is None else _read(file)
    own = values.pop("preset", None)
    if own is not None and not isinstance(own, str):
        raise InvalidTraining(
            f"{file}: preset is {own!r}; a name is needed.", f"There are {', '.join(preset_names())}."
        )
    name = preset or own
    if name is not None:
        values = _over(_read(preset_file(name)), values)
    return config_from(_over(values, over or {}), str(file) if file is not None else f"preset {name}")


def config_from(values: Mapping[str, Any], where: str) -> TrainConfig:
    """A configuration from plain values, part by part; `where` stands in front of what is said of mistakes.

    Raises: InvalidTraining.
    """
    unknown = [name for name in values if name not in _PARTS]
    if unknown:
        raise InvalidTraining(
            f"{where} has no place for {unknown[0]!r}.", f"It has [{'], ['.join(_PARTS)}] and preset."
        )
    parts = {name: checked(kind, values.get(name, {}), f"{where}: [{name}]") for name, kind in _PARTS.items()}
    config = TrainConfig(**parts)
    _check(config, where)
    return config


def differences(before: Mapping[str, Any], now: TrainConfig) -> list[str]:
    """The keys whose values differ from those a run began with, as "run.seed 1 is now 2"; `UNBOUND` ones aside."""
    found = []
    for part, kind in _PARTS.items():
        was, is_ = before.get(part, {}), now.as_dict()[part]
        for item in fields(kind):
            key = f"{part}.{item.name}"
            if key not in UNBOUND and was.get(item.name) != is_[item.name]:
                found.append(f"{key} {was.get(item.name)!r} is now {is_[item.name]!r}")
    return found


def preset_names() -> list[str]:
    """The presets there are."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def preset_file(name: str) -> Path:
    """The file of a preset. Raises: InvalidTraining."""
    if name not in preset_names():
        raise InvalidTraining(f"There is no preset {name[:60]!r}.", f"There are {', '.join(preset_names())}.")
    return PRESETS / f"{name}.toml"


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidTraining(f"{file} can't be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidTraining(f"{file} isn't TOML: {error}.") from error


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merged key by key, what is above wins."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _over(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return merged


def _check(config: TrainConfig, where: str) -> None:
    run, optimiser, data = config.run, config.optimiser, config.data
    for name, value, least in (
        ("batch_size", run.batch_size, 2),
        ("log_every", run.log_every, 1),
        ("workers", run.workers, 1),
        ("validate_every", run.validate_every, 0),
        ("save_every", run.save_every, 0),
        ("seed", run.seed, 0),
        ("freeze_layer_num", run.freeze_layer_num, -1),
        ("steps", run.steps, 1),
        ("epochs", run.epochs, 1),
    ):
        check_at_least(value, least, f"{where}: [run] {name}")
    for name, value in (("seed", run.seed), ("steps", run.steps), ("epochs", run.epochs)):
        if value is not None and value > MOST:
            raise InvalidTraining(f"{where}: [run] {name} is {value}; at most {MOST} is possible.")
    for name, value, least in (("num_words", data.num_words, 3), ("num_frames", data.num_frames, 1)):
        check_at_least(value, least, f"{where}: [data] {name}")
    for name in ("learning_rate", "coef_lr", "weight_decay"):
        check_at_least(getattr(optimiser, name), 0, f"{where}: [optimiser] {name}")
    if not 0.0 <= optimiser.warmup < 1.0:
        raise InvalidTraining(f"{where}: [optimiser] warmup is {optimiser.warmup}; a fraction below 1 is needed.")
    if optimiser.max_grad_norm <= 0.0:
        raise InvalidTraining(f"{where}: [optimiser] max_grad_norm is {optimiser.max_grad_norm}; it must be above 0.")
    if run.steps is None and run.epochs is None:
        raise InvalidTraining(f"{where}: [run] says neither epochs nor steps.", "Say how long to train.")
