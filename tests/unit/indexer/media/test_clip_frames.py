"""The frames of clips by every rule: the numbers drawn into the pictures are read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import DecodeInterrupted, SandboxClosed
from indexer.media.clip_frames import ClipFrames, clip_instants
from indexer.media.sandbox import DecodeSandbox
from indexer.records import Frames, MediaInfo
from model.datasets.frames import FrameReader, FrameRule
from model.datasets.load import find_videos, load_split
from model.datasets.records import Clip
from model.errors import ClipUnreadable
from model.resize import FrameResize
from model.sampling import clip2video_frames, clip4clip_frames
from model.types import Pixels
from tests.support.annotations import COLOURS, write_annotations, write_videos
from tests.support.clips import numbered_frames, read_number, write_clip
from tests.support.fake_sandbox import FakeSandbox, write_fake_video

CLIP4CLIP = FrameRule("clip4clip")
WHOLE = Clip("c", "c", ("caption",))
NTSC = Fraction(30000, 1001)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Callable[[], DecodeSandbox]]:
    """One child for all tests of this file."""
    with DecodeSandbox() as box:
        yield lambda: box


def numbers(pixels: Pixels) -> list[int | None]:
    return [read_number(frame) for frame in pixels]


def info(duration_s: float, fps: float = 25.0) -> MediaInfo:
    return MediaInfo(duration_s, fps, 64, 48, 0, "h264", "mp4", False)


@pytest.mark.parametrize(
    ("name", "fps", "num"),
    [("a.mp4", 25, 110), ("ntsc.mp4", NTSC, 130), ("ntsc.mkv", NTSC, 130), ("slow.avi", 10, 57)],
)
def test_clip4clip_takes_exactly_its_frames(
    name: str, fps: float, num: int, sandbox: Callable[[], DecodeSandbox], tmp_path: Path
) -> None:
    """Matroska rounds its times to milliseconds, 29.97 counts as 29: neither may give a neighbour."""
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    path = write_clip(tmp_path / name, numbered_frames(num), fps, codec, gop=12)
    for num_frames in (12, 3):
        found = numbers(ClipFrames(sandbox(), CLIP4CLIP)(path, WHOLE, num_frames))
        assert found == list(clip4clip_frames(num, float(fps), num_frames))


def test_clip2video_takes_its_fifths_of_a_second(sandbox: Callable[[], DecodeSandbox], tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", numbered_frames(100), 25)
    for divisor in (1, 2):
        found = numbers(ClipFrames(sandbox(), FrameRule("clip2video", divisor=divisor))(path, WHOLE, 6))
        # FFmpeg's 5 a second of 25: the k-th is the last input frame of time (k + 0.5) / 5 or before
        assert found == [5 * k + 2 for k in clip2video_frames(20, 6, divisor=divisor)]


def test_training_moves_the_inner_frames_of_clip2video_alone(
    sandbox: Callable[[], DecodeSandbox], tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "a.mp4", numbered_frames(100), 25)
    still = clip2video_frames(20, 4)
    moved = clip2video_frames(20, 4, jitter=np.random.RandomState(3))
    assert moved != still and (moved[0], moved[-1]) == (still[0], still[-1])
    found = numbers(ClipFrames(sandbox(), FrameRule("clip2video"))(path, WHOLE, 4, jitter_seed=3))
    assert found == [5 * k + 2 for k in moved]
    for rule in (CLIP4CLIP, FrameRule()):
        reader = ClipFrames(sandbox(), rule)
        assert numbers(reader(path, WHOLE, 4, jitter_seed=3)) == numbers(reader(path, WHOLE, 4))


def test_a_stretch_is_read_and_no_more(sandbox: Callable[[], DecodeSandbox], tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", numbered_frames(200), 25)
    clip = Clip("c", "c", ("caption",), start_s=2.0, end_s=4.0)
    assert numbers(ClipFrames(sandbox(), CLIP4CLIP)(path, clip, 12)) == [50, 75, 100]  # the end counts, officially
    served = numbers(ClipFrames(sandbox(), FrameRule())(path, clip, 4))
    assert served == [56, 68, 81, 93]


def test_didemo_asks_for_more_than_there_is(sandbox: Callable[[], DecodeSandbox], tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", numbered_frames(60), 25)
    clip = Clip("c", "c", ("caption",), start_s=0.0, end_s=31.0)
    assert numbers(ClipFrames(sandbox(), CLIP4CLIP)(path, clip, 64)) == [0, 25, 50]


def test_frames_are_resized_where_they_are_decoded(sandbox: Callable[[], DecodeSandbox], tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", numbered_frames(100), 25)
    resize = FrameResize(32)
    for rule in (FrameRule(), CLIP4CLIP):
        whole = ClipFrames(sandbox(), rule)(path, WHOLE, 10)
        small = ClipFrames(sandbox(), rule, resize)(path, WHOLE, 10)
        assert whole.shape[1:] == (128, 192, 3) and np.array_equal(small, resize(whole))


def test_a_long_picture_stands_once_as_it_is_served_and_again_officially(
    sandbox: Callable[[], DecodeSandbox], tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "a.mp4", numbered_frames(6), 2)
    assert numbers(ClipFrames(sandbox(), FrameRule())(path, WHOLE, 12)) == list(range(6))
    every = numbers(ClipFrames(sandbox(), FrameRule("clip2video"))(path, WHOLE, 15))
    assert every == [(2 * k + 1) // 5 for k in range(15)]


def test_a_very_short_video_gives_its_first_frame(tmp_path: Path) -> None:
    path = write_fake_video(tmp_path / "v", 0.1, "red")
    for rule in (CLIP4CLIP, FrameRule("clip2video", divisor=2)):
        assert len(ClipFrames(FakeSandbox(), rule)(path, WHOLE, 8)) == 1


@pytest.mark.parametrize("content", [b"", b"no video at all", None])
def test_a_damaged_video_is_one_clear_error(
    content: bytes | None, sandbox: Callable[[], DecodeSandbox], tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ClipUnreadable, match="clip c: ") as caught:
        ClipFrames(sandbox(), CLIP4CLIP)(path, WHOLE, 4)
    assert caught.value.code == "clip_unreadable"


@pytest.mark.parametrize(
    ("clip", "media", "rule", "told"),
    [
        (Clip("c", "c", ("x",), start_s=9.0), info(3.0), FrameRule(), "behind the end at 3 s"),
        (Clip("c", "c", ("x",), start_s=9.0, end_s=12.0), info(3.0), CLIP4CLIP, "behind the end"),
        (WHOLE, info(30.0, fps=0.5), CLIP4CLIP, "0.5 frames/s can't give"),
    ],
)
def test_a_clip_without_frames_says_why(clip: Clip, media: MediaInfo, rule: FrameRule, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        clip_instants(media, clip, rule, 4)


def test_a_clip_whose_stretch_is_not_there_is_unreadable(tmp_path: Path) -> None:
    path = write_fake_video(tmp_path / "v", 1.0, "red")
    with pytest.raises(ClipUnreadable, match=r"clip c: v: the stretch from 5 s"):
        ClipFrames(FakeSandbox(), CLIP4CLIP)(path, Clip("c", "c", ("x",), start_s=5.0), 4)


def test_fractions_of_a_second_are_widened_to_whole_ones() -> None:
    clip = Clip("c", "c", ("x",), start_s=1.5, end_s=1.9)
    assert clip_instants(info(10.0), clip, CLIP4CLIP, 12) == (25.5 / 25, 50.5 / 25)


def test_a_shutdown_is_not_blamed_on_the_clip(tmp_path: Path) -> None:
    box = DecodeSandbox()
    box.close()
    with pytest.raises(SandboxClosed):
        ClipFrames(box, CLIP4CLIP)(tmp_path / "a.mp4", WHOLE, 4)


@pytest.mark.parametrize(("num_kills", "is_read"), [(1, True), (2, False)])
def test_a_killed_decoder_costs_another_try(num_kills: int, is_read: bool, tmp_path: Path) -> None:
    class Killed(FakeSandbox):
        def read_frames(self, path: Path, instants_s: Sequence[float], resize: FrameResize | None = None) -> Frames:
            if self.calls.count("read_frames") < num_kills:
                self.calls.append("read_frames")
                raise DecodeInterrupted("The decoder was killed from outside (signal SIGKILL).", path=path)
            return super().read_frames(path, instants_s, resize)

    reader = ClipFrames(Killed(), CLIP4CLIP)
    path = write_fake_video(tmp_path / "v", 3.0, "red")
    if is_read:
        assert len(reader(path, WHOLE, 3)) == 3
    else:
        with pytest.raises(ClipUnreadable, match="killed from outside"):
            reader(path, WHOLE, 3)


@pytest.mark.parametrize("name", ["msrvtt-1ka", "didemo", "activitynet", "folder"])
def test_from_annotations_to_pixels(name: str, sandbox: Callable[[], DecodeSandbox], tmp_path: Path) -> None:
    write_annotations(name, tmp_path / "annotations", 2)
    split = load_split(name, "test", tmp_path / "annotations")
    write_videos(split, tmp_path / "videos")
    found = find_videos(split, tmp_path / "videos")
    assert not found.missing and not found.ambiguous
    reader: FrameReader = ClipFrames(sandbox(), CLIP4CLIP)
    for clip, colour in zip(split.clips, COLOURS.values(), strict=False):
        pixels = reader(found.paths[clip.id], clip, 12)
        assert len(pixels) == 2
        assert np.abs(pixels.mean(axis=(0, 1, 2)) - colour).max() < 12
