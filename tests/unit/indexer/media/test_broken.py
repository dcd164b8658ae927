"""Files that are no video, or a damaged one: one clear reason, or only frames that are right."""

from __future__ import annotations

import os
import random
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import MediaError, UnsupportedMedia, VideoTooLong, VideoUndecodable
from indexer.media.reading import probe, read_frames
from tests.support.clips import audio_clip, numbered_frame, numbered_frames, read_number, write_clip

NUM, FPS = 150, 25


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    slow = {"options": {"preset": "medium"}, "b_frames": 3}
    write_clip(folder / "gops.mp4", numbered_frames(NUM), FPS, gop=25, **slow)
    write_clip(folder / "one_gop.mp4", numbered_frames(NUM), FPS, gop=1000, **slow)
    write_clip(folder / "gops.mkv", numbered_frames(NUM), FPS, gop=25, **slow)
    write_clip(folder / "gops.ts", numbered_frames(NUM), FPS, gop=25, **slow)
    write_clip(folder / "front.mp4", numbered_frames(NUM), FPS, gop=25, container_options={"movflags": "faststart"})
    return folder


@pytest.mark.parametrize(
    "content",
    [b"", b"a plain text\n" * 50, random.Random(1).randbytes(50_000), b"\0" * 5000, b"{}", b"\xff\xd8\xff\xe0"],
)
def test_no_video_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "named.mp4"
    path.write_bytes(content)
    with pytest.raises(UnsupportedMedia, match=r"named\.mp4: Not a video file"):
        probe(path)


def test_a_picture_is_no_video(tmp_path: Path) -> None:
    write_clip(tmp_path / "still.png", numbered_frames(1), codec="png", pix_fmt="rgb24", container="image2")
    with pytest.raises(UnsupportedMedia):
        probe(tmp_path / "still.png")


def test_audio_only(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedMedia, match="no video stream"):
        probe(audio_clip(tmp_path / "tone.mp4", 1.0))


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for name, reason in (("absent.mp4", "no such file"), (".", "Not a regular"), ("pipe.mp4", "Not a regular")):
        with pytest.raises(UnsupportedMedia, match=reason):
            probe(tmp_path / name)


@pytest.mark.parametrize("name", ["tr%03dick.mp4", "a:b|c.mp4", "übung 視頻.mp4", "-i.mp4", "http:__x.mp4"])
def test_names_are_only_names(tmp_path: Path, name: str) -> None:
    write_clip(tmp_path / "plain.mp4", numbered_frames(3), FPS).rename(tmp_path / name)
    assert read_number(read_frames(tmp_path / name, [0.05]).pixels[0]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{target}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{target}'\n",
        "ffconcat version 1.0\nfile 'http://127.0.0.1:{port}/x.mp4'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\nhttp://127.0.0.1:{port}/x.ts\n#EXT-X-ENDLIST\n",
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        '<Representation id="1"><BaseURL>http://127.0.0.1:{port}/x.mp4</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
    ],
)
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list.ffconcat"])
def test_playlists_open_nothing_else(clips: Path, tmp_path: Path, text: str, name: str) -> None:
    target = shutil.copy(clips / "gops.ts", tmp_path / "other.ts").name  # beside it, where a demuxer would allow it
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        (tmp_path / name).write_text(text.format(target=target, port=server.getsockname()[1]))
        with pytest.raises(UnsupportedMedia):
            probe(tmp_path / name)
        with pytest.raises(BlockingIOError):  # nobody has knocked
            server.accept()


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "huge.mp4", [np.zeros((7000, 7000, 3), np.uint8)], codec="mjpeg", pix_fmt="yuvj420p")
    with pytest.raises(VideoTooLong, match="7000 x 7000"):
        probe(path)


def test_the_limit_of_pixels_is_the_callers(clips: Path) -> None:
    with pytest.raises(VideoTooLong):
        read_frames(clips / "gops.mp4", [0.0], max_pixels=192 * 128 - 1)
    assert len(read_frames(clips / "gops.mp4", [0.0], max_pixels=192 * 128).times_s) == 1


def test_truncated_with_the_index_at_the_end(clips: Path, tmp_path: Path) -> None:
    whole = (clips / "gops.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnsupportedMedia):
        probe(tmp_path / "cut.mp4")


@pytest.mark.parametrize("name", ["front.mp4", "gops.mkv", "gops.ts"])
def test_truncated_counts_what_is_there(clips: Path, tmp_path: Path, name: str) -> None:
    whole = (clips / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: len(whole) * 6 // 10])
    duration_s = probe(path).duration_s
    assert 1.0 < duration_s < 5.5
    _all_right(path, [duration_s * (i + 0.5) / 12 for i in range(12)], at_least=11)
    with pytest.raises(VideoUndecodable):
        read_frames(path, [duration_s + 3.0])


@pytest.mark.parametrize("name", ["gops.mp4", "gops.ts"])
def test_a_hole_is_stepped_over(clips: Path, tmp_path: Path, name: str) -> None:
    """Damage costs frames up to the next key frame; the others are right, and those near it are the last good one."""
    data = bytearray((clips / name).read_bytes())
    hole = len(data) // 2
    data[hole : hole + 300] = bytes(300)
    path = tmp_path / name
    path.write_bytes(data)
    _all_right(path, [0.2, 0.9, 1.4, 4.4, 5.2, 5.9], at_least=6)
    numbers = [read_number(p) for p in read_frames(path, [(i + 0.5) / FPS for i in range(NUM)]).pixels]
    assert None not in numbers
    assert NUM - 50 < len(numbers) < NUM


def test_too_much_damage_is_said(clips: Path, tmp_path: Path) -> None:
    data = bytearray((clips / "one_gop.mp4").read_bytes())
    data[len(data) // 4 : len(data) // 4 + 400] = bytes(400)
    path = tmp_path / "ruin.mp4"
    path.write_bytes(data)
    with pytest.raises(VideoUndecodable, match=r"ruin\.mp4: (Too much|No frame near)"):
        read_frames(path, [(i + 0.5) / 2 for i in range(12)])


@pytest.mark.parametrize("name", ["gops.mp4", "one_gop.mp4", "gops.mkv"])
def test_random_damage_never_gives_another_frame(clips: Path, tmp_path: Path, name: str) -> None:
    whole = (clips / name).read_bytes()
    chance = random.Random(7)
    for i in range(8):
        data, at = bytearray(whole), chance.randrange(len(whole) // 4, len(whole) - 5000)
        data[at : at + 600] = chance.randbytes(600)
        path = tmp_path / f"{i}{name}"
        path.write_bytes(data)
        try:
            instants = [0.1 + 0.6 * k for k in range(10)]
            got = read_frames(path, instants)
        except MediaError:
            continue
        for pixels, time_s in zip(got.pixels, got.times_s, strict=True):
            assert read_number(pixels) in (None, round(time_s * FPS))


def test_a_change_of_size_midway_keeps_the_first_size(tmp_path: Path) -> None:
    small = write_clip(tmp_path / "a.ts", numbered_frames(25, (96, 64)), FPS)
    large = write_clip(
        tmp_path / "b.ts", numbered_frames(25, (192, 128), first=25), FPS, times_ms=[1000 + 40 * i for i in range(25)]
    )
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    frames = read_frames(path, [0.5, 1.5])
    assert frames.pixels.shape[1:] == (64, 96, 3)
    assert [read_number(p) for p in frames.pixels] == [12, 37]


def test_a_still_screen_is_no_damage(tmp_path: Path) -> None:
    """One frame shown for ten seconds is the frame of all ten."""
    path = write_clip(tmp_path / "still.mp4", [numbered_frame(i) for i in (1, 2, 3)], FPS, times_ms=[0, 100, 10_000])
    frames = read_frames(path, [0.05, 5.0, 9.9, 10.0])
    assert [read_number(p) for p in frames.pixels] == [1, 2, 3]


def _all_right(path: Path, instants_s: list[float], at_least: int) -> None:
    frames = read_frames(path, instants_s)
    assert [read_number(p) for p in frames.pixels] == [round(t * FPS) for t in frames.times_s]
    assert len(frames.times_s) >= at_least
