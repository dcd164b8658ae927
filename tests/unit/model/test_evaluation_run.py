"""The run over a set: tiles and batches change nothing, features are kept, what can't be read is named."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.datasets.frames import FrameRule
from model.datasets.records import Clip, Split
from model.datasets.shapes import held_out
from model.errors import ClipUnreadable, DatasetError, ModelError, ShapeError
from model.evaluation.blocks import encode_texts, score_block
from model.evaluation.cache import FeatureCache
from model.evaluation.encode import EncodedClips, _batches, encode_clips, video_features
from model.evaluation.fit import fit_to_protocol
from model.evaluation.metrics import RetrievalRanks
from model.evaluation.published import PUBLISHED, published_rows
from model.evaluation.run import EvaluationOptions, evaluate, evaluate_shapes
from model.evaluation.sets import EvaluationSet, MeasuredClip, set_of_split
from model.families import KINDS
from model.families.clip4clip import PooledNetwork
from model.families.xclip import XClipNetwork
from model.heads.multi_grained import MultiGrainedHead
from model.network import MaskReading, Network, NetworkConfig
from model.served_model import ServedModel
from model.spec import build_spec
from model.types import HeadKind, Pixels
from tests.unit.model.small import small_backbone, small_network_of

MASKS: tuple[MaskReading, ...] = ("masked", "reference")
FRAMES = (1, 4, 2, 3, 4, 1, 2)
"""Real frames of each clip of the tests' split: lengths differ, so that padding counts."""


class CountingReader:
    """Draws noise that belongs to the clip, and counts. failing: ids of clips that can't be read."""

    def __init__(self, failing: tuple[str, ...] = ()) -> None:
        self.failing = failing
        self.read: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, path: Path, clip: Clip, num_frames: int, *, jitter_seed: int | None = None) -> Pixels:
        with self._lock:
            self.read.append(clip.id)
        if clip.id in self.failing:
            raise ClipUnreadable(f"clip {clip.id}: torn off.")
        number = int(clip.id)
        rng = np.random.default_rng(number)
        size = (min(FRAMES[number % len(FRAMES)], num_frames), 20 + number, 40, 3)
        return rng.integers(0, 255, size, dtype=np.uint8)


def split_of(folder: Path, *, is_multi_caption: bool = False, num_clips: int = 7) -> tuple[Split, dict[str, Path]]:
    """A split whose files are there, and empty."""
    words = ("dog", "red", "cat", "do", "re", "ca", "ab", "cd")
    clips = []
    for number in range(num_clips):
        captions = [f"{words[number % 8]} {words[(number + i) % 8]} {i}" for i in range(1 + 2 * number % 3)]
        clips.append(Clip(str(number), f"v{number}", tuple(captions if is_multi_caption else captions[:1])))
    paths = {clip.id: folder / f"{clip.video}.mp4" for clip in clips}
    for path in paths.values():
        path.touch()
    return Split("msvd" if is_multi_caption else "msrvtt-1ka", "test", tuple(clips), is_multi_caption), paths


def set_of(folder: Path, reader: CountingReader, **about: Any) -> EvaluationSet:
    split, paths = split_of(folder, **about)
    return set_of_split(split, paths, reader, FrameRule("clip4clip"))


def model_of(kind: HeadKind, folder: Path, masks: MaskReading = "masked") -> ServedModel:
    network = small_network_of(kind, folder, "seqTransf", masks=masks)
    return ServedModel(network, build_spec("small", network), torch.device("cpu"))


def encoded(network: Network, chosen: EvaluationSet) -> EncodedClips:
    return encode_clips(network, chosen, "any")


def keys_of(value: Any, depth: int = 0) -> Any:
    """The nested names of an answer, down to the figures."""
    if isinstance(value, dict) and depth < 2:
        return {name: keys_of(one, depth + 1) for name, one in value.items()}
    return None


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_give_the_whole_matrix(kind: HeadKind, masks: MaskReading, tmp_path: Path) -> None:
    network = model_of(kind, tmp_path, masks).network
    chosen = set_of(tmp_path, CountingReader(), is_multi_caption=True)
    videos = video_features(network, encoded(network, chosen))
    texts = encode_texts(network, chosen.texts)
    with torch.inference_mode():
        whole = network.similarity(texts, videos).numpy()
    for tile_floats in (1, 700, None):
        np.testing.assert_allclose(score_block(network, texts, videos, tile_floats=tile_floats), whole, atol=2e-5)
    for scorer in network.scorers:
        with torch.inference_mode():
            served = network.score(texts, videos, scorer).total.numpy()
        np.testing.assert_allclose(score_block(network, texts, videos, scorer, 100), served, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_stored_frames_give_what_encode_video_gives(kind: HeadKind, tmp_path: Path) -> None:
    """Through float16 for the served reading, exactly for the official one."""
    reader = CountingReader()
    for masks, gap in (("masked", 5e-3), ("reference", 2e-5)):
        model = model_of(kind, tmp_path, masks)
        chosen = set_of(tmp_path, reader)
        found = video_features(model.network, encoded(model.network, chosen))
        direct = model.encode_video([clip.read(4) for clip in chosen.clips])
        torch.testing.assert_close(found.mask, direct.mask)
        torch.testing.assert_close(found.pooled, direct.pooled, atol=gap, rtol=0)
        torch.testing.assert_close(found.frames, direct.frames, atol=2 * gap, rtol=gap)


@pytest.mark.parametrize("kind", KINDS)
def test_figures_of_many_captions_are_those_of_the_whole_matrix(kind: HeadKind, tmp_path: Path) -> None:
    model = model_of(kind, tmp_path)
    chosen = set_of(tmp_path, CountingReader(), is_multi_caption=True)
    found = evaluate(model, chosen)
    texts, videos = model.encode_text(chosen.texts), video_features(model.network, encoded(model.network, chosen))
    ranks = RetrievalRanks(len(chosen.clips), chosen.video_of_text)
    ranks.add(model.similarity(texts, videos).numpy())
    assert {way: found[way] for way in ("text_to_video", "video_to_text")} == ranks.figures()
    assert (found["num_texts"], found["num_videos"]) == (len(chosen.texts), 7)
    assert found["text_to_video"]["num"] == len(chosen.texts) > 7
    assert found["video_to_text"]["num"] == 7


@pytest.mark.parametrize("kind", KINDS)
def test_every_dataset_has_one_answer(kind: HeadKind, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    model = model_of(kind, tmp_path)
    shapes = evaluate_shapes(model, held_out(6, 3), lambda *now: told.append(now))
    single = evaluate(model, set_of(tmp_path, CountingReader()))
    multi = evaluate(model, set_of(tmp_path, CountingReader(), is_multi_caption=True))
    assert keys_of(single) == keys_of(multi)
    assert keys_of(shapes | {"slices": {}}) == keys_of(single)
    assert shapes["kind"] == kind and shapes["fingerprint"] == model.spec.fingerprint
    assert shapes["num_texts"] == shapes["num_videos"] == 12
    assert shapes["slices"]["direction_and_order"]["text_to_video"]["num"] == 6
    assert (shapes["published"], single["protocol"]["is_multi_caption"]) == ([], False)
    assert {row["published"] for row in single["published"]} == {True}
    assert [total for what, _, total in told if what == "scoring texts"][-1] == 12
    assert ("encoding videos", 12, 12) in told


def test_the_page_names_every_field(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    found = evaluate(model_of("clip4clip", tmp_path), set_of(tmp_path, CountingReader()))
    inner = ("protocol", "missing", "unreadable", "text_to_video", "cache", "timings_s")
    names = {*found, *found["published"][0], *(name for part in inner for name in found[part])}
    assert sorted(name for name in names if f"`{name}`" not in page) == []


def test_official_masks_count_ties_as_the_papers_do(tmp_path: Path) -> None:
    model = model_of("clip4clip", tmp_path, "reference")
    assert evaluate(model, set_of(tmp_path, CountingReader()))["protocol"]["ties"] == "official"
    assert evaluate_shapes(model, held_out(4, 1))["protocol"]["ties"] == "against"


@pytest.mark.parametrize("masks", MASKS)
def test_a_second_run_reads_nothing(masks: MaskReading, tmp_path: Path) -> None:
    model, reader = model_of("xclip", tmp_path, masks), CountingReader()
    chosen = set_of(tmp_path, reader)
    without = evaluate(model, chosen)
    runs = []
    for _ in range(2):
        reader.read.clear()
        cache = FeatureCache(tmp_path / "cache")
        runs.append((evaluate(model, chosen, EvaluationOptions(cache=cache)), len(reader.read), cache))
    (first, num_first, written), (second, num_second, kept) = runs
    assert (num_first, written.num_read, written.num_written) == (7, 0, 7)
    assert (num_second, kept.num_read, kept.num_written) == (0, 7, 0)
    assert kept.size_bytes == written.size_bytes == sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*.npz"))
    for way in ("text_to_video", "video_to_text"):
        assert first[way] == second[way] == without[way]


def test_other_weights_frames_or_files_are_not_taken_for_the_same(tmp_path: Path) -> None:
    reader, cache = CountingReader(), FeatureCache(tmp_path / "cache")
    network = small_network_of("clip4clip", tmp_path)
    split, paths = split_of(tmp_path)

    def reads(fingerprint: str = "a", rule: FrameRule | None = None, reading: str = "pyav-1") -> list[str]:
        reader.read.clear()
        chosen = set_of_split(split, paths, reader, rule or FrameRule("clip4clip"), reading=reading)
        encode_clips(network, chosen, fingerprint, cache)
        return sorted(reader.read)

    assert len(reads()) == 7 and reads() == []
    assert len(reads("b")) == 7
    assert len(reads(rule=FrameRule("clip2video", divisor=2))) == 7
    assert len(reads(reading="decord-1")) == 7
    paths["3"].write_bytes(b"another film")
    assert reads() == ["3"]
    split = replace(split, clips=tuple(replace(clip, end_s=2.0) if clip.id == "5" else clip for clip in split.clips))
    assert reads() == ["5"]
    network.reconfigure(num_frames=3)
    assert len(reads()) == 7
    network.reconfigure(masks="reference")
    assert len(reads()) == 7


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_entry_is_made_again(damage: str, tmp_path: Path) -> None:
    model, reader = model_of("xclip", tmp_path), CountingReader()
    chosen = set_of(tmp_path, reader)
    expected = evaluate(model, chosen, EvaluationOptions(cache=FeatureCache(tmp_path / "cache")))
    entries = sorted((tmp_path / "cache").rglob("*.npz"))
    content = bytearray(entries[0].read_bytes())
    if damage == "flip":
        with np.load(entries[0]) as stored:
            content[bytes(content).index(stored["frames"].tobytes()) + 5] ^= 0x01
    changed = {"cut": content[:-30], "flip": content, "empty": b"", "other": entries[1].read_bytes()}[damage]
    entries[0].write_bytes(changed)
    for num_reads, num_damaged in ((1, 1), (0, 0)):
        reader.read.clear()
        cache = FeatureCache(tmp_path / "cache")
        again = evaluate(model, chosen, EvaluationOptions(cache=cache))
        assert (len(reader.read), cache.num_damaged) == (num_reads, num_damaged)
        assert again["text_to_video"] == expected["text_to_video"]


def test_a_run_that_ends_midway_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.evaluation.encode.FRAMES_PER_BATCH", 4)
    network, reader = small_network_of("xclip", tmp_path), CountingReader()
    chosen = set_of(tmp_path, reader)

    def broken(num_frames: int) -> Pixels:
        raise KeyboardInterrupt

    torn = replace(chosen, clips=(*chosen.clips[:5], replace(chosen.clips[5], read=broken), chosen.clips[6]))
    with pytest.raises(KeyboardInterrupt):
        encode_clips(network, torn, "a", FeatureCache(tmp_path / "cache"))
    cache = FeatureCache(tmp_path / "cache")
    encode_clips(network, chosen, "a", cache)
    assert cache.num_read >= 3
    assert cache.num_read + cache.num_written == 7


def test_a_cache_that_cannot_be_written_costs_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file, no folder")
    cache = FeatureCache(tmp_path / "cache")
    found = evaluate(model_of("xclip", tmp_path), set_of(tmp_path, CountingReader()), EvaluationOptions(cache=cache))
    assert found["cache"]["num_written"] == 0
    assert sum("can no longer be kept" in record.message for record in caplog.records) == 1


def test_what_cannot_be_read_ends_the_run_or_is_named(tmp_path: Path) -> None:
    model = model_of("clip2video", tmp_path)
    chosen = set_of(tmp_path, CountingReader(failing=("2", "4")), is_multi_caption=True)
    with pytest.raises(DatasetError, match=r"2 of 7 clips can't be read: clip 2: torn off.*clip 4"):
        evaluate(model, chosen)
    found = evaluate(model, chosen, EvaluationOptions(allow_missing=True, missing=["9"]))
    assert found["num_videos"] == 5 and found["text_to_video"]["num"] == found["num_texts"]
    assert found["unreadable"] == {"count": 2, "reasons": {i: f"clip {i}: torn off." for i in ("2", "4")}}
    assert found["missing"] == {"count": 1, "names": ["9"]}
    alone = evaluate(model, chosen.only({"0", "1", "3", "5", "6"}))
    assert alone["text_to_video"] == found["text_to_video"]
    with pytest.raises(DatasetError, match="2 of 2"):
        evaluate(model, chosen.only({"2", "4"}), EvaluationOptions(allow_missing=True))


def test_scores_that_are_no_numbers_end_the_run(tmp_path: Path) -> None:
    model = model_of("clip4clip", tmp_path)
    with torch.no_grad():
        next(model.network.backbone.clip.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="'small' gave scores that are not numbers"):
        evaluate(model, set_of(tmp_path, CountingReader()))


def test_a_reader_that_breaks_its_word_is_an_error(tmp_path: Path) -> None:
    clip = MeasuredClip("x", ("a text",), lambda num_frames: np.zeros((num_frames + 1, 8, 8, 3), np.uint8))
    with pytest.raises(ShapeError, match="clip x gave 5 frames"):
        encoded(small_network_of("xclip", tmp_path), EvaluationSet("any", "test", (clip,), FrameRule()))


def test_official_batches_of_many_captions_follow_the_captions() -> None:
    """Clips whose last caption falls into one batch of 64 captions are encoded together."""

    def batches(counts: list[int], masks: MaskReading, is_multi: bool = True) -> Iterator[tuple[int, int]]:
        clips = tuple(MeasuredClip(str(i), ("x",) * n, lambda f: np.zeros(0, np.uint8)) for i, n in enumerate(counts))
        found = _batches(EvaluationSet("any", "test", clips, FrameRule(), is_multi_caption=is_multi), masks)
        return ((part.start, part.stop) for part in found)

    assert list(batches([20] * 10, "reference")) == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert list(batches([200, 1, 1, 80], "reference")) == [(0, 3), (3, 4)]
    assert list(batches([20] * 130, "masked")) == [(0, 64), (64, 128), (128, 130)]
    assert list(batches([1] * 70, "reference", is_multi=False)) == [(0, 64), (64, 70)]


def test_words_and_frames_are_the_protocols_where_weights_leave_them_open(tmp_path: Path) -> None:
    chosen = replace(set_of(tmp_path, CountingReader()), num_words=12, num_frames=6)
    for kind in ("clip4clip", "tight", "clip2video"):
        network = model_of(kind, tmp_path).network  # type: ignore[arg-type]
        assert fit_to_protocol(network, chosen) == []
        assert (network.num_words, network.num_frames) == (12, 6)
        evaluate(ServedModel(network, build_spec("x", network), torch.device("cpu")), chosen)
    trained = model_of("xclip", tmp_path).network
    words, frames = fit_to_protocol(trained, chosen)
    assert "W=8" in words and "W=12" in words and "F=4" in frames and "F=6" in frames
    assert (trained.num_words, trained.num_frames) == (8, 4)


def test_untrained_matrices_are_made_to_fit(tmp_path: Path) -> None:
    chosen = replace(set_of(tmp_path, CountingReader()), num_words=12, num_frames=6)
    network = XClipNetwork(small_backbone(tmp_path), NetworkConfig("xclip", 8, 4, masks="reference"))
    assert fit_to_protocol(network, chosen) == [] and network.masks == "reference"
    assert network.head.word_mat_weight2.shape == (12, 12) and network.head.frame_logit_weight.shape == (6, 6)
    assert isinstance(network.head, MultiGrainedHead)
    evaluate(ServedModel(network, build_spec("x", network), torch.device("cpu")), chosen)


def test_what_the_towers_and_positions_cannot_hold_is_said(tmp_path: Path) -> None:
    chosen = replace(set_of(tmp_path, CountingReader()), num_words=64, num_frames=64)
    network = model_of("clip4clip", tmp_path).network
    assert isinstance(network, PooledNetwork)
    words, frames = fit_to_protocol(network, chosen)
    assert (network.num_words, network.num_frames) == (
        16,
        16,
    )  # the small tower's context, the small table of positions
    assert "takes no more" in words and "F=16" in frames
    asked = fit_to_protocol(network, replace(chosen, num_words=16), num_frames=5)
    assert network.num_frames == 5 and "as was asked for" in asked[0]


def test_published_rows_are_marked_and_belong_to_a_test() -> None:
    assert len(PUBLISHED) == 55
    assert published_rows("shapes") == published_rows("msrvtt-1ka", "val") == ()
    best = next(row for row in published_rows("msrvtt-1ka") if (row.model, row.towers) == ("X-CLIP", "B/16"))
    assert best.text_to_video == {"r1": 0.493, "r5": 0.758, "r10": 0.848, "mdr": 2, "mnr": 12.2}
    for row in PUBLISHED:
        told = row.as_dict()
        assert told["published"] is True and "arXiv:" in told["source"]
        for way in ("text_to_video", "video_to_text"):
            figures = [told[way][k] for k in ("r1", "r5", "r10") if k in told[way]]
            assert figures == sorted(figures) and 0 < figures[0] < 1 and told[way]["mnr"] >= 1
