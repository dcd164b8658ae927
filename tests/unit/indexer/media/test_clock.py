"""Transport streams whose clock starts over: the frames of all parts on one timeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from indexer.errors import VideoUndecodable
from indexer.media.clock import Stamp, read_clock
from indexer.media.reading import probe, read_frames
from tests.support.clips import numbered_frames, read_number, write_clip

FPS = 25
SLOW: dict[str, Any] = {"options": {"preset": "medium"}, "b_frames": 3, "gop": 25}
MPEG2: dict[str, Any] = {"codec": "mpeg2video", "b_frames": 2, "gop": 12}
WRAP_S = 2**33 / 90_000
"""After so many seconds a transport stream's clock is zero again."""

Join = Callable[..., Path]


@pytest.fixture
def join(tmp_path: Path) -> Join:
    """Writes numbered clips and joins their bytes. starts_s: the time of the first frame of each."""

    def joined(suffix: str, counts: list[int], starts_s: list[float] | None = None, **options: Any) -> Path:
        content, first = b"", 0
        for part, count in enumerate(counts):
            times = None if starts_s is None else [round(starts_s[part] * 1000) + 40 * i for i in range(count)]
            path = tmp_path / f"{part}.{suffix}"
            content += write_clip(
                path, numbered_frames(count, first=first), FPS, times_ms=times, **options
            ).read_bytes()
            first += count
        whole = tmp_path / f"whole.{suffix}"
        whole.write_bytes(content)
        return whole

    return joined


@pytest.mark.parametrize(
    ("suffix", "counts", "options"),
    [
        ("ts", [50, 20, 60], SLOW),
        ("ts", [20, 70], MPEG2),
        ("ts", [75, 30], {"gop": 25, "audio_s": 2.0}),
        ("mpg", [25, 30, 20], MPEG2),
    ],
    ids=["h264", "mpeg2", "sound", "program"],
)
def test_every_frame_of_every_part_is_read_at_its_time(
    join: Join, suffix: str, counts: list[int], options: dict[str, Any]
) -> None:
    path, num = join(suffix, counts, **options), sum(counts)
    assert probe(path).duration_s == pytest.approx(num / FPS, abs=0.05)
    frames = read_frames(path, [(i + 0.5) / FPS for i in range(num)])
    assert [read_number(p) for p in frames.pixels] == list(range(num))
    assert [round(t * FPS, 3) for t in frames.times_s] == list(range(num))
    for wanted in (num - 2, counts[0], counts[0] - 1):  # by seeking, from the start each time
        assert read_number(read_frames(path, [(wanted + 0.5) / FPS]).pixels[0]) == wanted
    with pytest.raises(VideoUndecodable):
        read_frames(path, [num / FPS + 3.0])


@pytest.mark.parametrize("starts_s", [[5000.0, 0.0], [0.0, 5000.0], [90_000.0, 300.0]])
def test_a_clock_may_start_over_from_anywhere(join: Join, starts_s: list[float]) -> None:
    path = join("ts", [50, 50], starts_s, gop=25)
    assert probe(path).duration_s == pytest.approx(4.0, abs=0.05)
    assert [read_number(p) for p in read_frames(path, [0.02, 1.98, 2.02, 3.98]).pixels] == [0, 49, 50, 99]


def test_a_clock_that_wraps_around_goes_on(join: Join) -> None:
    path = join("ts", [100], [WRAP_S - 2.0], gop=25)
    assert probe(path).duration_s == pytest.approx(4.0, abs=0.05)
    assert [read_number(p) for p in read_frames(path, [0.02, 1.98, 2.02, 3.98]).pixels] == [0, 49, 50, 99]


def test_a_part_that_begins_between_key_frames_gives_no_wrong_frame(join: Join, tmp_path: Path) -> None:
    first = join("ts", [50], gop=25).rename(tmp_path / "first.ts").read_bytes()
    second = write_clip(tmp_path / "second.ts", numbered_frames(100, first=100), FPS, gop=25).read_bytes()
    cut = tmp_path / "cut.ts"
    cut.write_bytes(first + second[: 188 * 2] + second[188 * (len(second) // 188 // 8) :])
    duration_s = probe(cut).duration_s
    assert 5.0 < duration_s <= 6.0
    frames = read_frames(cut, [(i + 0.5) / FPS for i in range(round(duration_s * FPS))])
    numbers = [read_number(p) for p in frames.pixels]
    assert None not in numbers and numbers == sorted(numbers, key=int) and numbers[-1] == 199
    assert numbers[:45] == list(range(45)) and len(numbers) > 110


@pytest.mark.parametrize("gap_s", [0.0, 30.0, 3000.0])
def test_a_gap_in_the_recording_is_no_new_start(gap_s: float) -> None:
    clock = (
        read_clock(_stamps(0, 50), Fraction(1, 100)),
        read_clock([*_stamps(0, 25), *_stamps(25, 25, late=round(gap_s * 100))], Fraction(1, 100)),
    )
    assert [len(found.places) for found in clock] == [1, 1]


@pytest.mark.parametrize("wrong", [-500, 10**9])
def test_one_wrong_time_is_no_new_start(wrong: int) -> None:
    clock = read_clock([*_stamps(0, 25), *_stamps(25, 1, late=wrong), *_stamps(26, 25)], Fraction(1, 100))
    assert not clock.is_broken and clock.end == 51 * 4


def test_parts_touch_and_keys_are_found_by_time() -> None:
    clock = read_clock([*_stamps(0, 50), *_stamps(50, 50, late=-200), *_stamps(100, 30, late=-400)], Fraction(1, 100))
    assert clock.offsets == (0, 200, 400) and clock.end == 130 * 4
    assert [clock.part(place * 188) for place in (0, 49, 50, 99, 100, 129)] == [0, 0, 1, 1, 2, 2]
    assert [clock.key_before(frame * 4) // 188 for frame in (0, 24, 25, 60, 129)] == [0, 0, 25, 50, 125]


def test_a_stream_without_packets_has_an_empty_clock() -> None:
    assert read_clock([], Fraction(1, 90_000)).places == ()


def _stamps(first: int, num: int, late: int = 0) -> Iterator[Stamp]:
    """Packets of 4 ticks, each 188 bytes after the one before, every 25th a key frame."""
    for i in range(first, first + num):
        yield Stamp(i * 188, i * 4 + late, i * 4 + late, 4, i % 25 == 0)
