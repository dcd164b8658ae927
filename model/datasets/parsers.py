"""One small parser per annotation format: from a split's files to its clips.

A parser takes the folder and the split's row of protocols.py. What is malformed is a DatasetError with its place; a
video that a list names and the captions don't know is not skipped in silence: it is named in the answer.
Sources of the formats: the dataset's own releases, read as the official loaders read them (see protocols.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from model.datasets.annotation_files import (
    HINT,
    field,
    list_of,
    name_of,
    number_of,
    object_of,
    read_csv,
    read_json,
    read_json_lines,
    read_lines,
    read_list,
    refuse,
    text_of,
)
from model.datasets.pickled import read_pickle
from model.datasets.protocols import Format, SplitFiles
from model.datasets.records import Clip, SplitName
from model.errors import DatasetError

DIDEMO_END_S = 31.0
"""Annotators of DiDeMo saw 30 s; the official loaders ask for seconds 0 to 31."""

MSRVTT_SPLITS: Mapping[str, SplitName] = {"train": "train", "validate": "val", "test": "test"}
"""What MSR-VTT's own "split" field calls them."""

OWN_KEYS = ("video", "caption", "captions", "start_s", "end_s", "id")
"""The keys of an entry of users' own data that are read; they may have others."""


class Parsed(NamedTuple):
    """The clips, and the listed videos that have no captions."""

    clips: tuple[Clip, ...]
    without_captions: tuple[str, ...] = ()


Captions = dict[str, list[str]]


def parse(folder: Path, files: SplitFiles, split: SplitName) -> Parsed:
    """The clips of a split. Raises: DatasetError."""
    return PARSERS[files.format](folder, files, split)


def _caption_pairs(folder: Path, files: SplitFiles, split: SplitName) -> Parsed:
    """MSR-VTT's 1k-A test: each line is a video and its one sentence."""
    names = _Names()
    clips = []
    for place, row in read_csv(folder / files.captions[0], ("video_id", "sentence")):
        video = name_of(row["video_id"].strip(), place)
        clips.append(Clip(names.new(video), video, (text_of(row["sentence"], place),)))
    return Parsed(tuple(clips))


def _msrvtt(folder: Path, files: SplitFiles, split: SplitName) -> Parsed:
    """MSR-VTT: one JSON with "videos" (video_id, split) and "sentences" (video_id, caption), and a list of videos."""
    splits: dict[str, SplitName] = {}
    captions: Captions = {}
    for path in _present(folder, files.captions):
        value = object_of(read_json(path), path.name)
        found: Captions = {}
        for place, entry in _entries(field(value, "sentences", path.name), f"{path.name}, sentence"):
            video = name_of(field(entry, "video_id", place), place)
            found.setdefault(video, []).append(text_of(field(entry, "caption", place), place))
        captions = {**found, **captions}
        for place, entry in _entries(value.get("videos", []), f"{path.name}, video"):
            video, marked = name_of(field(entry, "video_id", place), place), entry.get("split")
            if marked is not None:
                if marked not in MSRVTT_SPLITS:
                    refuse(place, f"the split {str(marked)[:40]!r} is unknown; there are {', '.join(MSRVTT_SPLITS)}")
                splits.setdefault(video, MSRVTT_SPLITS[marked])
    listed = folder / (files.members or "")
    if files.members_optional and not listed.is_file():
        members = [video for video, named in splits.items() if named == split]
    else:
        rows = read_csv(listed, ("video_id",))
        members = list(dict.fromkeys(name_of(row["video_id"].strip(), place) for place, row in rows))
    return _chosen(members, captions)


def _msvd(folder: Path, files: SplitFiles, split: SplitName) -> Parsed:
    """MSVD: {video: [sentence]}, each sentence text or a list of words, as a pickle or as JSON.

    With youtube_mapping.txt ("name vid12" a line) a file may also go by its other name.
    """
    captions: Captions = {}
    for path in _present(folder, files.captions):
        value = read_pickle(path) if path.suffix == ".pkl" else read_json(path)
        captions = {**_captions_by_video(value, path.name), **captions}
    other_names = _youtube_mapping(folder / "youtube_mapping.txt")
    parsed = _chosen(read_list(folder / (files.members or "")), captions)
    clips = (replace(clip, aliases=other_names.get(clip.id, ())) for clip in parsed.clips)
    return parsed._replace(clips=tuple(clips))


def _lsmdc(folder: Path, files: SplitFiles, split: SplitName) -> Parsed:
    """LSMDC: clip, four times (of the movie, not used) and a sentence between tabs. Every line is a pair of its own."""
    names = _Names()
    clips = []
    path = folder / files.captions[0]
    for number, line in read_lines(path):
        place = f"{path.name}, line {number}"
        cells = line.strip().split("\t")
        if len(cells) != 6:
            refuse(place, f"{len(cells)} cells between tabs where 6 are needed")
        video = name_of(cells[0], place)
        clips.append(Clip(names.new(video), video, (text_of(cells[5], place),)))
    return Parsed(tuple(clips))


def _didemo(folder: Path, files: SplitFiles, split: SplitName) -> Parsed:
    """DiDeMo: a list of {"video", "description", ...}; the descriptions of a video are one paragraph."""
    path = folder / files.captions[0]
    captions: Captions = {}
    for place, entry in _entries(read_json(path), f"{path.name}, entry"):
        video = name_of(field(entry, "video", place), place)
        captions.setdefault(video, []).append(text_of(field(entry, "description", place), place))
    parsed = _chosen(read_list(folder / (files.members or "")), captions)
    return parsed._replace(
        clips=tuple(
            replace(clip, captions=(" ".join(clip.captions),), start_s=0.0, end_s=DIDEMO_END_S) for clip in parsed.clips
        )
    )


def _activitynet(folder: Path, files: SplitFiles, split: SplitName) -> Parsed:
    """ActivityNet Captions: {"v_<video>": {"duration", "sentences", ...}} and a JSON list of ids.

    The files of the videos are named with or without the "v_".
    """
    path = folder / files.captions[0]
    clips: dict[str, Clip] = {}
    for key, value in object_of(read_json(path), path.name).items():
        place = f"{path.name}, entry {key[:40]!r}"
        entry = object_of(value, place)
        id_ = name_of(key, place)
        sentences = [text_of(one, place) for one in list_of(field(entry, "sentences", place), place)]
        duration_s = number_of(field(entry, "duration", place), place)
        if duration_s <= 0:
            refuse(place, f"a duration of {duration_s} s")
        video = name_of(id_.removeprefix("v_"), place)
        aliases = (id_,) if id_ != video else ()
        if not sentences:
            continue
        clips[id_] = Clip(id_, video, (" ".join(sentences),), 0.0, float(math.ceil(duration_s)), aliases)
    list_path = folder / (files.members or "")
    ids = [
        name_of(one, f"{list_path.name}, entry {number}")
        for number, one in enumerate(list_of(read_json(list_path), list_path.name))
    ]
    members = list(dict.fromkeys(ids))
    known = tuple(clips[one] for one in members if one in clips)
    return Parsed(known, tuple(one for one in members if one not in clips))


def _vatex(folder: Path, files: SplitFiles, split: SplitName) -> Parsed:
    """VATEX: the releases' [{"videoID", "enCap"}], CLIP2Video's {video: {"enCap"}} or HGR's {video: [sentence]}."""
    captions: Captions = {}
    for path in _present(folder, files.captions):
        value = read_json(path)
        if isinstance(value, list):
            entries = {
                name_of(field(entry, "videoID", place), place): field(entry, "enCap", place)
                for place, entry in _entries(value, f"{path.name}, entry")
            }
        else:
            entries = {
                key: field(one, "enCap", f"{path.name}, entry {key[:40]!r}") if isinstance(one, dict) else one
                for key, one in object_of(value, path.name).items()
            }
        captions = {**_captions_by_video(entries, path.name), **captions}
    return _chosen(read_list(folder / (files.members or "")), captions)


def _own(folder: Path, files: SplitFiles, split: SplitName) -> Parsed:
    """Users' own: JSON lines or CSV with video, caption or captions, and if wanted start_s, end_s, id.

    Entries of one video and stretch (or of one id) are captions of one clip.
    """
    path = next((folder / name for name in files.captions if (folder / name).is_file()), None)
    if path is None:
        raise DatasetError(f"There is none of {', '.join(files.captions)} in {folder}.", HINT)
    rows: Iterable[tuple[str, Mapping[str, Any]]]
    rows = read_json_lines(path) if path.suffix == ".jsonl" else read_csv(path, ("video", "caption"))
    clips: dict[str, Clip] = {}
    for place, row in rows:
        clip = _own_clip(row, place)
        before = clips.setdefault(clip.id, replace(clip, captions=()))
        if replace(before, captions=()) != replace(clip, captions=()):
            refuse(place, f"the id {clip.id[:80]!r} stood for another video or stretch before")
        clips[clip.id] = replace(before, captions=before.captions + clip.captions)
    return Parsed(tuple(clips.values()))


def _own_clip(row: Mapping[str, Any], place: str) -> Clip:
    video = name_of(field(row, "video", place), place)
    if near := [key for key in ("start", "end", "text", "sentence") if key in row]:
        refuse(place, f"the key {near[0]!r} is unknown; there are {', '.join(OWN_KEYS)}")
    given = [row["caption"]] if "caption" in row else []
    given += list_of(row["captions"], place) if "captions" in row else []
    captions = [text_of(one, place).strip() for one in given]
    if not captions or not all(captions):
        refuse(place, "a clip needs a caption, or captions, and none may be empty")
    start_s, end_s = (_seconds(row.get(key), f"{place}, {key}") for key in ("start_s", "end_s"))
    if end_s is not None and end_s <= (start_s or 0.0):
        refuse(place, f"the stretch from {start_s or 0.0:g} s to {end_s:g} s is empty")
    stretch = (
        "" if start_s is None and end_s is None else f"@{start_s or 0.0:g}-{'' if end_s is None else f'{end_s:g}'}"
    )
    id_ = row["id"] if row.get("id") not in (None, "") else f"{video}{stretch}"
    return Clip(text_of(id_, f"{place}, id"), video, tuple(captions), start_s, end_s)


def _seconds(value: object, place: str) -> float | None:
    if value is None or value == "":
        return None
    seconds = number_of(value, place)
    if seconds < 0:
        refuse(place, f"{seconds:g} s is before the video's start")
    return seconds


class _Names:
    """Ids for lines that may name one video again: "x", "x#2", ..."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}

    def new(self, video: str) -> str:
        times = self._times[video] = self._times.get(video, 0) + 1
        return video if times == 1 else f"{video}#{times}"


def _chosen(members: Iterable[str], captions: Captions) -> Parsed:
    """The members with captions as clips, in the members' order, and the others by name."""
    members = list(members)
    clips = tuple(Clip(video, video, tuple(captions[video])) for video in members if captions.get(video))
    return Parsed(clips, tuple(video for video in members if not captions.get(video)))


def _present(folder: Path, names: tuple[str, ...]) -> list[Path]:
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise DatasetError(f"There is none of {', '.join(names)} in {folder}.", HINT)
    return found


def _entries(value: object, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of each entry of a JSON list, numbered from 0."""
    for number, entry in enumerate(list_of(value, place)):
        here = f"{place} {number}"
        yield here, object_of(entry, here)


def _captions_by_video(value: object, place: str) -> Captions:
    captions: Captions = {}
    for key, listed in object_of(value, place).items():
        here = f"{place}, entry {str(key)[:40]!r}"
        captions[name_of(key, here)] = [_sentence(one, here) for one in list_of(listed, here)]
    return captions


def _sentence(value: object, place: str) -> str:
    """Text, or a list of words put together as the official loaders do."""
    if isinstance(value, list):
        return " ".join(text_of(word, place) for word in value)
    return text_of(value, place)


def _youtube_mapping(path: Path) -> dict[str, tuple[str, ...]]:
    if not path.is_file():
        return {}
    names: dict[str, tuple[str, ...]] = {}
    for number, line in read_lines(path):
        place = f"{path.name}, line {number}"
        words = line.split()
        if len(words) != 2:
            refuse(place, f"{len(words)} words where two are needed: the video's name and its other one")
        names[name_of(words[0], place)] = (name_of(words[1], place),)
    return names


PARSERS: Mapping[Format, Callable[[Path, SplitFiles, SplitName], Parsed]] = {
    "caption_pairs": _caption_pairs,
    "msrvtt": _msrvtt,
    "msvd": _msvd,
    "lsmdc": _lsmdc,
    "didemo": _didemo,
    "activitynet": _activitynet,
    "vatex": _vatex,
    "own": _own,
}
