"""The one loader of annotations, and the one search for the videos that belong to them. It decodes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from model.datasets.annotation_files import HINT, name_of
from model.datasets.parsers import parse
from model.datasets.protocols import DATASETS, Dataset
from model.datasets.records import SPLIT_NAMES, Split, SplitName, VideoFiles
from model.errors import DatasetError

VIDEO_SUFFIXES = (
    ".mp4", ".avi", ".webm", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp", ".ts", ".gif",
)  # fmt: skip


def dataset_of(name: str) -> Dataset:
    """The row of the table. Raises: DatasetError, which lists the names there are."""
    if name not in DATASETS:
        raise DatasetError(f"There is no dataset {name[:60]!r}.", f"There are shapes, {', '.join(DATASETS)}.")
    return DATASETS[name]


def load_split(dataset: str, split: str, annotations: Path) -> Split:
    """A split's clips from the folder of annotations, whether or not their videos are there.

    Raises: DatasetError that names the file and the line or entry.
    """
    row, name = dataset_of(dataset), _split_name(split)
    if not annotations.is_dir():
        raise DatasetError(f"There is no folder of annotations {str(annotations)!r}.", HINT)
    parsed = parse(annotations, row.splits[name], name)
    if not parsed.clips:
        raise DatasetError(f"{dataset}: no clip of the split {name!r} in {annotations} has captions.", HINT)
    has_many = any(len(clip.captions) > 1 for clip in parsed.clips)
    is_multi = has_many if row.is_own or name == "train" else row.is_multi_caption
    return Split(dataset, name, parsed.clips, is_multi, parsed.without_captions)


def count_note(split: Split) -> str | None:
    """A warning for a split that isn't as large as it should be; None if it is, or no size is known."""
    count = dataset_of(split.dataset).splits[split.name].count
    if count is None:
        return None
    found, expected = len(split.clips), count.clips
    what = "clips"
    if found == expected and count.captions is not None:
        found, expected, what = split.num_captions, count.captions, "captions"
    if found == expected:
        return None
    return (
        f"{split.dataset} {split.name} has {found:,} {what} here and {expected:,} by its source "
        f"({count.evidence}: {count.source})."
    )


def find_videos(split: Split, videos: Path) -> VideoFiles:
    """The file of each clip, anywhere below the folder `videos`, by its name with or without a video suffix.

    Raises: DatasetError if the folder, or one below it, can't be read, or a clip's name leads out of it.
    """
    if not videos.is_dir():
        raise DatasetError(f"There is no folder of videos {str(videos)!r}.", "Name the folder that holds them.")
    by_name = _index(videos)
    paths: dict[str, Path] = {}
    missing: list[str] = []
    ambiguous: list[str] = []
    for clip in split.clips:
        keys = [name_of(name, f"clip {clip.id[:80]!r}").removeprefix("./") for name in (clip.video, *clip.aliases)]
        found = next((by_name[key] for key in _candidates(keys) if key in by_name), [])
        if not found:
            missing.append(clip.id)
            continue
        paths[clip.id] = found[0]
        if len(found) > 1:
            ambiguous.append(clip.id)
    return VideoFiles(paths, tuple(missing), tuple(ambiguous))


def _split_name(split: str) -> SplitName:
    for name in SPLIT_NAMES:
        if split == name:
            return name
    raise DatasetError(f"There is no split {split[:60]!r}.", f"There are {', '.join(SPLIT_NAMES)}.")


def _candidates(names: list[str]) -> Iterator[str]:
    """Names as they stand, then without the video suffix they may carry: DiDeMo's end in .avi, the files in .mp4."""
    yield from names
    for name in names:
        if (stem := _without_suffix(name)) is not None:
            yield stem


def _index(videos: Path) -> dict[str, list[Path]]:
    """Video files by their name, their stem, and both below their sub-folder; those nearest to the top come first."""
    files = sorted(_walk(videos), key=lambda path: (len(path.parts), path))
    by_name: dict[str, list[Path]] = {}
    for path in files:
        below = path.relative_to(videos).as_posix()
        stem = path.name.rpartition(".")[0]
        keys = {path.name, stem, below, below.removesuffix(path.name) + stem}
        for key in keys:
            by_name.setdefault(key, []).append(path)
    return by_name


def _walk(videos: Path) -> Iterator[Path]:
    """Video files below the folder; folders that are only linked are not entered, links to files are followed."""

    def stop(error: OSError) -> None:
        raise DatasetError(f"The folder {error.filename} can't be read: {error.strerror}.") from error

    for folder, _, names in os.walk(videos, onerror=stop):
        for name in names:
            if _without_suffix(name) is not None and (path := Path(folder) / name).is_file():
                yield path


def _without_suffix(name: str) -> str | None:
    """The name without its video suffix; None if it has none. A clip's name may hold other dots."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in VIDEO_SUFFIXES else None
