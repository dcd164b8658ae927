"""What a cursor opens, seeks and decodes on its way to a frame: no more than it needs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from indexer.errors import VideoUndecodable
from indexer.media.cursor import Cursor
from indexer.media.pyav import Source
from indexer.media.reading import Reader, read_frames
from tests.support.clips import numbered_frames, read_number, write_clip

NUM, FPS = 150, 25
B_FRAMES = {"options": {"preset": "medium", "x264-params": "bframes=3:b-adapt=0:scenecut=0"}}


class Counter:
    """Opens sources that count what is asked of them."""

    def __init__(self) -> None:
        self.num_opened = 0
        self.num_seeks = 0
        self.num_packets = 0
        self.num_frames = 0

    def __call__(self, path: Path, max_pixels: int | None, threads: int | None) -> Source:
        counts = self

        class Counting(Source):
            def seek(self, time: int) -> bool:
                counts.num_seeks += 1
                return super().seek(time)

            def decode(self, packet: Any, *, is_wanted: bool = True) -> Any:
                frames = super().decode(packet, is_wanted=is_wanted)
                counts.num_packets += bool(packet is not None and packet.size)
                counts.num_frames += len(frames or [])
                return frames

        self.num_opened += 1
        return Counting(path, max_pixels, 1)


def _read(cursor: Cursor, instants_s: list[float]) -> list[float]:
    targets = [cursor.base + cursor.ticks(t) for t in instants_s]
    cursor.expect(targets)
    return [round(cursor.seconds(cursor.at(target)[0].pts - cursor.base), 3) for target in targets]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.gif", "gif"), ("a.avi", "mpeg4"), ("a.mp4", "libx264"), ("a.ts", "libx264")]
)
def test_a_file_is_opened_once_and_passed_once(tmp_path: Path, name: str, codec: str) -> None:
    """Segment after segment, also where the container can't seek."""
    path = write_clip(tmp_path / name, numbered_frames(NUM), FPS, codec, gop=1000)
    counts = Counter()
    cursor = Cursor(path, open_source=counts)
    for k in range(5):
        instants = [round(k * 1.2 + i * 0.4, 3) for i in range(3)]
        assert _read(cursor, instants) == instants
    cursor.close()
    assert counts.num_opened == 1
    assert counts.num_packets <= NUM


def test_frames_that_nobody_needs_are_left_out(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", numbered_frames(NUM), FPS, gop=1000, **B_FRAMES)
    counts = Counter()
    cursor = Cursor(path, open_source=counts)
    _read(cursor, [1.0, 2.0, 3.0, 4.0, 5.0])
    cursor.close()
    assert counts.num_seeks == 0
    assert counts.num_frames < counts.num_packets * 0.7


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_key_frames_are_sought_where_that_skips_frames(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"a.{suffix}", numbered_frames(NUM), FPS, gop=10, **B_FRAMES)
    counts = Counter()
    cursor = Cursor(path, open_source=counts)
    assert _read(cursor, [0.0, 1.22, 2.42, 3.62, 4.82]) == [0.0, 1.2, 2.4, 3.6, 4.8]
    cursor.close()
    assert counts.num_seeks == 4
    assert counts.num_packets < 20


def test_a_short_file_that_was_probed_is_read_on(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", numbered_frames(NUM), FPS, gop=1000, **B_FRAMES)
    counts = Counter()
    cursor = Cursor(path, open_source=counts)
    assert cursor.seconds(cursor.end_pts() - cursor.base) == pytest.approx(NUM / FPS)
    assert _read(cursor, [1.0, 5.0]) == [1.0, 5.0]
    cursor.close()
    assert (counts.num_opened, counts.num_seeks) == (1, 0)


def test_backwards_is_right_as_well(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", numbered_frames(NUM), FPS, gop=30, **B_FRAMES)
    cursor = Cursor(path)
    assert [_read(cursor, [t])[0] for t in (5.0, 1.0, 4.0, 0.0, 3.2)] == [5.0, 1.0, 4.0, 0.0, 3.2]
    cursor.close()


def test_a_readers_file_stays_open_until_it_is_released(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", numbered_frames(NUM), FPS)
    reader = Reader()
    reader.probe(path)
    assert _is_open(path)
    reader.read_frames(path, [1.0])
    assert _is_open(path)
    reader.release()
    assert not _is_open(path)
    reader.release()
    reader.thumbnail(path, 1.0)
    assert not _is_open(path)


def test_a_failed_request_closes_the_file(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", numbered_frames(NUM), FPS)
    reader = Reader()
    reader.read_frames(path, [1.0])
    with pytest.raises(VideoUndecodable):
        reader.read_frames(path, [60.0])
    assert not _is_open(path)


def test_a_file_that_was_replaced_is_opened_again(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", numbered_frames(NUM), FPS)
    reader = Reader()
    assert read_number(reader.read_frames(path, [1.02]).pixels[0]) == 25
    write_clip(tmp_path / "b.mp4", numbered_frames(NUM, first=1000), FPS).rename(path)
    assert read_number(reader.read_frames(path, [1.02]).pixels[0]) == 1025
    reader.release()


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"])
def test_key_frames_in_place_of_exact_ones(tmp_path: Path, suffix: str) -> None:
    """The nearest one each; flv lists none, so there it is one before."""
    path = write_clip(tmp_path / f"a.{suffix}", numbered_frames(NUM), FPS, gop=25, **B_FRAMES)
    instants = [0.1, 0.7, 1.9, 2.1, 2.2, 4.4, 4.9, 5.9]
    frames = read_frames(path, instants, sampling="keyframes")
    numbers = [read_number(p) for p in frames.pixels]
    assert numbers == [round(t * FPS) for t in frames.times_s]
    assert numbers == ([0, 25, 50, 100] if suffix == "flv" else [0, 25, 50, 100, 125])


def test_key_frames_cost_one_packet_each(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", numbered_frames(NUM), FPS, gop=25, **B_FRAMES)
    counts = Counter()
    cursor = Cursor(path, open_source=counts)
    before = counts.num_packets
    for t in (1.1, 2.1, 3.1, 4.1):
        cursor.key_near(cursor.base + cursor.ticks(t))
    cursor.close()
    assert counts.num_packets - before == 4


@pytest.mark.parametrize(("name", "codec"), [("a.gif", "gif"), ("a.avi", "mpeg4")])
def test_what_cannot_be_sought_gives_exact_frames(tmp_path: Path, name: str, codec: str) -> None:
    path = write_clip(tmp_path / name, numbered_frames(NUM), FPS, codec)
    frames = read_frames(path, [1.02, 2.02], sampling="keyframes")
    assert [read_number(p) for p in frames.pixels] == [25, 50]


def _is_open(path: Path) -> bool:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("no /proc here")
    return any(link.resolve() == path.resolve() for link in folder.iterdir())


@pytest.mark.parametrize(("size", "is_large"), [((64, 48), False), ((2720, 1536), True)])
def test_a_large_picture_has_several_codec_threads_even_beside_other_files(
    tmp_path: Path, size: tuple[int, int], is_large: bool
) -> None:
    """Otherwise a segment of 4K or 8K might not come within its time limit."""
    path = write_clip(tmp_path / "a.mp4", numbered_frames(2, size), 10, "mpeg4")
    source = Source(path, threads=1)
    try:
        assert (source._codec.thread_count > 1) == (is_large and (os.cpu_count() or 1) > 1)
    finally:
        source.close()
