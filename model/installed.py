"""Which models are at hand: the bundled one, folders of them, and weights in open_clip's local cache.

Reads configurations and the headers of weight files, never weights: it is quick, it knows no fingerprints, and for
folders that aren't in our format only the name. It builds no network, fetches nothing and reads no
environment variable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from model.backbone import architectures, cached_weights, model_config, weight_tags
from model.checkpoints.folder import CONFIG_FILE, TENSORS_FILE, read_config
from model.checkpoints.published import WEIGHT_SUFFIXES, is_published
from model.errors import ModelError, UnknownModel, WeightsUnavailable, reason_of
from model.families import FAMILIES, ZERO_SHOT, family_of
from model.network import NetworkConfig
from model.registry import DEFAULT_NUM_FRAMES, DEFAULT_NUM_WORDS, TINY_FOLDER, refuse_overlong, unknown_model
from model.types import HeadKind, ScorerName

SCORERS_OF = {family.kind: family.scorers for family in FAMILIES}
"""What the features of each kind of model can be scored by, the default first."""


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model as its configuration describes it. Numbers are None where only its weights would show them."""

    name: str
    """What load_model takes."""

    folder: Path | None = None
    """None for one that isn't a folder."""

    kind: HeadKind | None = None
    embed_dim: int | None = None
    num_frames: int | None = None
    num_words: int | None = None
    image_size: int | None = None
    temporal: str | None = None

    error: ModelError | None = None
    """Why it can't be used."""

    @property
    def scorers(self) -> tuple[ScorerName, ...]:
        """Empty where the kind isn't known."""
        return () if self.kind is None else SCORERS_OF[self.kind]

    def is_called(self, name: str) -> bool:
        """Whether a name that load_model takes means this one; a folder has many names."""
        return name == self.name or (self.folder is not None and Path(name).resolve() == self.folder.resolve())


def installed_models(folders: Sequence[Path]) -> tuple[InstalledModel, ...]:
    """The bundled model, those in `folders` (each is a model's own folder, or holds some) and those in the cache.

    A damaged one is there with its error, and so is a folder that can't be read.
    """
    found = [_of_folder("tiny", TINY_FOLDER)]
    for place in folders:
        try:
            found += [_of_folder(str(folder), folder) for folder in _models_in(place)]
        except OSError as error:
            why = WeightsUnavailable(
                f"The folder can't be read: {reason_of(error)}.", "Check VIDGRAIN_MODELS.", path=place
            )
            found.append(InstalledModel(str(place), place, error=why))
    return (*found, *(_of_towers(f"{architecture}/{tag}", architecture) for architecture, tag in cached_weights()))


def described(name: str) -> InstalledModel:
    """A model by the name that load_model takes, whether or not it is at hand; see its error."""
    try:
        refuse_overlong(name)
    except UnknownModel as error:
        return InstalledModel(name, error=error)
    folder = TINY_FOLDER if name == "tiny" else Path(name)
    if name == "tiny" or (name and _is_model(folder)):
        return _of_folder(name, folder)
    architecture, _, weights = name.partition("/")
    if architecture not in architectures() or not weights:
        return InstalledModel(name, error=unknown_model(name))
    if weights in weight_tags(architecture):
        is_here = (architecture, weights) in cached_weights()
        missing = WeightsUnavailable("Its weights aren't on this machine yet.", "They are fetched when it is loaded.")
        return _of_towers(name, architecture, None if is_here else missing)
    missing = WeightsUnavailable("There is no such file.", "Check the path.", path=Path(weights))
    return InstalledModel(name, error=None if Path(weights).is_file() else missing)


def _models_in(place: Path) -> list[Path]:
    """The folder itself if it has a configuration, else the models and files of weights in it. Raises: OSError."""
    if (place / CONFIG_FILE).is_file():
        return [place]
    return [path for path in sorted(place.iterdir()) if path.name[0] != "." and _is_model(path)]


def _is_model(path: Path) -> bool:
    """A folder with a configuration or weights, whatever their state; or a file of weights."""
    if not path.is_dir():
        return path.suffix in WEIGHT_SUFFIXES and path.is_file()
    return any(file.name == CONFIG_FILE or file.suffix in WEIGHT_SUFFIXES for file in path.iterdir())


def _of_folder(name: str, folder: Path) -> InstalledModel:
    try:
        if is_published(folder):
            return InstalledModel(name, folder)
        config = read_config(folder)
        shape = _shape(config)
    except ModelError as error:
        return InstalledModel(name, folder, error=error)
    return InstalledModel(name, folder, **shape, error=_weights_error(folder / TENSORS_FILE))


def _shape(config: NetworkConfig) -> dict[str, Any]:
    return {
        "kind": config.kind,
        "embed_dim": int(config.model_cfg["embed_dim"]),
        "num_frames": config.num_frames,
        "num_words": config.num_words,
        "image_size": _side(config.preprocess.get("image_size") or config.model_cfg),
        "temporal": family_of(config.kind).temporal_name(config),
    }


def _of_towers(name: str, architecture: str, error: ModelError | None = None) -> InstalledModel:
    """Published towers, as the registry would make a model of them without training."""
    model_cfg = model_config(architecture)
    context_length = model_cfg.get("text_cfg", {}).get("context_length", DEFAULT_NUM_WORDS)
    return InstalledModel(
        name,
        kind=ZERO_SHOT.kind,
        embed_dim=model_cfg.get("embed_dim"),
        num_frames=DEFAULT_NUM_FRAMES,
        num_words=min(DEFAULT_NUM_WORDS, context_length),
        image_size=_side(model_cfg),
        temporal="mean",
        error=error,
    )


def _side(size: Any) -> int | None:
    """Pixels of a square image's side, from a number, a pair, or the towers' configuration."""
    if isinstance(size, dict):
        vision = size.get("vision_cfg")
        size = vision.get("image_size", 224) if isinstance(vision, dict) else None
    if isinstance(size, list | tuple) and size:
        size = size[0]
    return size if isinstance(size, int) else None


def _weights_error(file: Path) -> ModelError | None:
    """Why a .safetensors file can't be used, judged by its header and length; None if it can."""
    if not file.is_file():
        return WeightsUnavailable("There is no such file.", path=file)
    try:
        with safe_open(file, framework="pt"):
            return None
    except (SafetensorError, OSError) as error:
        return WeightsUnavailable(f"The weights can't be read: {reason_of(error, file)}.", path=file)
