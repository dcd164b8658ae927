"""The drawn-shapes data: endless training clips, and 1,000 held-out ones with slices.

The held-out set: 500 scenes of every kind, and 500 more that are 250 pairs of twins, scenes that differ in the
direction of one motion or in the order of two events and in nothing else. All 1,000 meanings differ, so every sentence
has one right answer. About half of it shows pairs of colour and shape that no training scene shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from model.tiny.scenes import HELD_OUT_LOOKS, KIND_WEIGHTS, LOOKS, Kind, Scene, describe, reshape, sample_scene, twin
from model.tiny.shapes import draw_clip
from model.types import Pixels

HELD_OUT_SEED = 20_260
NUM_MIXED, NUM_TWIN_PAIRS = 500, 250
TRAIN_LOOKS = tuple(look for look in LOOKS if look not in HELD_OUT_LOOKS)
SLICES: dict[str, Callable[[Item], bool]] = {
    "mixed": lambda item: not item.is_twin,
    "direction_and_order": lambda item: item.is_twin,
    "direction": lambda item: item.is_twin and item.scene.kind in ("one", "two"),
    "order": lambda item: item.is_twin and item.scene.kind == "then",
    "few_frames": lambda item: item.scene.kind == "flash",
    "unseen_combinations": lambda item: item.scene.has_held_out_look,
}


@dataclass(frozen=True, slots=True)
class Item:
    """A held-out clip: its scene, the sentence that is its query, and whether it stands beside a twin."""

    scene: Scene
    sentence: str
    is_twin: bool

    def pixels(self, num_frames: int, size: int = 96) -> Pixels:
        """(num_frames, size, size, 3) uint8 at the middles of equal parts of the clip."""
        return draw_clip(self.scene, (np.arange(num_frames) + 0.5) / num_frames, size)


def held_out(num_mixed: int = NUM_MIXED, num_twin_pairs: int = NUM_TWIN_PAIRS, seed: int = HELD_OUT_SEED) -> list[Item]:
    """The held-out clips in their fixed order; smaller numbers make a smaller set for tests."""
    rng = np.random.default_rng(seed)
    seen: set[tuple[object, ...]] = set()
    items: list[Item] = []
    while len(items) < num_mixed:
        scene = _sample(rng, KIND_WEIGHTS)
        if scene.meaning not in seen:
            seen.add(scene.meaning)
            items.append(Item(scene, describe(scene, rng), is_twin=False))
    turnable: dict[Kind, float] = {"one": 0.2, "two": 0.3, "then": 0.5}
    while len(items) < num_mixed + 2 * num_twin_pairs:
        scene = _sample(rng, turnable)
        other = twin(scene, rng)
        if seen.isdisjoint({scene.meaning, other.meaning}):
            seen |= {scene.meaning, other.meaning}
            items += [Item(one, describe(one, rng), is_twin=True) for one in (scene, other)]
    return items


def training_batches(
    batch_size: int, num_frames: int, size: int, seed: int
) -> Iterator[tuple[list[Pixels], list[str]]]:
    """Endless batches of clips and sentences with distinct meanings, full of hard negatives.

    Beside each scene stands its twin (direction or order turned round); beside every second one also the scene with one
    shape changed, and that one's twin. Instants are the served ones with a jitter of up
    to 0.4 of their spacing.
    """
    rng = np.random.default_rng(seed)
    while True:
        scenes: list[Scene] = []
        seen: set[tuple[object, ...]] = set()
        while len(scenes) < batch_size:
            group = _with_hard_negatives(sample_scene(rng, TRAIN_LOOKS), rng)
            if seen.isdisjoint(scene.meaning for scene in group):
                seen.update(scene.meaning for scene in group)
                scenes += group
        scenes = scenes[:batch_size]
        instants = (np.arange(num_frames) + 0.5 + rng.uniform(-0.4, 0.4, size=(len(scenes), num_frames))) / num_frames
        clips = [draw_clip(scene, at, size) for scene, at in zip(scenes, instants, strict=True)]
        yield clips, [describe(scene, rng) for scene in scenes]


def _with_hard_negatives(scene: Scene, rng: np.random.Generator) -> list[Scene]:
    group = [scene] if rng.random() < 0.5 else [scene, reshape(scene, rng, TRAIN_LOOKS)]
    return group if scene.kind == "flash" else group + [twin(one, rng) for one in group]


def _sample(rng: np.random.Generator, kinds: dict[Kind, float]) -> Scene:
    """A scene out of all looks; every second one shows a held-out pair of colour and shape for certain."""
    wants_held_out = bool(rng.random() < 0.4)
    while True:
        scene = sample_scene(rng, LOOKS, kinds)
        if scene.has_held_out_look or not wants_held_out:
            return scene
