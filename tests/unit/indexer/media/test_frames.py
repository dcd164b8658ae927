"""The right frame at every instant: the number drawn into each frame is read back, by seeking and by reading on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.errors import VideoUndecodable
from indexer.media.reading import Decoder, probe, read_frames
from tests.support.clips import numbered_frames, read_number, write_clip

NUM, FPS = 150, 25
SLOW: dict[str, Any] = {"options": {"preset": "medium"}, "b_frames": 3}
OPEN_GOP = {"options": {"preset": "medium", "x264-params": "open-gop=1:bframes=3:keyint=25:b-pyramid=normal"}}
REFRESH = {"options": {"preset": "medium", "x264-params": "intra-refresh=1:keyint=40"}}

CLIPS: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {**SLOW, "gop": 30},
    "one_gop.mp4": {**SLOW, "gop": 1000},
    "short_gop.mp4": {**SLOW, "gop": 12},
    "open_gop.mp4": OPEN_GOP,
    "intra_refresh.mp4": REFRESH,
    "fragmented.mp4": {**SLOW, "gop": 30, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "late_start.mp4": {**SLOW, "times_ms": [1000 + 40 * i for i in range(NUM)]},
    "odd_size.mp4": {"size": (131, 97), "gop": 20},
    "small.mp4": {"size": (64, 48)},
    "sound.mp4": {"audio_s": 9.0, "gop": 25},
    "b_frames.mkv": {**SLOW, "gop": 30},
    "late_start.mkv": {**SLOW, "times_ms": [1000 + 40 * i for i in range(NUM)]},
    "hevc.mp4": {"codec": "libx265", "gop": 30},
    "vp9.webm": {"codec": "libvpx-vp9", "gop": 30},
    "av1.mkv": {"codec": "libsvtav1", "gop": 30},
    "h264.ts": {**SLOW, "gop": 30},
    "open_gop.ts": OPEN_GOP,
    "mpeg2.ts": {"codec": "mpeg2video", "b_frames": 2, "gop": 15},
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2, "gop": 15},
    "mpeg4.avi": {"codec": "mpeg4", "gop": 12},
    "b_frames.avi": {**SLOW, "gop": 30},
    "raw.h264": {**SLOW, "gop": 30},
    "h264.flv": {**SLOW, "gop": 30},
    "anim.gif": {"codec": "gif"},
}
REFUSED_BY_DECORD = {"av1.mkv", "h264.ts", "open_gop.ts", "mpeg2.ts", "raw.h264", "anim.gif"}

Make = Callable[[str], Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Writes a clip of CLIPS once."""
    folder = tmp_path_factory.mktemp("clips")

    def written(name: str) -> Path:
        path = folder / name
        if not path.exists():
            options = dict(CLIPS[name])
            size = options.pop("size", (192, 128))
            write_clip(path, numbered_frames(NUM, size), FPS, **options)
        return path

    return written


def _numbers(path: Path, instants_s: list[float], decoder: Decoder = "pyav") -> list[tuple[int | None, float]]:
    frames = read_frames(path, instants_s, decoder)
    assert frames.pixels.dtype == np.uint8
    return [(read_number(p), round(float(t), 3)) for p, t in zip(frames.pixels, frames.times_s, strict=True)]


def _expected(instants_s: list[float]) -> list[tuple[int, float]]:
    shown = sorted({min(NUM - 1, int(t * FPS + 1e-6)) for t in instants_s})
    return [(i, round(i / FPS, 3)) for i in shown]


@pytest.mark.parametrize("name", CLIPS)
def test_every_path_gives_the_frame_shown_then(make: Make, name: str) -> None:
    path = make(name)
    info = probe(path)
    assert info.duration_s == pytest.approx(NUM / FPS, abs=0.05)
    assert (info.width, info.height) == CLIPS[name].get("size", (192, 128))
    every = [(i + 0.5) / FPS for i in range(NUM)]
    assert _numbers(path, every) == _expected(every)
    for few in ([0.0], [5.99], [2.02], [4.1, 0.3], [0.5, 1.0, 1.5, 5.5], [0.01 + 0.45 * i for i in range(13)]):
        assert _numbers(path, few) == _expected(few)


@pytest.mark.parametrize("name", CLIPS)
def test_decord_gives_the_same_or_says_why_not(make: Make, name: str) -> None:
    pytest.importorskip("decord")
    path = make(name)
    if name in REFUSED_BY_DECORD:
        with pytest.raises(VideoUndecodable, match="decord"):
            read_frames(path, [1.0], "decord")
        return
    few = [0.0, 0.31, 1.02, 3.3, 5.97]
    assert _numbers(path, few, "decord") == _expected(few)
    assert probe(path, "decord") == probe(path)


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_an_edit_list_cuts_frames_away(tmp_path: Path, decoder: Decoder) -> None:
    pytest.importorskip(decoder if decoder == "decord" else "av")
    times = [-400 + 40 * i for i in range(NUM)]
    path = write_clip(tmp_path / "edit.mp4", numbered_frames(NUM), FPS, times_ms=times, **SLOW, gop=30)
    assert probe(path).duration_s == pytest.approx(NUM / FPS - 0.4, abs=0.05)
    assert _numbers(path, [0.0, 1.0, 5.5], decoder) == [(10, 0.0), (35, 1.0), (147, 5.48)]
    assert _numbers(path, [3.0], decoder) == [(85, 3.0)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate_goes_by_time(tmp_path: Path, suffix: str) -> None:
    times = [0, 40, 50, 60, 1000, 1010, 4000, 4001, 4500]
    path = write_clip(tmp_path / f"vfr.{suffix}", numbered_frames(len(times)), FPS, times_ms=times, gop=3)
    got = _numbers(path, [0.0, 0.045, 0.9, 1.0, 3.9, 4.0, 4.49, 4.5])
    assert got == [(0, 0.0), (1, 0.04), (3, 0.06), (4, 1.0), (5, 1.01), (6, 4.0), (7, 4.001), (8, 4.5)]


def test_a_frames_own_time_finds_that_frame(make: Make) -> None:
    path = make("b_frames.mkv")
    times = read_frames(path, [0.3, 1.7, 3.01]).times_s
    assert np.array_equal(read_frames(path, list(times)).times_s, times)


def test_instants_on_one_frame_give_it_once(make: Make) -> None:
    assert _numbers(make("one_gop.mp4"), [0.2, 0.201, 0.21]) == [(5, 0.2)]


def test_one_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "one.mp4", numbered_frames(1, first=7), FPS)
    assert probe(path).duration_s == pytest.approx(0.04)
    assert _numbers(path, [0.005, 0.02, 0.035]) == [(7, 0.0)]


@pytest.mark.parametrize("rotation_deg", [90, 180, 270])
@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_rotation_is_applied(tmp_path: Path, rotation_deg: int, decoder: Decoder) -> None:
    pytest.importorskip(decoder if decoder == "decord" else "av")
    lying = [
        np.rot90(p, rotation_deg // 90).copy() for p in numbered_frames(5)
    ]  # against the clock: the turn undoes it
    path = write_clip(tmp_path / "turned.mp4", lying, FPS, rotation_deg=rotation_deg)
    info = probe(path)
    assert (info.rotation_deg, info.width, info.height) == (rotation_deg, 192, 128)
    assert _numbers(path, [0.09], decoder) == [(2, 0.08)]


@pytest.mark.parametrize("instants_s", [[], [-0.1], [float("nan")], [float("inf")]])
def test_instants_that_are_no_times_are_refused(make: Make, instants_s: list[float]) -> None:
    with pytest.raises(ValueError, match="instants"):
        read_frames(make("small.mp4"), instants_s)


@pytest.mark.parametrize(
    "size", [(1, 16), (2, 16), (3, 16), (4, 16), (16, 1), (16, 3), (16, 4), (2, 2), (5, 16), (9, 5)]
)
def test_very_small_pictures_are_read_right_or_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    """decord takes a side of up to 4 pixels for the number of channels."""
    chance = np.random.default_rng(7)
    pictures = [chance.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8) for _ in range(3)]
    path = write_clip(tmp_path / "small.mp4", pictures, FPS, pix_fmt="yuv444p", options={"crf": "1"})
    info, frames = probe(path), read_frames(path, [0.05])
    assert (info.width, info.height) == size
    assert np.abs(frames.pixels[0].astype(int) - pictures[1]).mean() < 10
    pytest.importorskip("decord")
    if min(size) <= 4:
        for verb in (lambda: probe(path, "decord"), lambda: read_frames(path, [0.05], "decord")):
            with pytest.raises(VideoUndecodable, match=rf"{size[0]} x {size[1]}") as caught:
                verb()
            assert "pyav" in caught.value.hint
    else:
        assert np.array_equal(read_frames(path, [0.05], "decord").pixels, frames.pixels)
