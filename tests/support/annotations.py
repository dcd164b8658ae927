"""Writes small annotations in every dataset's real format, and tiny videos that belong to them.

    ids = write_annotations("didemo", folder / "annotations", num_videos=3)  # per split: {"train": (...), ...}
    write_videos(load_split("didemo", "test", folder / "annotations"), folder / "videos")

Each split has num_videos videos of its own (where val is the test officially, it is here). Captions name what
`write_videos` draws: one plain colour a video.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

from model.datasets.records import Clip, Split, SplitName
from tests.support.clips import solid_clip

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
COLOURS = {
    "red": (220, 30, 30), "green": (30, 180, 40), "blue": (40, 60, 220), "yellow": (230, 220, 40),
    "purple": (150, 40, 170), "orange": (240, 140, 30), "white": (240, 240, 240), "black": (15, 15, 15),
}  # fmt: skip


def write_annotations(name: str, folder: Path, num_videos: int = 4) -> dict[SplitName, tuple[str, ...]]:
    """Every split of a dataset of model.datasets.protocols.DATASETS; the ids of each split's clips in order."""
    folder.mkdir(parents=True, exist_ok=True)
    return WRITERS[name](folder, num_videos)


def write_videos(
    split: Split, folder: Path, suffix: str = ".mp4", duration_s: float = 2.0, fps: float = 10
) -> dict[str, Path]:
    """A tiny video of one colour for each clip of the split: the colour its captions name. Clip id -> file."""
    paths: dict[str, Path] = {}
    for clip in split.clips:
        path = folder / (clip.video if clip.video.endswith((".avi", ".mp4")) else clip.video + suffix)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            codec = "mpeg4" if path.suffix == ".avi" else "libx264"
            solid_clip(path, COLOURS[_colour_of(clip)], duration_s, fps, codec=codec)
        paths[clip.id] = path
    return paths


def sentences(video: str, position: int, num: int) -> list[str]:
    """num sentences about a video of the colour of that position."""
    colour = list(COLOURS)[position % len(COLOURS)]
    return [f"caption {i} of {video}: the whole picture is {colour}" for i in range(num)]


def _colour_of(clip: Clip) -> str:
    words = clip.captions[0].replace(",", " ").split()
    return next((word for word in words if word in COLOURS), "black")


def _msrvtt(folder: Path, num: int, first_of: dict[SplitName, int]) -> dict[SplitName, list[str]]:
    """MSRVTT_data.json as the MSR-VTT release lays it out; videos of each split from the given number on."""
    videos, captions = [], []
    ids: dict[SplitName, list[str]] = {}
    for split, said in zip(SPLITS, ("train", "validate", "test"), strict=True):
        ids[split] = [f"video{first_of[split] + i}" for i in range(num)]
        for i, video in enumerate(ids[split]):
            videos.append(
                {
                    "category": 9,
                    "url": f"https://www.youtube.com/watch?v=9lZi22qLlE{i}",
                    "video_id": video,
                    "start time": 137.72,
                    "end time": 149.44,
                    "split": said,
                    "id": len(videos),
                }
            )
            for caption in sentences(video, i, 3):
                captions.append({"caption": caption, "video_id": video, "sen_id": len(captions)})
    _json(folder / "MSRVTT_data.json", {"info": {"year": "2016"}, "videos": videos, "sentences": captions})
    return ids


def _msrvtt_1ka(folder: Path, num: int) -> dict[SplitName, tuple[str, ...]]:
    ids = _msrvtt(folder, num, {"train": 0, "val": 6513, "test": 7010})
    for kind in ("9k", "7k"):
        _lines(folder / f"MSRVTT_train.{kind}.csv", ["video_id", *ids["train"]])
    rows = [
        f'ret{i},msr{video[5:]},{video},"{sentences(video, i, 1)[0]}, as someone said"'
        for i, video in enumerate(ids["test"])
    ]
    _lines(folder / "MSRVTT_JSFUSION_test.csv", ["key,vid_key,video_id,sentence", *rows])
    return {"train": tuple(ids["train"]), "val": tuple(ids["test"]), "test": tuple(ids["test"])}


def _msrvtt_full(folder: Path, num: int) -> dict[SplitName, tuple[str, ...]]:
    ids = _msrvtt(folder, num, {"train": 0, "val": 6513, "test": 7010})
    return {split: tuple(ids[split]) for split in SPLITS}


def _msvd(folder: Path, num: int) -> dict[SplitName, tuple[str, ...]]:
    ids: dict[SplitName, tuple[str, ...]] = {
        split: tuple(f"{stem}Vid_{i}_{i + 10}" for i in range(num))
        for split, stem in zip(SPLITS, ("-4wsu", "bQJQ", "mv8j"), strict=True)
    }
    captions: dict[str, list[list[str]]] = {}
    for split in SPLITS:
        for i, video in enumerate(ids[split]):
            captions[video] = [caption.split(" ") for caption in sentences(video, i, 2 + i % 3)]
        _lines(folder / f"{split}_list.txt", ids[split])
    (folder / "raw-captions.pkl").write_bytes(pickle.dumps(captions, protocol=2))
    return ids


def _lsmdc(folder: Path, num: int) -> dict[SplitName, tuple[str, ...]]:
    files = ("LSMDC16_annos_training.csv", "LSMDC16_annos_val.csv", "LSMDC16_challenge_1000_publictect.csv")
    ids: dict[SplitName, tuple[str, ...]] = {}
    for movie, (split, file) in enumerate(zip(SPLITS, files, strict=True)):
        stems = [f"000{movie}_American_Beauty_00.0{i}.51.926-00.0{i}.54.129" for i in range(num)]
        times = "00.00.51.926\t00.00.54.129\t00.00.51.926\t00.00.54.129"
        _lines(folder / file, [f"{stem}\t{times}\t{sentences(stem, i, 1)[0]}." for i, stem in enumerate(stems)])
        ids[split] = tuple(stems)
    return ids


def _didemo(folder: Path, num: int) -> dict[SplitName, tuple[str, ...]]:
    ids: dict[SplitName, tuple[str, ...]] = {}
    for number, split in enumerate(SPLITS):
        videos = [f"5432{number}086@N00_240859849{i}_274c77d26a.avi" for i in range(num)]
        entries = [
            {
                "annotation_id": i * 10 + j,
                "description": sentence,
                "dl_link": "https://www.flickr.com/video_download.gne?id=2408598493",
                "num_segments": 6,
                "times": [[0, 0], [0, 1]],
                "video": video,
            }
            for i, video in enumerate(videos)
            for j, sentence in enumerate(sentences(video, i, 3))
        ]
        _json(folder / f"{split}_data.json", entries)
        _lines(folder / f"{split}_list.txt", videos)
        ids[split] = tuple(videos)
    return ids


def _activitynet(folder: Path, num: int) -> dict[SplitName, tuple[str, ...]]:
    ids: dict[str, tuple[str, ...]] = {}
    for captions_file, ids_file, stem in (("train", "train_ids", "QOlS"), ("val_1", "val_ids", "uqiM")):
        videos = tuple(f"v_{stem}CBRmfW{i}" for i in range(num))
        entries = {
            video: {
                "duration": 1.3 + 0.2 * i,
                "timestamps": [[0, 0.7], [0.7, 1.3]],
                "sentences": [sentence + ("." if j else " ") for j, sentence in enumerate(sentences(video, i, 2))],
            }
            for i, video in enumerate(videos)
        }
        _json(folder / f"{captions_file}.json", entries)
        _json(folder / f"{ids_file}.json", list(videos))
        ids[captions_file] = videos
    return {"train": ids["train"], "val": ids["val_1"], "test": ids["val_1"]}


def _vatex(folder: Path, num: int) -> dict[SplitName, tuple[str, ...]]:
    ids: dict[SplitName, tuple[str, ...]] = {
        split: tuple(f"{stem}_2VRj-V{i}_000122_000132" for i in range(num))
        for split, stem in zip(SPLITS, ("Ptf", "G9z", "yKA"), strict=True)
    }
    for split in SPLITS:
        _lines(folder / f"{split}_list.txt", ids[split])
    _lines(folder / "test1k5_sec_list.txt", ids["test"][::-1])
    for release, splits in (("training", SPLITS[:1]), ("validation", SPLITS[1:])):
        entries = [
            {"videoID": video, "enCap": sentences(video, i, 3), "chCap": ["整个画面是红色的"]}
            for split in splits
            for i, video in enumerate(ids[split])
        ]
        _json(folder / f"vatex_{release}_v1.0.json", entries)
    return ids


def _vatex_1k5(folder: Path, num: int) -> dict[SplitName, tuple[str, ...]]:
    ids = _vatex(folder, num)
    return {**ids, "test": ids["test"][::-1]}


def _own(folder: Path, num: int) -> dict[SplitName, tuple[str, ...]]:
    ids: dict[SplitName, tuple[str, ...]] = {}
    for split in SPLITS:
        videos = tuple(f"{split}/holiday {i}" for i in range(num))
        entries = [{"video": video, "captions": sentences(video, i, 1 + i % 2)} for i, video in enumerate(videos)]
        _lines(folder / f"{split}.jsonl", [json.dumps(entry) for entry in entries])
        ids[split] = videos
    return ids


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def _lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


WRITERS: dict[str, Callable[[Path, int], dict[SplitName, tuple[str, ...]]]] = {
    "msrvtt-1ka": _msrvtt_1ka,
    "msrvtt-1ka-7k": _msrvtt_1ka,
    "msrvtt-full": _msrvtt_full,
    "msvd": _msvd,
    "lsmdc": _lsmdc,
    "didemo": _didemo,
    "activitynet": _activitynet,
    "vatex": _vatex,
    "vatex-1k5": _vatex_1k5,
    "folder": _own,
}
