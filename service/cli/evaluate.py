"""`vidgrain evaluate`: a model's name, a dataset's name and two folders become one answer.

Here the parts meet: the model, the dataset's protocol, the decode sandbox and the cache of features. The measuring
itself is model/evaluation's; printing is printing.py's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from indexer.media.clip_frames import READING_VERSION, ClipFrames
from indexer.media.pool import DecodePool
from indexer.media.sandbox import SandboxLimits
from model.datasets.load import count_note, dataset_of, find_videos, load_split
from model.errors import DatasetError, UnknownScorer
from model.evaluation.cache import FeatureCache
from model.evaluation.fit import fit_to_protocol
from model.evaluation.run import EvaluationOptions, evaluate
from model.evaluation.sets import SHAPES, EvaluationSet, set_of_shapes, set_of_split
from model.network import MaskReading
from model.registry import load_model
from model.served_model import ServedModel
from model.spec import build_spec
from model.threads import limit_threads
from model.types import ScorerName
from service.settings import Settings

Masks = Literal["trained", "masked", "reference"]

CACHE_FOLDER = "evaluation"
"""Below the data folder, unless another one is named."""

NAMES_IN_ERROR = 10
MAX_READERS = 4


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """The options of `vidgrain evaluate`."""

    dataset: str
    split: str = "test"
    videos: Path | None = None
    """The folder of videos; every dataset but `shapes` needs it."""
    annotations: Path | None = None
    """The folder of annotations; every dataset but `shapes` needs it."""
    masks: Masks | None = None
    """How padding is read; None: as the model was trained, or "masked" if a scorer is named."""
    scorer: ScorerName | None = None
    cache: Path | None = None
    """Where features are kept; None: a folder in the data folder."""
    is_cached: bool = True
    """Whether features are kept at all."""
    allow_missing: bool = False
    """Whether to go on without videos that are missing."""


def run_evaluation(
    settings: Settings, request: EvaluateRequest, on_progress: Callable[[str, int, int], None]
) -> dict[str, Any]:
    """The answer of model.evaluation.run.evaluate. Raises: DatasetError, UnknownScorer, ModelError."""
    limit_threads(settings.torch_threads)
    if request.dataset == SHAPES and request.split != "test":
        raise DatasetError(f"The shapes have no split {request.split!r}.", "Leave --split out.")
    if request.dataset != SHAPES:
        dataset_of(request.dataset)  # a wrong name is reported before anything is loaded
    masks = _masks(request)
    model = load_model(settings.model, device=settings.device, num_frames=settings.num_frames, masks=masks)
    if request.scorer is not None and request.scorer not in model.spec.scorers:
        raise UnknownScorer(
            f"{settings.model} has no scorer {request.scorer!r}.", f"Use {', '.join(model.spec.scorers)}."
        )
    readers = min(MAX_READERS, os.cpu_count() or 1)
    with _set(settings, request, model, readers) as (chosen, missing, notes):
        warnings = [*notes, *fit_to_protocol(model.network, chosen, num_frames=settings.num_frames)]
        spec = model.spec
        if (spec.num_words, spec.num_frames) != (model.network.num_words, model.network.num_frames):
            spec = build_spec(spec.name, model.network)
        fitted = ServedModel(model.network, spec, model.device)
        cache = None
        if request.is_cached and request.dataset != SHAPES:
            cache = FeatureCache(request.cache or settings.data / CACHE_FOLDER)
        options = EvaluationOptions(
            request.scorer,
            cache,
            num_readers=readers,
            allow_missing=request.allow_missing,
            missing=missing,
            warnings=warnings,
        )
        return evaluate(fitted, chosen, options, on_progress)


@contextmanager
def _set(
    settings: Settings, request: EvaluateRequest, model: ServedModel, num_readers: int
) -> Iterator[tuple[EvaluationSet, tuple[str, ...], list[str]]]:
    """The set with its reader open, the ids of clips without a file, and notes about the annotations."""
    if request.dataset == SHAPES:
        yield set_of_shapes(), (), []
        return
    if request.videos is None or request.annotations is None:
        lacking = " and ".join(f"--{name}" for name in ("videos", "annotations") if getattr(request, name) is None)
        raise DatasetError(
            f"{request.dataset} needs {lacking}.", "docs/datasets.md describes what the folders contain."
        )
    split = load_split(request.dataset, request.split, request.annotations)
    files = find_videos(split, request.videos)
    _refuse_missing(request, files.missing, len(split.clips))
    notes = [note] if (note := count_note(split)) else []
    if split.without_captions:
        notes.append(f"{_named(split.without_captions)} have no captions and are left out.")
    if files.missing:
        notes.append(
            f"{len(files.missing)} of {len(split.clips)} videos are missing: the figures aren't the dataset's."
        )
    if files.ambiguous:
        notes.append(f"Several files fit {_named(files.ambiguous)}; the one nearest to the top of the folder is read.")
    rule = dataset_of(request.dataset).frame_rule(model.spec.kind)
    limits = SandboxLimits(settings.decode_timeout_s, settings.decode_memory_bytes)
    with DecodePool(num_readers, settings.decoder, limits) as sandboxes:
        reader = ClipFrames(sandboxes, rule, resize=model.network.backbone.preprocess.resize)
        reading = f"{settings.decoder}-{READING_VERSION}"
        yield set_of_split(split, files.paths, reader, rule, reading=reading), files.missing, notes


def _refuse_missing(request: EvaluateRequest, missing: tuple[str, ...], num_clips: int) -> None:
    if missing and (not request.allow_missing or len(missing) == num_clips):
        raise DatasetError(
            f"{len(missing)} of {num_clips} videos aren't below {request.videos}: {_named(missing)}.",
            "Check that it is the right folder."
            if len(missing) == num_clips
            else "Complete the folder, or leave them out with --allow-missing.",
        )


def _masks(request: EvaluateRequest) -> MaskReading | None:
    """None: as trained. Raises: UnknownScorer, for the shared scorers read masks in one way only."""
    if request.scorer is not None and request.masks == "reference":
        raise UnknownScorer(
            f"The scorer {request.scorer} works with padding masked only.", "Leave out --scorer, or --masks reference."
        )
    if request.masks is None:
        return "masked" if request.scorer is not None else None
    return None if request.masks == "trained" else request.masks


def _named(names: tuple[str, ...]) -> str:
    rest = f" and {len(names) - NAMES_IN_ERROR} more" if len(names) > NAMES_IN_ERROR else ""
    return ", ".join(names[:NAMES_IN_ERROR]) + rest
