"""Every frame that is read has the bits that decoding the whole file gives it, however the file was encoded."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.media.cursor import Cursor
from indexer.media.orientation import upright_rgb
from indexer.media.reading import Reader
from tests.support.clips import write_clip
from tests.support.shared_videos import shared_video

NUM, FPS = 100, 25
Bits = list[tuple[int, bytes]]


def x264(params: str, **others: Any) -> dict[str, Any]:
    return {"options": {"preset": "veryfast", "x264-params": params}, **others}


CLIPS: dict[str, dict[str, Any]] = {
    "pyramid.mp4": x264("keyint=30:min-keyint=30:scenecut=0:bframes=3:b-pyramid=normal"),
    "strict_pyramid.mkv": x264("keyint=48:bframes=7:b-adapt=0:b-pyramid=strict:ref=5"),
    "many_b.mp4": x264("keyint=250:bframes=16:b-adapt=0:ref=16:b-pyramid=normal"),
    "no_b.mp4": x264("keyint=20:bframes=0"),
    "short_groups.mp4": x264("keyint=6:min-keyint=6:bframes=2:b-adapt=0"),
    "all_keys.mp4": x264("keyint=1"),
    "open_gop.mp4": x264("keyint=16:min-keyint=16:open-gop=1:bframes=3:b-adapt=0:b-pyramid=normal"),
    "open_gop.mkv": x264("keyint=16:min-keyint=16:open-gop=1:bframes=3:b-adapt=0:b-pyramid=normal"),
    "open_gop.ts": x264("keyint=16:min-keyint=16:open-gop=1:bframes=3:b-adapt=0:b-pyramid=normal"),
    "refresh.mp4": x264("keyint=30:intra-refresh=1:bframes=0"),
    "interlaced.mp4": x264("keyint=25:tff=1:bframes=2"),
    "interlaced.ts": x264("keyint=25:tff=1:bframes=2"),
    "slices.flv": x264("keyint=25:slices=3:bframes=2"),
    "temporal_direct.ts": x264("keyint=40:direct=temporal:bframes=4:b-adapt=0"),
    "fragments.mp4": x264("keyint=10:bframes=2", container_options={"movflags": "frag_keyframe+empty_moov"}),
    "raw.h264": x264("keyint=20:bframes=2"),
    "h264.avi": x264("keyint=20:bframes=2"),
    "edited.mp4": x264("keyint=30:bframes=3", times_ms=[-400 + 40 * i for i in range(NUM)]),
    "uneven.mkv": x264("keyint=12:bframes=2", times_ms=[40 * i + 7 * (i % 3) + 900 * (i > 50) for i in range(NUM)]),
    "late.mp4": x264("keyint=30:bframes=3", times_ms=[1500 + 40 * i for i in range(NUM)]),
    "mpeg4.mp4": {"codec": "mpeg4", "b_frames": 2, "gop": 15},
    "mpeg4.mkv": {"codec": "mpeg4", "b_frames": 1, "gop": 40},
    "mpeg4.avi": {"codec": "mpeg4", "b_frames": 2, "gop": 15},
    "mpeg2.ts": {"codec": "mpeg2video", "b_frames": 2, "gop": 12},
    "mpeg2.mkv": {"codec": "mpeg2video", "b_frames": 2, "gop": 12},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=1:keyint=30:bframes=4"}},
    "hevc.ts": {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=1:keyint=30:bframes=3"}},
    "layers.mkv": {
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:pools=1:keyint=40:bframes=3:b-adapt=0:temporal-layers=3"},
    },
    "vp9.webm": {"codec": "libvpx-vp9", "gop": 25, "options": {"auto-alt-ref": "1", "lag-in-frames": "10"}},
    "vp8.webm": {"codec": "libvpx", "gop": 25, "options": {"auto-alt-ref": "1", "lag-in-frames": "10"}},
    "av1.mkv": {"codec": "libsvtav1", "gop": 32},
    "anim.gif": {"codec": "gif"},
}
REAL = [
    "asl_milk.mkv",
    "av1_video.mkv",
    "bears.mp4",
    "h264_10bits.mp4",
    "h265_10bits.mp4",
    "rot_270.mov",
    "unordered.mov",
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes a clip of CLIPS, or finds a real video."""
    folder = tmp_path_factory.mktemp("clips")

    def found(name: str) -> Path:
        path = folder / name
        if name not in CLIPS:
            return shared_video(name)
        return path if path.exists() else write_clip(path, moving_noise(), FPS, **CLIPS[name])

    return found


def moving_noise() -> Iterator[NDArray[np.uint8]]:
    """Pictures that move, so that no two are alike and encoders use all their kinds of frames; two scenes."""
    chance = np.random.default_rng(5)
    rough = chance.integers(0, 255, (2, 24, 36, 3), dtype=np.uint8)
    scenes = rough.repeat(8, axis=1).repeat(8, axis=2)
    for i in range(NUM):
        x, y = int(40 + 39 * np.sin(i / 9)), int(30 + 29 * np.cos(i / 7))
        view = scenes[int(i > 63), y : y + 96, x : x + 144].astype(int)
        yield np.clip(view + chance.integers(-9, 9), 0, 255).astype(np.uint8)


def all_frames(path: Path) -> Bits:
    """(time in ticks, pixels) of each frame in order, by PyAV alone; what a container doesn't time is counted."""
    frames: Bits = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            time = frame.pts if frame.pts is not None else len(frames)
            frames.append((time, upright_rgb(frame, (frame.width, frame.height)).tobytes()))
    return frames


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", [*CLIPS, *REAL])
def test_every_read_has_the_bits_of_a_whole_decoding(clip: Callable[[str], Path], name: str, threads: int) -> None:
    path = clip(name)
    plain = all_frames(path)
    assert len(plain) == NUM or name not in CLIPS or name == "edited.mp4"
    times = [time for time, _ in plain]
    is_counted = name.endswith((".avi", ".h264"))  # such files have no times; their frames are evenly spaced
    chance = random.Random(name)
    for targets in _questions(len(plain), chance):
        cursor = Cursor(path, threads=threads)
        try:
            if is_counted:
                times = [cursor.base + i * cursor.source.frame_ticks for i in range(len(plain))]
            assert cursor.base == times[0]
            for request in targets:
                wanted = sorted({round(_between(times, place)) for place in request})
                cursor.expect(wanted)
                for target in wanted:
                    picture, is_stale = cursor.at(target)
                    i = bisect_right(times, target) - 1
                    assert (picture.pts, is_stale) == (times[i], False)
                    assert upright_rgb(picture.frame, cursor.size).tobytes() == plain[i][1]
                if chance.random() < 0.3:
                    cursor.end_pts()
        finally:
            cursor.close()


@pytest.mark.parametrize("name", [*CLIPS, *REAL, "corrupted.mp4"])
def test_a_file_that_stays_open_gives_the_frames_of_a_fresh_one(clip: Callable[[str], Path], name: str) -> None:
    path = clip(name)
    kept = Reader()
    duration_s = kept.probe(path).duration_s
    try:
        for k in range(3):
            instants = [duration_s * (k / 3 + (i + 0.5) / 24) * 0.9 for i in range(8)]
            fresh = Reader()
            one, other = _answer(fresh, path, instants), _answer(kept, path, instants)
            fresh.release()
            assert one == other
    finally:
        kept.release()


def _answer(reader: Reader, path: Path, instants_s: Sequence[float]) -> object:
    try:
        frames = reader.read_frames(path, instants_s)
    except Exception as error:
        return repr(error)
    return frames.times_s.tolist(), frames.pixels.tobytes()


def _questions(num: int, chance: random.Random) -> list[list[list[float]]]:
    """Requests, each a list of places from 0 to num: all frames, evenly spaced ones, some in pieces, some at random."""
    return [
        [[float(i) for i in range(num)]],
        [[num * (k + (i + 0.5) / 4) / 3 for i in range(4)] for k in range(3)],
        [[num * 0.6], [num * 0.7], [num * 0.2]],
        [sorted(chance.uniform(0, num - 0.01) for _ in range(chance.choice([1, 2, 5, 12]))) for _ in range(4)],
    ]


def _between(times: list[int], place: float) -> float:
    i = min(int(place), len(times) - 1)
    return times[i] + (place - i) * ((times[i + 1] if i + 1 < len(times) else times[i] + 1) - times[i]) * 0.98
