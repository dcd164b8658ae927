"""Scenes, sentences and drawings of the tiny data, and its held-out set."""

from __future__ import annotations

import numpy as np
import pytest

from model.datasets.shapes import SLICES, TRAIN_LOOKS, held_out, training_batches
from model.tiny.scenes import HELD_OUT_LOOKS, LOOKS, Actor, Scene, describe, grammar_words, sample_scene, twin
from model.tiny.shapes import draw_clip
from model.tiny.vocabulary import END_OF_WORD, learn_merges

KINDS = ("one", "two", "then", "flash")


def centre_of(frame: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """(x, y) of what differs from the ground, as fractions."""
    away = np.abs(frame.astype(int) - ground.astype(int)).sum(-1) > 60
    ys, xs = np.nonzero(away)
    return np.array([xs.mean(), ys.mean()]) / len(frame)


def one(motion: str) -> Scene:
    return Scene("one", (Actor("white", "circle", motion, 0.5, 0.5, 0.14),), "plain", 3)


@pytest.mark.parametrize(("motion", "axis", "sign"), [("right", 0, 1), ("left", 0, -1), ("down", 1, 1), ("up", 1, -1)])
def test_shapes_move_the_way_the_sentence_says(motion: str, axis: int, sign: int) -> None:
    clip = draw_clip(one(motion), [0.1, 0.9], 96)
    ground = clip[0, 0, 0]
    way = centre_of(clip[1], ground) - centre_of(clip[0], ground)
    assert way[axis] * sign > 0.25
    assert abs(way[1 - axis]) < 0.02


def test_growing_shapes_grow() -> None:
    clip = draw_clip(one("grow"), [0.1, 0.9], 96).astype(int)
    first, last = ((np.abs(frame - clip[0, 0, 0]).sum(-1) > 60).sum() for frame in clip)
    assert last > 2 * first


def test_events_come_in_the_order_said() -> None:
    rng = np.random.default_rng(5)
    scene = sample_scene(rng, LOOKS, {"then": 1.0})
    first, second = scene.actors
    assert 0 < first.appears < second.appears < 1
    swapped = twin(scene, rng)
    assert [a.look for a in swapped.actors] == [second.look, first.look]
    assert swapped.actors[0].appears < swapped.actors[1].appears


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_is_a_clip(kind: str) -> None:
    scenes = [sample_scene(np.random.default_rng(9), LOOKS, {kind: 1.0}) for _ in range(2)]  # type: ignore[dict-item]
    assert scenes[0] == scenes[1]
    clips = [draw_clip(scene, [0.2, 0.5, 0.8], 48) for scene in scenes]
    assert clips[0].shape == (3, 48, 48, 3)
    np.testing.assert_array_equal(clips[0], clips[1])


def test_all_shapes_look_different() -> None:
    seen = set()
    for shape in sorted({shape for _, shape in LOOKS}):
        actor = Actor("white", shape, "still", 0.5, 0.5, 0.3)
        seen.add(draw_clip(Scene("one", (actor,), "plain", 1), [0.5], 64).tobytes())
    assert len(seen) == 6


def test_sentences_use_the_grammar_s_words_only() -> None:
    rng = np.random.default_rng(0)
    known = set(grammar_words())
    for _ in range(500):
        assert set(describe(sample_scene(rng, LOOKS), rng).replace(",", " ").split()) <= known


def test_every_word_becomes_one_token() -> None:
    words = grammar_words()
    merges = learn_merges(words)
    for word in words:
        pieces = [*word[:-1], word[-1] + END_OF_WORD]
        for pair in merges:
            i = 0
            while i < len(pieces) - 1:
                if (pieces[i], pieces[i + 1]) == pair:
                    pieces[i : i + 2] = ["".join(pair)]
                i += 1
        assert pieces == [word + END_OF_WORD]


def test_held_out_set_is_what_its_description_says() -> None:
    items = held_out()
    assert len(items) == 1000
    assert len({item.scene.meaning for item in items}) == 1000
    assert sum(SLICES["direction_and_order"](item) for item in items) == 500
    assert sum(SLICES["unseen_combinations"](item) for item in items) > 300
    assert [item.sentence for item in held_out()] == [item.sentence for item in items]
    for first, second in zip(items[500::2], items[501::2], strict=True):
        looks = [sorted(actor.look for actor in item.scene.actors) for item in (first, second)]
        assert looks[0] == looks[1]
        assert first.scene.meaning != second.scene.meaning


def test_training_never_shows_a_held_out_look() -> None:
    assert len(HELD_OUT_LOOKS) == 6
    assert HELD_OUT_LOOKS.isdisjoint(TRAIN_LOOKS)
    clips, sentences = next(training_batches(32, 8, 48, seed=1))
    assert len(clips) == len(sentences) == 32
    assert clips[0].shape == (8, 48, 48, 3)
    for colour, shape in HELD_OUT_LOOKS:
        assert not any(f"{colour} {shape}" in sentence for sentence in sentences)
