"""The configuration of a training: a TOML file of four parts, and presets that such a file may build on.

    preset = "xclip-msrvtt-1ka"     # optional: what stands here replaces what the preset has
    [model]                         # what is trained, and what it starts from
    [data]                          # what on
    [optimiser]                     # how
    [run]                           # how long, how precisely, and where to

A key or part that isn't known is an error that names it, and so is a value of another kind. Former names of keys and
values are still read. It reads TOML; it opens no model and no data.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from model.checked import BadValue, check_at_least, checked
from model.errors import InvalidTraining
from model.families import family_of
from model.families.xclip import FORMER_SWITCHES
from model.network import FORMER_MASKS, MaskReading
from model.temporal import TemporalKind
from model.training.optim import OptimiserSettings
from model.training.precision import Precision
from model.types import HeadKind

PRESETS = Path(__file__).parent / "presets"

_PAPERS = OptimiserSettings()


@dataclass(frozen=True, slots=True)
class ModelPart:
    """[model]. Where kind, temporal and head (for X-CLIP also W and F) are those of the start, its head's weights are
    kept; else a new head starts from the text tower, as in the papers."""

    start: str = "ViT-B-32-quickgelu/openai"
    """A model's name as everywhere: an open_clip name, a folder, an official file, "tiny"."""

    is_random: bool = False
    """Whether only the shape of the start is taken, with random weights."""

    kind: HeadKind | None = None
    """One of model.families; None for that of the start."""

    temporal: TemporalKind | None = None
    """The temporal encoder; None for that of the start."""

    temporal_layers: int | None = None

    temporal_heads: int | None = None
    """Attention heads; None for the width / 64."""

    masks: MaskReading = "masked"
    """How padding is read while training."""

    head: Mapping[str, Any] = field(default_factory=dict)
    """The head's own switches, such as num_centres of CLIP2Video."""


@dataclass(frozen=True, slots=True)
class DataPart:
    """[data]."""

    dataset: str = "shapes"
    """"shapes" (drawn, no files) or one of docs/datasets.md."""

    videos: str | None = None
    """The folder of the dataset's videos."""

    annotations: str | None = None
    """The folder of its annotation files."""

    num_words: int | None = None
    """W; None for the dataset's own, and for shapes and your own videos that of the start."""

    num_frames: int | None = None
    """F; None as for W."""

    allow_missing: bool = False
    """Whether to train although videos are missing; the log names them."""


@dataclass(frozen=True, slots=True)
class OptimiserPart:
    """[optimiser]."""

    kind: Literal["official", "adamw"] = "official"
    """The papers' own Adam, or AdamW with a linear rise and half a cosine."""

    learning_rate: float = _PAPERS.learning_rate
    """The highest one of temporal encoder and head."""

    coef_lr: float = _PAPERS.coef_lr
    """CLIP's learning rate is learning_rate * coef_lr."""

    weight_decay: float = _PAPERS.weight_decay

    warmup: float = _PAPERS.warmup
    """A fraction of all steps."""

    max_grad_norm: float = 1.0
    """L2, over all gradients together."""


@dataclass(frozen=True, slots=True)
class RunPart:
    """[run]."""

    out: str = ""
    """The folder that the run writes."""

    epochs: int | None = None
    """How long; `steps` wins over it."""

    steps: int | None = None

    batch_size: int = 128
    """Pairs per step over all GPUs."""

    seed: int = 42

    precision: Precision = "bf16"

    gradient_checkpointing: bool = False

    freeze_layer_num: int = 0
    """Blocks of CLIP that stay as they are, with its stem; -1 for nothing at all."""

    validate_every: int = 0
    """Steps; 0 for once an epoch."""

    save_every: int = 0
    """Steps; 0 for once an epoch."""

    log_every: int = 10
    """Steps."""

    workers: int = 4
    """Threads that read clips."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1."""


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
    """A configuration from plain values, part by part; `where` begins every message. Raises: InvalidTraining."""
    try:
        return _config_from(values, where)
    except BadValue as error:
        raise InvalidTraining(error.message, error.hint) from error


def _config_from(values: Mapping[str, Any], where: str) -> TrainConfig:
    """Raises: InvalidTraining, BadValue."""
    unknown = [name for name in values if name not in _PARTS]
    if unknown:
        raise InvalidTraining(
            f"{where} has no place for {unknown[0]!r}.", f"It has [{'], ['.join(_PARTS)}] and preset."
        )
    named = {name: _with_present_names(name, values.get(name, {})) for name in _PARTS}
    parts = {name: checked(kind, named[name], f"{where}: [{name}]") for name, kind in _PARTS.items()}
    config = TrainConfig(**parts)
    if config.model.kind is not None:
        family_of(config.model.kind)
    _check(config, where)
    return config


def differences(before: Mapping[str, Any], now: TrainConfig) -> list[str]:
    """The keys whose values differ from those a run started with, as "run.seed 1 is now 2"; `UNBOUND` ones aside."""
    found = []
    for part, kind in _PARTS.items():
        was, is_ = _with_present_names(part, before.get(part, {})), now.as_dict()[part]
        for item in fields(kind):
            key = f"{part}.{item.name}"
            if key not in UNBOUND and was.get(item.name) != is_[item.name]:
                found.append(f"{key} {was.get(item.name)!r} is now {is_[item.name]!r}")
    return found


def _with_present_names(part: str, values: Any) -> Any:
    """A part's values with what keys and values are called now, as in configurations and runs of earlier releases."""
    if part != "model" or not isinstance(values, Mapping):
        return values
    named = dict(values)
    if isinstance(masks := named.get("masks"), str):
        named["masks"] = FORMER_MASKS.get(masks, masks)
    if isinstance(head := named.get("head"), Mapping):
        named["head"] = {FORMER_SWITCHES.get(key, key): value for key, value in head.items()}
    return named


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
        raise InvalidTraining(f"{where}: [run] has neither epochs nor steps.", "Set one of them: how long to train.")
