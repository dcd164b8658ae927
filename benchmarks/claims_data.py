"""The clips that the claims are tested on, drawn once: their frames as a frozen trunk's feature maps, and sentences.

A pool of training clips stands in groups, as in model.datasets.shapes: a scene, its twin (direction or order turned
round), for every second scene also one with a shape changed, and that one's twin. A pool is a folder of .npy files;
what reads it maps the file into memory. It knows no head and no optimiser.

Letters: N clips, F frames, L places of a feature map, C channels, K sentences per clip, W words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.backbone import Backbone
from model.datasets.shapes import TRAIN_LOOKS, Item
from model.tiny.scenes import Scene, describe, reshape, sample_scene, twin
from model.tiny.shapes import draw_clip
from model.types import Pixels

NUM_WORDS = 26
SENTENCES_PER_CLIP = 3
CLIPS_PER_BLOCK = 32
JITTER = 0.4
"""How far a training frame strays from its served instant, as a fraction of the spacing."""

BatchKind = Literal["twins_and_shapes", "twins", "random"]
"""What stands side by side in a batch: whole groups; scenes with their twins only; or any clips of the pool."""
FeatureMaps = Callable[[Sequence[Pixels]], NDArray[np.float16]]
"""Clips of F frames each -> (clips, F, L, C)."""


@dataclass(frozen=True, slots=True)
class Place:
    """A scene, the group it belongs to, and what it is there: 0 the scene, 1 reshaped, 2 and 3 the twins of both."""

    scene: Scene
    group: int
    role: int


@dataclass(frozen=True, slots=True)
class Clips:
    """maps (N, F, L, C) float16; ids and mask (N, K, W), the tokenizer's; group, role and meaning (N,) int64."""

    maps: NDArray[np.float16]
    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    group: NDArray[np.int64]
    role: NDArray[np.int64]
    meaning: NDArray[np.int64]


def sample_pool(num_clips: int, seed: int) -> list[Place]:
    """Training scenes in their groups; the last group may be cut."""
    rng = np.random.default_rng(seed)
    places: list[Place] = []
    group = 0
    while len(places) < num_clips:
        scene = sample_scene(rng, TRAIN_LOOKS)
        members = {0: scene} if rng.random() < 0.5 else {0: scene, 1: reshape(scene, rng, TRAIN_LOOKS)}
        if scene.kind != "flash":
            members |= {role + 2: twin(one, rng) for role, one in members.items()}
        places += [Place(one, group, role) for role, one in members.items()]
        group += 1
    return places[:num_clips]


def write_pool(
    folder: Path, places: Sequence[Place], num_frames: int, backbone: Backbone, maps_of: FeatureMaps, seed: int
) -> None:
    """Draw training clips, with jittered instants, and several sentences for each. A folder that is there is kept."""
    rng = np.random.default_rng(seed)
    sentences = [describe(place.scene, rng) for place in places for _ in range(SENTENCES_PER_CLIP)]
    shifts_NF = rng.uniform(-JITTER, JITTER, size=(len(places), num_frames))
    instants_NF = (np.arange(num_frames) + 0.5 + shifts_NF) / num_frames
    clips = (
        draw_clip(place.scene, instants_F, backbone.image_size)
        for place, instants_F in zip(places, instants_NF, strict=True)
    )
    meanings: dict[tuple[object, ...], int] = {}
    labels = {
        "group": [place.group for place in places],
        "role": [place.role for place in places],
        "meaning": [meanings.setdefault(place.scene.meaning, len(meanings)) for place in places],
    }
    _write(folder, clips, sentences, labels, num_frames, backbone, maps_of)


def write_items(folder: Path, items: Sequence[Item], num_frames: int, backbone: Backbone, maps_of: FeatureMaps) -> None:
    """Held-out clips at the served instants, with the one sentence of each. A folder that is there is kept."""
    clips = (item.pixels(num_frames, backbone.image_size) for item in items)
    order = list(range(len(items)))
    labels = {"group": order, "role": [0] * len(items), "meaning": order}
    _write(folder, clips, [item.sentence for item in items], labels, num_frames, backbone, maps_of)


def read_clips(folder: Path) -> Clips:
    """What write_pool or write_items left; the maps stay on disk until they are used."""
    parts = {name: np.load(folder / f"{name}.npy") for name in ("ids", "mask", "group", "role", "meaning")}
    return Clips(maps=np.load(folder / "maps.npy", mmap_mode="r"), **parts)


def batches(clips: Clips, kind: BatchKind, batch_size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Endless batches of clip indices, no two of one meaning; every group once before any comes again.

    A group of which a meaning is in the batch already is passed over until the next round.
    """
    rng = np.random.default_rng(seed)
    groups = _groups(clips, kind)
    while True:
        batch: list[int] = []
        seen: set[int] = set()
        for place in rng.permutation(len(groups)):
            members = groups[place]
            meanings = set(clips.meaning[members].tolist())
            if len(meanings) < len(members) or not seen.isdisjoint(meanings):
                continue
            batch += members
            seen |= meanings
            if len(batch) >= batch_size:
                yield np.array(batch[:batch_size])
                batch, seen = [], set()


def _groups(clips: Clips, kind: BatchKind) -> list[list[int]]:
    if kind == "random":
        return [[clip] for clip in range(len(clips.group))]
    found: dict[int, list[int]] = {}
    for clip, (group, role) in enumerate(zip(clips.group.tolist(), clips.role.tolist(), strict=True)):
        if kind == "twins_and_shapes" or role in (0, 2):
            found.setdefault(group, []).append(clip)
    return list(found.values())


def _write(
    folder: Path,
    clips: Iterator[Pixels],
    sentences: list[str],
    labels: dict[str, list[int]],
    num_frames: int,
    backbone: Backbone,
    maps_of: FeatureMaps,
) -> None:
    if folder.exists():
        return
    partial = folder.with_suffix(".partial")
    partial.mkdir(parents=True, exist_ok=True)
    num_clips = len(labels["group"])
    ids, mask, *_ = backbone.tokenize(sentences, NUM_WORDS)
    np.save(partial / "ids.npy", ids.reshape(num_clips, -1, NUM_WORDS).numpy())
    np.save(partial / "mask.npy", mask.reshape(num_clips, -1, NUM_WORDS).numpy())
    for name, values in labels.items():
        np.save(partial / f"{name}.npy", np.array(values, dtype=np.int64))
    maps: Any = None
    for start in range(0, num_clips, CLIPS_PER_BLOCK):
        block = maps_of([next(clips) for _ in range(min(CLIPS_PER_BLOCK, num_clips - start))])
        if maps is None:
            shape = (num_clips, num_frames, *block.shape[2:])
            maps = np.lib.format.open_memmap(partial / "maps.npy", mode="w+", dtype=np.float16, shape=shape)
        maps[start : start + len(block)] = block
    maps.flush()
    partial.rename(folder)
