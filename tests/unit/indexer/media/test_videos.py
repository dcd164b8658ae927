"""Every real video is read whole, or fails with one clear reason."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.errors import VideoUndecodable
from indexer.media.reading import probe, read_frames
from indexer.segments import plan_segments
from tests.support.shared_videos import NAMES, shared_video

DECORD_CANNOT = {"av1_video.mkv", "newtonscradle.gif"}
TEN_BITS = {"h264_10bits.mp4", "h265_10bits.mp4"}
DURATIONS = {"people_one_by_one.mp4": 139.4, "bears.mp4": 2.24, "rot_90.mov": 0.1, "unordered.mov": 0.125}


def test_the_folder_is_seen() -> None:
    shared_video("bikes.mp4")
    assert len(NAMES) >= 27


@pytest.mark.parametrize("name", NAMES)
def test_a_real_video_is_read_whole(name: str) -> None:
    path = shared_video(name)
    info = probe(path)
    plans = plan_segments(info.duration_s, 12)
    if name == "corrupted.mp4":
        with pytest.raises(VideoUndecodable, match=r"corrupted\.mp4: Too much of the stream is damaged"):
            read_frames(path, plans[0].instants_s)
        return
    assert info.duration_s == pytest.approx(DURATIONS.get(name, info.duration_s), abs=0.01)
    for plan in plans[:: max(1, len(plans) - 1)]:  # the first and the last
        frames = read_frames(path, plan.instants_s)
        assert frames.pixels.shape[1:] == (info.height, info.width, 3)
        assert (np.diff(frames.times_s) > 0).all()
        assert len(frames.times_s) >= min(12, round(info.fps * (plan.end_s - plan.start_s) * 0.5))
        assert plan.start_s - 1.0 <= frames.times_s[0] <= frames.times_s[-1] < plan.end_s
        assert frames.pixels.std() > 1.0 or name == "unordered.mov"  # that one is white all over


@pytest.mark.parametrize("name", [n for n in NAMES if n != "corrupted.mp4"])
def test_decord_reads_the_same_frames(name: str) -> None:
    pytest.importorskip("decord")
    path = shared_video(name)
    if name in DECORD_CANNOT:
        with pytest.raises(VideoUndecodable, match="Use the decoder pyav"):
            read_frames(path, [0.0], "decord")
        return
    duration_s = min(probe(path).duration_s, 5.0)
    instants = [duration_s * (i + 0.5) / 4 for i in range(4)]
    ours, theirs = read_frames(path, instants), read_frames(path, instants, "decord")
    assert np.array_equal(ours.times_s, theirs.times_s)
    distance = np.abs(ours.pixels.astype(int) - theirs.pixels).mean()
    assert distance <= (5.0 if name in TEN_BITS else 0.5)


def test_rotated_ones_stand_upright() -> None:
    """One scene, four ways to hold the camera: as displayed, its turned versions look alike."""
    shapes = {d: probe(shared_video(f"rot_{d}.mov")) for d in (0, 90, 180, 270)}
    assert {d: i.rotation_deg for d, i in shapes.items()} == {0: 0, 90: 90, 180: 180, 270: 270}
    assert [(shapes[d].width, shapes[d].height) for d in (0, 90)] == [(568, 320), (320, 568)]
