"""From a file to features, with a sandbox and a model that need no decoder and no weights."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.errors import FileChanged, FileMissing, UnsupportedMedia, VideoTooLong, VideoUndecodable
from indexer.indexing.pipeline import Pipeline, PipelineConfig, index_video
from indexer.indexing.task import IndexedVideo, VideoTask
from indexer.media.sandbox import DecodeSandbox
from indexer.records import Frames, JobProgress, MediaInfo, Video
from model.registry import load_model
from model.types import Pixels, VideoFeatures
from tests.support.clips import numbered_frames, write_clip
from tests.support.fake_sandbox import FakeSandbox, write_fake_video
from tests.support.fakes import FakeModel
from tests.support.tiny import untrained_tiny

CONFIG = PipelineConfig(max_segment_s=2.0, batch_segments=2, num_cores=1)
WAIT_S = 30.0


def video_at(path: Path) -> Video:
    """The record of a file as it is now."""
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return Video(sha256[:16], sha256, "t", path, False, len(content), {}, "pending", 0.0, None, 0, None)


def index(video: Video, sandbox: FakeSandbox | None = None, config: PipelineConfig = CONFIG) -> IndexedVideo:
    return index_video(video, [sandbox or FakeSandbox()], FakeModel(), config)


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
    one, many = (index(video, config=PipelineConfig(2.0, batch_segments=size)).segments for size in (1, 100))
    assert len(one) == len(many) > 8
    for left, right in zip(one, many, strict=True):
        assert left.times_s == right.times_s
        np.testing.assert_array_equal(left.frames, right.frames)


class GatedModel(FakeModel):
    """Encodes once `gate` is open; notes how many segments came in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.called = threading.Event()
        self.sizes: list[int] = []

    def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
        self.called.set()
        assert self.gate.wait(WAIT_S)
        self.sizes.append(len(segments))
        return super().encode_video(segments)


def ended(pipeline: Pipeline, num: int) -> list[VideoTask]:
    """The next tasks to end."""
    tasks = []
    for _ in range(num):
        task = pipeline.next_ended(WAIT_S)
        assert task is not None
        tasks.append(task)
    return tasks


def wait_until(condition: Callable[[], bool]) -> None:
    """Until the condition holds, but not for ever."""
    give_up_at = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.001)


def test_segments_of_several_videos_are_encoded_in_one_call(tmp_path: Path) -> None:
    model, sandbox = GatedModel(), FakeSandbox()
    config = PipelineConfig(2.0, batch_segments=10, num_cores=1)
    with Pipeline([sandbox], model, config) as pipeline:
        tasks = [VideoTask(video_at(write_fake_video(tmp_path / name, 2.0, "red"))) for name in "abcd"]
        pipeline.submit(tasks[0])
        assert model.called.wait(WAIT_S)
        for task in tasks[1:]:
            pipeline.submit(task)
        wait_until(lambda: sandbox.calls.count("release") == 4)
        model.gate.set()
        assert ended(pipeline, 4) == tasks
    assert model.sizes == [1, 3]
    assert {len(task.result().segments) for task in tasks} == {1}


def test_a_batch_has_a_limit(tmp_path: Path) -> None:
    model, sandbox = GatedModel(), FakeSandbox()
    config = PipelineConfig(2.0, batch_segments=3, num_cores=1)
    with Pipeline([sandbox], model, config) as pipeline:
        pipeline.submit(VideoTask(video_at(write_fake_video(tmp_path / "v", 14.0, "red"))))
        assert model.called.wait(WAIT_S)
        wait_until(lambda: "release" in sandbox.calls)
        model.gate.set()
        ended(pipeline, 1)
    assert (max(model.sizes), sum(model.sizes)) == (3, 7)


def test_no_more_is_read_than_has_room(tmp_path: Path) -> None:
    """With room for three segments the fourth is read when the first is encoded."""
    model, sandbox = GatedModel(), FakeSandbox()
    segment_bytes = 32 * 32 * 3 * 4
    config = PipelineConfig(2.0, batch_segments=1, frame_bytes=3 * segment_bytes, num_cores=1)
    with Pipeline([sandbox], model, config) as pipeline:
        pipeline.submit(VideoTask(video_at(write_fake_video(tmp_path / "v", 40.0, "red"))))
        wait_until(lambda: sandbox.calls.count("read_frames") == 3)
        time.sleep(0.02)
        assert sandbox.calls.count("read_frames") == 3
        model.gate.set()
        (task,) = ended(pipeline, 1)
    assert len(task.result().segments) == 20


def test_a_segment_larger_than_all_the_room_is_read_alone(tmp_path: Path) -> None:
    config = PipelineConfig(2.0, frame_bytes=1, num_cores=1)
    assert len(index(video_at(write_fake_video(tmp_path / "v", 10.0, "red")), config=config).segments) == 5


def test_progress_counts_segments_frames_and_seconds(tmp_path: Path) -> None:
    model = GatedModel()
    video = video_at(write_fake_video(tmp_path / "v", 10.0, "red"))
    with Pipeline([FakeSandbox()], model, CONFIG) as pipeline:
        task = VideoTask(video)
        assert task.progress()[:2] == ("probe", JobProgress())
        pipeline.submit(task)
        assert model.called.wait(WAIT_S)
        assert task.progress()[:2] == ("encode", JobProgress(0, 5, 0, 0.0, 10.0))
        model.gate.set()
        ended(pipeline, 1)
    assert task.progress()[:2] == ("publish", JobProgress(5, 5, 20, 10.0, 10.0))


def test_a_failed_video_is_read_and_encoded_no_further(tmp_path: Path) -> None:
    model, sandbox = GatedModel(), FakeSandbox()
    config = PipelineConfig(2.0, batch_segments=1, num_cores=1, frame_bytes=5 * 32 * 32 * 3 * 4)
    with Pipeline([sandbox], model, config) as pipeline:
        stopped = VideoTask(video_at(write_fake_video(tmp_path / "a", 1000.0, "red")))
        other = VideoTask(video_at(write_fake_video(tmp_path / "b", 4.0, "blue")))
        pipeline.submit(stopped)
        pipeline.submit(other)
        wait_until(lambda: sandbox.calls.count("read_frames") == 5)
        pipeline.fail(stopped, RuntimeError("enough"))
        model.gate.set()
        assert ended(pipeline, 2) == [stopped, other]
    assert sandbox.calls.count("read_frames") == 5 + 2
    assert len(model.sizes) in (2, 3), "one of the stopped video may have been in the model"
    with pytest.raises(RuntimeError, match="enough"):
        stopped.result()


def test_one_bad_video_holds_up_no_other(tmp_path: Path) -> None:
    """The reader of the bad file hangs; the other reader indexes everything else."""
    hangs, go_on = threading.Event(), threading.Event()

    class Hanging(FakeSandbox):
        def probe(self, path: Path) -> MediaInfo:
            if path.name == "bad":
                hangs.set()
                assert go_on.wait(WAIT_S)
                raise UnsupportedMedia("no video")
            return super().probe(path)

    with Pipeline([Hanging(), Hanging()], FakeModel(), CONFIG) as pipeline:
        bad = VideoTask(video_at(write_fake_video(tmp_path / "bad", 4.0, "red")))
        good = [VideoTask(video_at(write_fake_video(tmp_path / f"{n}", 4.0, "red"))) for n in range(9)]
        pipeline.submit(bad)
        assert hangs.wait(WAIT_S)
        for task in good:
            pipeline.submit(task)
        assert set(ended(pipeline, 9)) == set(good)
        go_on.set()
        assert ended(pipeline, 1) == [bad]
    with pytest.raises(UnsupportedMedia):
        bad.result()


def test_where_a_batch_fails_only_the_video_at_fault_does(tmp_path: Path) -> None:
    sandbox = FakeSandbox()

    class Picky(GatedModel):
        def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
            encoded = super().encode_video(segments)
            if any(pixels[0, 0, 0, 2] > 200 for pixels in segments):
                raise RuntimeError("I don't like blue")
            return encoded

    model = Picky()
    with Pipeline([sandbox], model, PipelineConfig(2.0, batch_segments=8, num_cores=1)) as pipeline:
        colours = {"a": "red", "b": "red", "c": "blue", "d": "green"}
        tasks = {n: VideoTask(video_at(write_fake_video(tmp_path / n, 2.0, c))) for n, c in colours.items()}
        pipeline.submit(tasks["a"])
        assert model.called.wait(WAIT_S)
        for name in "bcd":
            pipeline.submit(tasks[name])
        wait_until(lambda: sandbox.calls.count("release") == 4)
        model.gate.set()
        ended(pipeline, 4)
    assert model.sizes == [1, 3, 1, 1, 1]
    assert {name: task.error is None for name, task in tasks.items()} == {"a": True, "b": True, "c": False, "d": True}


def test_an_idle_reader_takes_the_later_half_of_a_long_video(tmp_path: Path) -> None:
    class Indexed(FakeSandbox):
        """Says that it reads MP4, and notes where."""

        def __init__(self) -> None:
            super().__init__(delay_s=0.005)
            self.starts_s: list[float] = []

        def probe(self, path: Path) -> MediaInfo:
            return replace(super().probe(path), container="mp4")

        def read_frames(self, path: Path, instants_s: Sequence[float], *given: Any, **named: Any) -> Frames:
            self.starts_s.append(instants_s[0])
            return super().read_frames(path, instants_s, *given, **named)

    video = video_at(write_fake_video(tmp_path / "v", 80.0, "red"))
    sources = [Indexed(), Indexed(), Indexed()]
    indexed = index_video(video, sources, FakeModel(), PipelineConfig(2.0, num_cores=1))
    assert [segment.start_s for segment in indexed.segments] == [2.0 * n for n in range(40)]
    read = [source.starts_s for source in sources]
    assert sorted(start_s for starts_s in read for start_s in starts_s) == sorted({s for r in read for s in r})
    assert sum(map(len, read)) == 40
    assert all(len(starts_s) >= 4 for starts_s in read)


def test_a_container_without_an_index_is_read_by_one(tmp_path: Path) -> None:
    sources = [FakeSandbox(0.002), FakeSandbox(0.002)]
    index_video(video_at(write_fake_video(tmp_path / "v", 80.0, "red")), sources, FakeModel(), PipelineConfig(2.0))
    assert sorted(source.calls.count("read_frames") for source in sources) == [0, 40]


def test_a_closed_pipeline_leaves_no_thread(tmp_path: Path) -> None:
    sandbox = FakeSandbox(delay_s=0.01)
    with Pipeline([sandbox], FakeModel(), CONFIG) as pipeline:
        pipeline.submit(VideoTask(video_at(write_fake_video(tmp_path / "v", 1000.0, "red"))))
        wait_until(lambda: "read_frames" in sandbox.calls)
    num_calls = len(sandbox.calls)
    assert num_calls < 100
    assert not [t for t in threading.enumerate() if t.name.startswith(("reader", "encoder", "hasher"))]


def test_a_video_too_long_is_refused_before_any_frame_is_read(tmp_path: Path) -> None:
    sandbox = FakeSandbox()
    video = video_at(write_fake_video(tmp_path / "v", 61.0, "red"))
    with pytest.raises(VideoTooLong, match="61 s; at most 60 s"):
        index(video, sandbox, PipelineConfig(max_video_s=60.0))
    assert sandbox.calls == ["probe", "release"]


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
        def read_frames(self, path: Path, instants_s: Sequence[float], *given: Any, **named: Any) -> Frames:
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
    video = replace(video_at(path), mtime_ns=path.stat().st_mtime_ns)

    class Sandbox(FakeSandbox):
        def read_frames(self, path: Path, instants_s: Sequence[float], *given: Any, **named: Any) -> Frames:
            write_fake_video(path, 10.0, "blue")
            return super().read_frames(path, instants_s, *given, **named)

    with pytest.raises(FileChanged, match="while it was read"):
        index(video, Sandbox())


@pytest.mark.parametrize(("size", "rotation_deg"), [((640, 360), 0), ((120, 200), 90), ((64, 64), 0)])
def test_frames_resized_in_the_child_give_the_same_features(
    tmp_path: Path, size: tuple[int, int], rotation_deg: int
) -> None:
    """Bit for bit: the resizing is the model's own, only in another process."""

    class Unresized(DecodeSandbox):
        def read_frames(self, path: Path, instants_s: Sequence[float], *_: object, **__: object) -> Frames:
            return super().read_frames(path, instants_s)

    model = load_model(str(untrained_tiny(tmp_path / "model")), device="cpu")
    path = write_clip(tmp_path / "a.mp4", numbered_frames(30, size), 10, rotation_deg=rotation_deg)
    config = PipelineConfig(1.5, batch_segments=1, num_cores=1)
    with DecodeSandbox() as sandbox, Unresized() as unresized:
        segments = index_video(video_at(path), [sandbox], model, config).segments
        expected = index_video(video_at(path), [unresized], model, config).segments
        small = sandbox.read_frames(path, [0.0], model.resize).pixels
    assert small.shape == (1, model.spec.image_size, model.spec.image_size, 3)
    for segment, same in zip(segments, expected, strict=True):
        assert segment.times_s == same.times_s
        np.testing.assert_array_equal(segment.pooled, same.pooled)
        np.testing.assert_array_equal(segment.frames, same.frames)


def unreadable_stat(path: Path) -> Path:
    """A path whose file system answers until `is_broken` is set."""

    class Failing(type(path)):  # type: ignore[misc]
        is_broken = False

        def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
            if Failing.is_broken:
                raise OSError(errno.EIO, "Input/output error")
            return super().stat(follow_symlinks=follow_symlinks)

    return Failing(path)


def test_a_file_system_that_fails_ends_the_video_and_no_thread(tmp_path: Path) -> None:
    path = unreadable_stat(write_fake_video(tmp_path / "v", 2.0, "red"))
    video = replace(video_at(path), mtime_ns=path.stat().st_mtime_ns)

    class Failing(FakeModel):
        def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
            type(path).is_broken = True  # type: ignore[attr-defined]
            return super().encode_video(segments)

    with Pipeline([FakeSandbox()], Failing(), CONFIG) as pipeline:
        pipeline.submit(VideoTask(video))
        (task,) = ended(pipeline, 1)
        pipeline.submit(VideoTask(video_at(write_fake_video(tmp_path / "other", 2.0, "blue"))))
        (other,) = ended(pipeline, 1)
    with pytest.raises(OSError, match="Input/output error"):
        task.result()
    assert len(other.result().segments) == 1


def test_a_file_that_is_emptied_while_it_is_read_has_changed(tmp_path: Path) -> None:
    """Its content is another one, which says nothing about the one that was added."""
    path = write_fake_video(tmp_path / "v", 10.0, "red")

    class Emptying(FakeSandbox):
        def read_frames(self, path: Path, instants_s: Sequence[float], *given: Any, **named: Any) -> Frames:
            frames = super().read_frames(path, instants_s, *given, **named)
            if instants_s[-1] > 9:
                path.write_bytes(b"")
            return frames

    with pytest.raises(FileChanged, match="while it was read"):
        index(replace(video_at(path), mtime_ns=path.stat().st_mtime_ns), Emptying())


def test_a_batch_leaves_room_to_read_on(tmp_path: Path) -> None:
    """While one batch is encoded, the next is read, however large batches may be."""
    model, sandbox = GatedModel(), FakeSandbox()
    segment_bytes = 32 * 32 * 3 * 4
    config = PipelineConfig(2.0, batch_segments=100, frame_bytes=4 * segment_bytes, num_cores=1)
    with Pipeline([sandbox], model, config) as pipeline:
        first = VideoTask(video_at(write_fake_video(tmp_path / "a", 2.0, "red")))
        pipeline.submit(first)
        assert model.called.wait(WAIT_S)
        pipeline.submit(VideoTask(video_at(write_fake_video(tmp_path / "b", 40.0, "red"))))
        wait_until(lambda: sandbox.calls.count("read_frames") == 4)
        model.gate.set()
        ended(pipeline, 2)
    assert max(model.sizes) == 2


def test_a_new_file_waits_for_no_reader_of_a_long_one(tmp_path: Path) -> None:
    """Two readers share a long video; one of them leaves its part to the other as soon as a file waits."""
    gate = threading.Event()
    read_before: list[int] = []

    class Indexed(FakeSandbox):
        def probe(self, path: Path) -> MediaInfo:
            if path.name == "short":
                read_before.append(sum(source.calls.count("read_frames") for source in sources))
            return replace(super().probe(path), container="mp4")

        def read_frames(self, path: Path, instants_s: Sequence[float], *given: Any, **named: Any) -> Frames:
            frames = super().read_frames(path, instants_s, *given, **named)
            if path.name == "long":
                assert gate.wait(WAIT_S)
            return frames

    sources = [Indexed(), Indexed()]
    with Pipeline(sources, FakeModel(), CONFIG) as pipeline:
        long = VideoTask(video_at(write_fake_video(tmp_path / "long", 4000.0, "red")))
        short = VideoTask(video_at(write_fake_video(tmp_path / "short", 4.0, "blue")))
        pipeline.submit(long)
        wait_until(lambda: all("read_frames" in source.calls for source in sources))
        pipeline.submit(short)
        gate.set()
        assert ended(pipeline, 2) == [short, long]
    assert read_before[0] < 500
    assert sum(source.calls.count("read_frames") for source in sources) == 2000 + 2
    assert len(long.result().segments) == 2000


def test_a_video_that_ends_before_it_is_opened_is_never_read(tmp_path: Path) -> None:
    model, sandbox = GatedModel(), FakeSandbox()
    config = PipelineConfig(2.0, frame_bytes=1, num_cores=1)
    with Pipeline([sandbox], model, config) as pipeline:
        tasks = [VideoTask(video_at(write_fake_video(tmp_path / name, 4.0, "red"))) for name in "abc"]
        for task in tasks:
            pipeline.submit(task)
        assert model.called.wait(WAIT_S)
        pipeline.fail(tasks[1], RuntimeError("cancelled"))
        model.gate.set()
        assert ended(pipeline, 3) == [tasks[1], tasks[0], tasks[2]]
    assert sandbox.calls.count("probe") == 2


def test_a_file_is_hashed_even_where_no_thread_can_be_started(tmp_path: Path) -> None:
    class NoThreads(ThreadPoolExecutor):
        def submit(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("can't start new thread")

    path = write_fake_video(tmp_path / "v", 3.0, "red")
    with Pipeline([FakeSandbox()], FakeModel(), CONFIG) as pipeline:
        pipeline._hashers = NoThreads(1)
        same, other = VideoTask(video_at(path)), VideoTask(replace(video_at(path), sha256="0" * 64))
        pipeline.submit(same)
        pipeline.submit(other)
        assert set(ended(pipeline, 2)) == {same, other}
    assert same.error is None
    assert isinstance(other.error, FileChanged)
