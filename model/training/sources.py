"""The data of a run by the configuration's [data]: drawn shapes, or a dataset's training and validation splits.

It reads annotations and finds files; frames come from a reader that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.datasets.frames import FrameReader, FrameRule
from model.datasets.load import count_note, dataset_of, find_videos, load_split
from model.datasets.records import Split, SplitName, VideoFiles
from model.datasets.shapes import held_out
from model.errors import ClipUnreadable, DatasetError, InvalidTraining
from model.evaluation.sets import SHAPES, set_of_shapes, set_of_split
from model.network import Network
from model.resize import FrameResize
from model.training.batches import PairSource, ShapesPairs, SplitPairs
from model.training.config import DataPart, TrainConfig
from model.training.log import RunLog
from model.training.validation import Validation, validation_over

VALIDATION_SEED = 7_301
"""Seed of the drawn clips that validate; the 1,000 that evaluate have another."""
NUM_MIXED, NUM_TWIN_PAIRS = 100, 50
NAMES_IN_ERROR = 10

MakeReader = Callable[[FrameRule, FrameResize], FrameReader]
"""Opens the decoder for a rule of frames, and for the resizing that is done where they are decoded."""


class DrawnData:
    """Shapes without end; 200 held-out clips validate."""

    def __init__(self, part: DataPart) -> None:
        """Raises: InvalidTraining for folders, which nothing would read."""
        if part.videos or part.annotations:
            raise InvalidTraining("[data] videos and annotations don't belong to shapes, which are drawn.")
        self.num_words, self.num_frames = part.num_words, part.num_frames

    def prepare(
        self, config: TrainConfig, network: Network, make_reader: MakeReader, log: RunLog
    ) -> tuple[PairSource, Validation]:
        """Pairs and a validation for this network. Raises: InvalidTraining without a number of steps."""
        if config.run.steps is None:
            raise InvalidTraining("[run] steps is needed for shapes, which have no epochs.")
        size = network.backbone.image_size
        pairs = ShapesPairs(config.run.batch_size, network.num_frames, size, config.run.seed)
        held = set_of_shapes(held_out(NUM_MIXED, NUM_TWIN_PAIRS, VALIDATION_SEED))
        return pairs, validation_over(held, config.run.workers)

    def facts(self) -> dict[str, Any]:
        """For the log."""
        return {"dataset": SHAPES}


class SplitData:
    """A dataset of docs/datasets.md: its `train` trains, its `val` validates."""

    def __init__(self, part: DataPart) -> None:
        """Raises: InvalidTraining without folders, DatasetError for what is wrong in them, or for missing videos."""
        row = dataset_of(part.dataset)
        if not part.videos or not part.annotations:
            raise InvalidTraining(
                f"[data] {'annotations' if part.videos else 'videos'} is needed for {part.dataset}.",
                "Name the folders in the file, or by --videos and --annotations.",
            )
        self._row = row
        own = (None, None) if row.is_own else (row.num_words, row.num_frames)
        self.num_words, self.num_frames = part.num_words or own[0], part.num_frames or own[1]
        self._train = _found(part, "train")
        self._val = _found(part, "val")

    def prepare(
        self, config: TrainConfig, network: Network, make_reader: MakeReader, log: RunLog
    ) -> tuple[PairSource, Validation]:
        """Pairs and a validation for this network. Raises: DatasetError if the pairs don't fill one batch."""
        rule = self._row.frame_rule(network.kind)
        reader = make_reader(rule, network.backbone.preprocess.resize)

        def report(error: ClipUnreadable, step: int) -> None:
            log.write("clip_unreadable", step, reason=str(error))

        split, files = self._train
        pairs = SplitPairs(
            split.only(files.paths),
            files.paths,
            reader,
            batch_size=config.run.batch_size,
            num_frames=network.num_frames,
            seed=config.run.seed,
            on_unreadable=report,
        )
        held, held_files = self._val
        return pairs, validation_over(set_of_split(held, held_files.paths, reader, rule), config.run.workers)

    def facts(self) -> dict[str, Any]:
        """For the log: sizes of both splits, and every video that is missing, by name."""
        return {"dataset": self._row.name, "train": _facts(*self._train), "val": _facts(*self._val)}


def open_data(config: TrainConfig) -> DrawnData | SplitData:
    """The data that [data] names, found but not read. Raises: InvalidTraining, DatasetError."""
    return DrawnData(config.data) if config.data.dataset == SHAPES else SplitData(config.data)


def _found(part: DataPart, name: SplitName) -> tuple[Split, VideoFiles]:
    split = load_split(part.dataset, name, Path(part.annotations or ""))
    files = find_videos(split, Path(part.videos or ""))
    if files.missing and (not part.allow_missing or not files.paths):
        shown = ", ".join(files.missing[:NAMES_IN_ERROR]) + (", ..." if len(files.missing) > NAMES_IN_ERROR else "")
        raise DatasetError(
            f"{len(files.missing)} of the {len(split.clips)} videos of {part.dataset} {name} "
            f"aren't below {part.videos}: {shown}.",
            "Complete the folder, or train without them: [data] allow_missing = true, or --allow-missing.",
        )
    return split, files


def _facts(split: Split, files: VideoFiles) -> dict[str, Any]:
    return {
        "clips": len(files.paths),
        "captions": split.only(files.paths).num_captions,
        "missing": len(files.missing),
        "missing_names": list(files.missing),
        "without_captions": len(split.without_captions),
        "note": count_note(split),
    }
