"""From a file to features, with a sandbox and a model that need no decoder and no weights."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import FileChanged, FileMissing, UnsupportedMedia, VideoTooLong, VideoUndecodable
from indexer.media.sandbox import DecodeSandbox
from indexer.pipeline import IndexedVideo, PipelineConfig, cut_batches, encode_batch, index_video
from indexer.records import Frames, JobStage, Video
from indexer.segments import plan_segments
from model.registry import load_model
from model.resize import FrameResize
from model.types import Pixels, VideoFeatures
from tests.support.clips import numbered_frames, write_clip
from tests.support.fake_sandbox import FakeSandbox, write_fake_video
from tests.support.fakes import FakeModel
from tests.support.tiny import untrained_tiny

CONFIG = PipelineConfig(max_segment_s=2.0, batch_segments=2)


def video_at(path: Path) -> Video:
    """The record of a file as it is now."""
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return Video(sha256[:16], sha256, "t", path, False, len(content), {}, "pending", 0.0, None, 0, None)


def ignore(stage: JobStage, done: int, total: int) -> None:
    """Progress nobody looks at."""


def index(video: Video, sandbox: FakeSandbox | None = None, config: PipelineConfig = CONFIG) -> IndexedVideo:
    return index_video(video, sandbox or FakeSandbox(), FakeModel(), config, ignore)


def test_segments_tile_the_video_and_hold_what_the_model_saw(tmp_path: Path) -> None:
    video = video_at(write_fake_video(tmp_path / "v", 7.0, "red"))
    indexed = index(video)
    assert indexed.media.duration_s == 7.0
    edges = [(segment.start_s, segment.end_s) for segment in indexed.segments]
    assert edges[0][0] == 0.0 and edges[-1][1] == 7.0
    assert all(before[1] == after[0] for before, after in pairwise(edges))
    red = FakeModel().encode_video([np.full((1, 8, 8, 3), (220, 30, 30), dtype=np.uint8)]).pooled[0].numpy()
    for segment in indexed.segments:
        assert segment.pooled.dtype == segment.frames.dtype == np.float16
        assert segment.frames.shape == (len(segment.times_s), 16)
        assert all(segment.start_s <= time_s < segment.end_s for time_s in segment.times_s)
        np.testing.assert_allclose(segment.pooled, red, atol=1e-3)


def test_a_video_with_fewer_frames_than_slots_has_no_padding_stored(tmp_path: Path) -> None:
    (segment,) = index(video_at(write_fake_video(tmp_path / "v", 0.08, "red"))).segments
    assert segment.times_s == (0.0, 0.04)
    assert segment.frames.shape == (2, 16)


def test_batches_do_not_change_the_features(tmp_path: Path) -> None:
    video = video_at(write_fake_video(tmp_path / "v", 21.0, "blue"))
    one, many = (index(video, config=PipelineConfig(2.0, size)).segments for size in (1, 100))
    assert len(one) == len(many) > 8
    for left, right in zip(one, many, strict=True):
        assert left.times_s == right.times_s
        np.testing.assert_array_equal(left.frames, right.frames)


class RecordingModel(FakeModel):
    """Notes how many segments came in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
        self.sizes.append(len(segments))
        return super().encode_video(segments)


@pytest.mark.parametrize(
    ("config", "sizes"), [(PipelineConfig(2.0, 3), [3, 2]), (PipelineConfig(2.0, 3, 32 * 32 * 3 * 8), [2, 2, 1])]
)
def test_batches_have_two_limits(tmp_path: Path, config: PipelineConfig, sizes: list[int]) -> None:
    model = RecordingModel()
    video = video_at(write_fake_video(tmp_path / "v", 10.0, "red"))
    index_video(video, FakeSandbox(), model, config, ignore)
    assert model.sizes == sizes


def test_the_next_batch_is_decoded_while_this_one_is_encoded(tmp_path: Path) -> None:
    """The model waits for the second batch's reading to have begun: without a thread of its own it never would."""
    second_batch_begun = threading.Event()

    class Sandbox(FakeSandbox):
        def read_frames(self, path: Path, instants_s: Sequence[float], resize: FrameResize | None = None) -> Frames:
            if instants_s[0] >= 2.0:
                second_batch_begun.set()
            return super().read_frames(path, instants_s, resize)

    class Model(FakeModel):
        def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
            assert second_batch_begun.wait(30)
            return super().encode_video(segments)

    video = video_at(write_fake_video(tmp_path / "v", 4.0, "red"))
    index_video(video, Sandbox(), Model(), PipelineConfig(2.0, 1), ignore)


def test_progress_is_told_in_segments(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    video = video_at(write_fake_video(tmp_path / "v", 10.0, "red"))
    index_video(video, FakeSandbox(), FakeModel(), CONFIG, lambda *step: told.append(step))
    assert told == [
        ("probe", 0, 0),
        ("encode", 0, 5),
        ("encode", 2, 5),
        ("encode", 4, 5),
        ("encode", 5, 5),
        ("publish", 5, 5),
    ]


def test_whoever_is_told_may_stop_the_work_and_no_reading_goes_on(tmp_path: Path) -> None:
    sandbox = FakeSandbox()

    def stop(stage: JobStage, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    video = video_at(write_fake_video(tmp_path / "v", 100.0, "red"))
    with pytest.raises(KeyboardInterrupt):
        index_video(video, sandbox, FakeModel(), CONFIG, stop)
    num_calls = len(sandbox.calls)
    assert num_calls <= 1 + 3 * CONFIG.batch_segments
    assert not [t for t in threading.enumerate() if t.name.startswith("decode-ahead")]


def test_a_video_too_long_is_refused_before_any_frame_is_read(tmp_path: Path) -> None:
    sandbox = FakeSandbox()
    video = video_at(write_fake_video(tmp_path / "v", 61.0, "red"))
    with pytest.raises(VideoTooLong, match="61 s; at most 60 s"):
        index(video, sandbox, PipelineConfig(max_video_s=60.0))
    assert sandbox.calls == ["probe"]


def test_one_bad_stretch_fails_the_video(tmp_path: Path) -> None:
    video = video_at(write_fake_video(tmp_path / "v", 20.0, "red", bad_from_s=11.0))
    with pytest.raises(VideoUndecodable, match="from 11"):
        index(video)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v").write_text("a letter")
    with pytest.raises(UnsupportedMedia):
        index(video_at(tmp_path / "v"))


def test_a_segment_without_frames_is_an_error(tmp_path: Path) -> None:
    class Sandbox(FakeSandbox):
        def read_frames(self, path: Path, instants_s: Sequence[float], resize: FrameResize | None = None) -> Frames:
            return Frames(np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0))

    with pytest.raises(VideoUndecodable, match="No frame could be read"):
        index(video_at(write_fake_video(tmp_path / "v", 3.0, "red")), Sandbox())


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    video = video_at(write_fake_video(tmp_path / "v", 3.0, "red"))
    (tmp_path / "v").unlink()
    with pytest.raises(FileMissing, match=str(tmp_path / "v")):
        index(video)


@pytest.mark.parametrize("content", ["fake-video 3.0 blue None\nv\n", "fake-video 3.0 red None\nv\nlonger", ""])
def test_other_content_is_never_indexed_under_the_old_hash(tmp_path: Path, content: str) -> None:
    path = write_fake_video(tmp_path / "v", 3.0, "green" if "blue" in content else "red")
    video = video_at(path)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text(content.replace("blue ", "blue  "))  # of the same length as "green" was
    os.utime(path, ns=times)
    with pytest.raises(FileChanged):
        index(video)


def test_a_file_that_changes_while_it_is_read_is_not_indexed(tmp_path: Path) -> None:
    path = write_fake_video(tmp_path / "v", 10.0, "red")
    video = video_at(path)

    class Sandbox(FakeSandbox):
        def read_frames(self, path: Path, instants_s: Sequence[float], resize: FrameResize | None = None) -> Frames:
            write_fake_video(path, 10.0, "blue")
            return super().read_frames(path, instants_s, resize)

    with pytest.raises(FileChanged, match="while it was read"):
        index(video, Sandbox())


def test_who_stops_waits_for_one_segment_and_not_for_a_batch(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    sandbox = FakeSandbox(delay_s=0.05)

    def stop_at_once(stage: JobStage, done: int, total: int) -> None:
        if done:
            raise Stop

    config = PipelineConfig(max_segment_s=1.0, batch_segments=20)
    video = video_at(write_fake_video(tmp_path / "v", 40.0, "red"))
    with pytest.raises(Stop):
        index_video(video, sandbox, FakeModel(), config, stop_at_once)
    assert 20 <= sandbox.calls.count("read_frames") <= 23


def test_a_batch_of_large_pictures_is_small() -> None:
    plans = plan_segments(80.0, 12, 10.0)
    assert [len(batch) for batch in cut_batches(plans, FrameResize(336), 8, 3 * 12 * 336 * 336 * 3)] == [3, 3, 2]
    assert [len(batch) for batch in cut_batches(plans, FrameResize(336), 8, 1)] == [1] * 8


@pytest.mark.parametrize(("size", "rotation_deg"), [((640, 360), 0), ((120, 200), 90), ((64, 64), 0)])
def test_frames_resized_in_the_child_give_the_same_features(
    tmp_path: Path, size: tuple[int, int], rotation_deg: int
) -> None:
    """Bit for bit: the resizing is the model's own, only in another process."""
    model = load_model(str(untrained_tiny(tmp_path / "model")), device="cpu")
    path = write_clip(tmp_path / "a.mp4", numbered_frames(30, size), 10, rotation_deg=rotation_deg)
    plans = plan_segments(3.0, model.spec.num_frames, 1.5)
    with DecodeSandbox() as sandbox:
        features = index_video(video_at(path), sandbox, model, PipelineConfig(1.5), ignore).segments
        raw = [sandbox.read_frames(path, plan.instants_s) for plan in plans]
        small = sandbox.read_frames(path, plans[0].instants_s, model.resize)
    side = model.spec.image_size
    assert small.pixels.shape == (len(raw[0].pixels), side, side, 3) != raw[0].pixels.shape or size == (side, side)
    for segment, expected in zip(features, encode_batch(plans, raw, model), strict=True):
        assert segment.times_s == expected.times_s
        np.testing.assert_array_equal(segment.pooled, expected.pooled)
        np.testing.assert_array_equal(segment.frames, expected.frames)
