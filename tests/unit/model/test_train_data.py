"""What a step is given: the same rows for the same step, whoever asks; padding; clips that can't be read."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from model.datasets.records import Clip, Split
from model.errors import ClipUnreadable, DatasetError
from model.training.batches import MAX_SUBSTITUTES, Pairs, ShapesPairs, SplitPairs, collate
from model.training.prefetch import made_ahead
from model.training.step import inputs_of
from model.types import Pixels
from tests.unit.model.small import small_network

NUM_CLIPS, BATCH = 7, 4
SPLIT = Split(
    "folder", "train", tuple(Clip(f"c{i}", f"c{i}", (f"one {i}", f"two {i}")) for i in range(NUM_CLIPS)), True
)
PATHS = {clip.id: Path(clip.id) for clip in SPLIT.clips}


class Reader:
    """Frames that show the clip's number; some can't be read."""

    def __init__(self, unreadable: frozenset[str] = frozenset()) -> None:
        self.unreadable = unreadable
        self.seeds: list[int | None] = []

    def __call__(self, path: Path, clip: Clip, num_frames: int, *, jitter_seed: int | None = None) -> Pixels:
        if clip.id in self.unreadable:
            raise ClipUnreadable(f"clip {clip.id} is broken")
        self.seeds.append(jitter_seed)
        number = int(clip.id[1:])
        return np.full((min(num_frames, number + 1), 32, 32, 3), number, np.uint8)


def source(reader: Reader | None = None, told: list[str] | None = None, seed: int = 1) -> SplitPairs:
    said = [] if told is None else told
    return SplitPairs(
        SPLIT,
        PATHS,
        reader or Reader(),
        batch_size=BATCH,
        num_frames=4,
        seed=seed,
        on_unreadable=lambda error, step: said.append(f"{step}: {error.message}"),
    )


def rows(pairs: Pairs) -> list[tuple[int, str]]:
    return [(int(clip[0, 0, 0, 0]), text) for clip, text in zip(pairs.clips, pairs.sentences, strict=True)]


def test_frames_move_by_the_seed_the_epoch_and_the_pair() -> None:
    """Every pair has a seed of its own, another in the next epoch, and the same when a run is resumed there."""
    first, again = Reader(), Reader()
    for step in range(6):
        source(first).load(step, range(BATCH), map)
        source(again).load(step, range(BATCH), map)
    assert first.seeds == again.seeds and None not in first.seeds
    assert len(set(first.seeds)) == 6 * BATCH


def test_an_epoch_goes_once_through_the_pairs_and_drops_what_fills_no_batch() -> None:
    one = source()
    assert one.steps_per_epoch == 3
    epochs = [
        [row for step in range(e * 3, e * 3 + 3) for row in rows(one.load(step, range(BATCH), map))] for e in (0, 1)
    ]
    for epoch in epochs:
        assert len(set(epoch)) == 12
        assert all(text.endswith(str(number)) for number, text in epoch)
    assert epochs[0] != epochs[1]


def test_a_step_has_its_rows_whoever_asks_and_however_many_share_it() -> None:
    whole = rows(source().load(4, range(BATCH), map))
    other = source()
    other.load(0, range(BATCH), map)
    halves = [*rows(other.load(4, range(2), map)), *rows(other.load(4, range(2, 4), map))]
    assert halves == whole
    assert rows(source(seed=2).load(4, range(BATCH), map)) != whole


def test_another_clip_stands_in_for_one_that_cannot_be_read() -> None:
    told: list[str] = []
    whole, mended = source(), source(Reader(frozenset({"c2", "c5"})), told)
    for step in range(3):
        before, after = (rows(one.load(step, range(BATCH), map)) for one in (whole, mended))
        assert len(after) == BATCH and not {2, 5} & {number for number, _ in after}
        assert [row for row in after if row in before] == [row for row in before if row[0] not in (2, 5)]
    assert sorted(line.split(": ")[1] for line in told) == ["clip c2 is broken", "clip c5 is broken"]
    again = source(Reader(frozenset({"c2", "c5"})))
    assert rows(again.load(2, range(BATCH), map)) == after


def test_nothing_readable_is_an_error_that_says_so() -> None:
    broken = source(Reader(frozenset(PATHS)))
    with pytest.raises(DatasetError, match=f"{MAX_SUBSTITUTES} clips in a row"):
        broken.load(0, range(BATCH), map)


def test_too_few_pairs_for_a_batch_are_an_error() -> None:
    with pytest.raises(DatasetError, match=r"14 pairs .* a batch takes 15"):
        SplitPairs(SPLIT, PATHS, Reader(), batch_size=15, num_frames=4, seed=1, on_unreadable=lambda error, step: None)


def test_shapes_of_a_step_follow_from_the_seed() -> None:
    first, second = (ShapesPairs(6, 4, 32, 3).load(5, range(6), map) for _ in range(2))
    assert first.sentences == second.sentences
    np.testing.assert_array_equal(np.stack(first.clips), np.stack(second.clips))
    assert ShapesPairs(6, 4, 32, 3).load(5, range(2, 4), map).sentences == first.sentences[2:4]
    assert ShapesPairs(6, 4, 32, 3).load(6, range(6), map).sentences != first.sentences
    assert ShapesPairs(6, 4, 32, 4).load(5, range(6), map).sentences != first.sentences


def test_padding_is_zero_after_normalisation(tmp_path: Path) -> None:
    network = small_network(tmp_path)
    clips = [np.full((n, 32, 32, 3), 200, np.uint8) for n in (1, 4)]
    batch = collate(Pairs(clips, ["a dog", "red cat"]), network.backbone, 8, 4)
    assert batch.frame_mask.tolist() == [[True, False, False, False], [True] * 4]
    inputs = inputs_of(batch, network, torch.device("cpu"))
    assert inputs.pixels.shape == (2, 4, 3, 32, 32)
    assert not inputs.pixels[0, 1:].any()
    torch.testing.assert_close(inputs.pixels[1], network.backbone.preprocess(clips[1]), atol=0, rtol=0)
    assert inputs.ids.shape == (2, 8) and inputs.word_mask.sum(1).tolist() == [4, 4]


def test_batches_come_in_order_and_a_failure_where_its_batch_would() -> None:
    threads: set[str] = set()

    def make(step: int, each: object) -> int:
        threads.add(threading.current_thread().name)
        if step == 5:
            raise DatasetError("five")
        return step

    seen = []
    with made_ahead(make, 2, 9, workers=2) as batches, pytest.raises(DatasetError, match="five"):
        for one in batches:
            seen.append(one)
    assert seen == [2, 3, 4]
    assert threading.current_thread().name not in threads
    with made_ahead(make, 3, 3, workers=1) as batches:
        assert list(batches) == []
