"""The clock of a transport stream: where it starts over, and the one timeline that its parts make together.

Recordings that were joined by concatenating their bytes count from zero again in the middle; FFmpeg passes the times on
as they are. Here each part goes on where the one before it ended. The key frames are listed by their place in the file,
because a seek by time can't tell two parts apart.

It knows packets as plain numbers; it knows no decoder and no file. All times are ticks of the stream's time base.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

BACKWARD_S = 0.1
"""Decoding times rise within a part; a fall by more than this starts another."""

FORWARD_S = 3600.0
"""A leap by more than this starts another part too: no picture stands for an hour, but FFmpeg takes a clock that falls
far back for one that wrapped around after 2**33 ticks, and adds those."""


SEAM_PACKETS = 3


class Stamp(NamedTuple):
    """What one packet says about its place and time."""

    place: int
    """Offset in the file, in bytes."""
    dts: int
    """When it is decoded."""
    pts: int
    """When it is shown."""
    ticks: int
    """How long it is shown."""
    is_key: bool
    """Whether decoding can start here."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The timeline of a file whose clock starts over; one part where it doesn't."""

    places: tuple[int, ...]
    """Where each part begins in the file, in bytes, rising."""
    offsets: tuple[int, ...]
    """What is added to the times of each part."""
    end: int
    """When the last part ends, offset added."""
    keys: tuple[tuple[int, int], ...]
    """(time, place) of each key frame, in order of time, offset added."""
    seams: frozenset[int]
    """Places of the last packets of each part but the last. FFmpeg calls one of them damaged because the packets of the
    next part are numbered from zero; only a decoder's own complaint counts there."""

    @property
    def is_broken(self) -> bool:
        """Whether there are several parts."""
        return len(self.places) > 1

    def part(self, place: int) -> int:
        """The number of the part that a place in the file belongs to."""
        return max(0, bisect_right(self.places, place) - 1)

    def key_before(self, time: int) -> int:
        """The place of the last key frame shown at or before a time; the start of the file if there is none."""
        found = bisect_right(self.keys, (time, 2**63)) - 1
        return self.keys[found][1] if found >= 0 else 0


def read_clock(stamps: Iterable[Stamp], time_base: Fraction) -> Clock:
    """The clock of a stream from all its packets in the order of the file. time_base: seconds of one tick.

    A single wrong time (a damaged packet) does not start a new part: the packet after it must be nearer to that time.
    """
    parts: list[_Part] = []
    last: Stamp | None = None
    doubtful: Stamp | None = None
    for stamp in stamps:
        if last is None or (doubtful is not None and abs(stamp.dts - doubtful.dts) < abs(stamp.dts - last.dts)):
            parts.append(_Part(doubtful or stamp))
        elif _is_restart(last, stamp, time_base):
            doubtful = stamp
            continue
        parts[-1].take(stamp)
        last, doubtful = stamp, None
    return _joined(parts)


class _Part:
    """What is known about one part, gathered packet by packet."""

    def __init__(self, first: Stamp) -> None:
        self.place = first.place
        self.start = first.pts
        self.end = first.pts
        self.last_places: deque[int] = deque(maxlen=SEAM_PACKETS)
        self.keys: list[tuple[int, int]] = []
        self.take(first)

    def take(self, stamp: Stamp) -> None:
        self.last_places.append(stamp.place)
        self.start = min(self.start, stamp.pts)
        self.end = max(self.end, stamp.pts + stamp.ticks)
        if stamp.is_key and (stamp.pts, stamp.place) not in self.keys[-1:]:
            self.keys.append((stamp.pts, stamp.place))


def _is_restart(before: Stamp, after: Stamp, time_base: Fraction) -> bool:
    return not -BACKWARD_S <= float((after.dts - before.dts) * time_base) <= FORWARD_S


def _joined(parts: Sequence[_Part]) -> Clock:
    offsets: list[int] = []
    keys: list[tuple[int, int]] = []
    end = parts[0].start if parts else 0
    for part in parts:
        offsets.append(end - part.start if offsets else 0)
        keys += [(time + offsets[-1], place) for time, place in part.keys]
        end = part.end + offsets[-1]
    seams = frozenset(place for part in parts[:-1] for place in part.last_places)
    return Clock(tuple(part.place for part in parts), tuple(offsets), end, tuple(sorted(keys)), seams)
