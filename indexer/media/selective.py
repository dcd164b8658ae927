"""Decodes from a key frame on, and only what the frames asked for need; the same bits as decoding everything.

The wanted packet is known before it is decoded (look_ahead.py). Pictures that no other refers to are left out unless
one of them is wanted, and the decoder can be emptied right behind a wanted one. Whatever is not as it should be
(packets without times, damage, interlaced fields, a frame that doesn't come out) raises NotClean, and the caller
decodes plainly.

It takes packets and frames as the decoder's door (pyav.py) gives them and imports no decoder itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from indexer.media.look_ahead import LookAhead, NotClean

MAX_BEFORE_KEY = 500
"""How many packets a seek may land before the key frame."""

EVERYTHING = -(2**63)


class Picture(NamedTuple):
    """A decoded frame and when it is shown, in ticks of the stream's time base."""

    pts: int
    """When it is first shown."""
    ticks: int
    """How long it is shown."""
    frame: Any
    """The frame as PyAV gives it."""
    is_after_damage: bool = False
    """Whether something between it and the picture before could not be decoded."""


class Skipped(Exception):
    """The picture was left out because nobody had asked for it in time; decode again from its key frame."""


class PacketSource(Protocol):
    """An open stream at some position."""

    num_read_errors: int
    """How often the container could not be read."""
    frame_ticks: int
    """How long a frame is shown where it doesn't say so itself."""

    def packets(self) -> Iterator[Any]:
        """The packets from here on, the last one empty."""
        ...

    def decode(self, packet: Any, *, is_wanted: bool = True) -> list[Any] | None:
        """What comes out of the decoder; None for damage. packet None empties the decoder, which then needs a seek."""
        ...


class SelectiveRun:
    """The frames from a source's position on. Every method raises NotClean."""

    def __init__(self, source: PacketSource, *, is_start_of_file: bool) -> None:
        self._source = source
        self._num_errors = source.num_read_errors
        self._packets = source.packets()
        self._queue: deque[Any] = deque()
        self._out: deque[Picture] = deque()
        self._skipped: list[int] = []
        self._is_read = False
        self._is_empty = False
        first = self._first_packet(is_start_of_file)
        self.start: int = first.pts
        """When the key frame is shown that the run starts with."""
        self.early: int = 0 if first.dts is None else first.pts - first.dts
        """How much earlier the key frame is decoded than it is shown."""
        self._must_open = None if first.is_discard else self.start
        self._from = EVERYTHING if is_start_of_file and not first.is_discard else self.start
        self._look = LookAhead(self._from)
        self._last_fed = self.start
        self._last_out = self._end = EVERYTHING
        self._enqueue(first)

    @property
    def front(self) -> int:
        """When the next picture to be decoded is shown."""
        return int(self._queue[0].pts) if self._queue else self._last_fed

    @property
    def is_empty(self) -> bool:
        """Whether the decoder was emptied: reading on needs a seek."""
        return self._is_empty

    def holds(self, target: int) -> bool:
        """Whether the picture shown at target has come out already."""
        time = self._look.shown_at(target) if self._look.is_settled(target) else None
        return time is not None and any(picture.pts == time for picture in self._out)

    def first(self) -> Picture:
        """The first picture of a file."""
        while self._from == EVERYTHING and not self._look.is_settled(self.start):
            self._pull()
        if self._from == EVERYTHING and self._look.shown_at(self.start - 1) is not None:
            raise NotClean
        while not self._out:
            if not self._queue and not self._is_read:
                self._pull()
            self._feed(is_wanted=True)
        return self._out[0]

    def key(self) -> Picture:
        """The key frame that the run starts with, nothing else; the decoder is empty then."""
        self._feed(is_wanted=True)
        if not self._out:
            self._empty()
        if not self._out:
            raise NotClean
        self._is_empty = True
        return self._out[0]

    def is_last(self, target: int) -> bool:
        """Whether nothing is shown after target; known once at() was asked for it."""
        return not self._look.is_followed(target)

    def at(self, target: int, targets: Sequence[int], is_left_after: Callable[[int], bool]) -> Picture:
        """The picture shown at target.

        targets: all instants that will be asked for, sorted; pictures after the last one are all decoded.
        is_left_after: whether the run is given up after target, so that the decoder may be emptied.
        Raises: NotClean, Skipped.
        """
        ahead = targets[bisect_right(targets, target - 1) :]
        time = self._settled(target, ahead)
        while self._out and self._out[0].pts < time:
            self._out.popleft()
        if not self._out:
            if time in self._skipped:
                raise Skipped
            self._feed_until(time, ahead, target, is_left_after)
        if self._out[0].pts != time:
            raise NotClean
        self._look.forget(time)
        self._skipped = [t for t in self._skipped if t > time]
        return self._out[0]

    def read_to_end(self, max_bytes: int) -> int | None:
        """Where the last packet ends, if all that are left take no more than so many bytes; nothing is decoded."""
        num_bytes = sum(packet.size for packet in self._queue)
        while not self._is_read and num_bytes <= max_bytes:
            self._pull()
            num_bytes += self._queue[-1].size if self._queue else 0
        return self._end if self._is_read else None

    def _first_packet(self, is_start_of_file: bool) -> Any:
        for num, packet in enumerate(self._packets):
            self._check(packet)
            if packet.is_keyframe and packet.size:
                return packet
            if is_start_of_file or not packet.size or num >= MAX_BEFORE_KEY:
                break
        raise NotClean

    def _check(self, packet: Any) -> None:
        is_timed = packet.pts is not None or not packet.size
        if packet.is_corrupt or not is_timed or self._source.num_read_errors != self._num_errors:
            raise NotClean

    def _enqueue(self, packet: Any) -> None:
        if not packet.is_discard:
            self._look.add(packet.pts)
            self._end = max(self._end, packet.pts + (packet.duration or self._source.frame_ticks))
        self._queue.append(packet)

    def _pull(self) -> None:
        packet = next(self._packets, None)
        if packet is not None:
            self._check(packet)
        if packet is not None and packet.size:
            self._enqueue(packet)
        elif self._source.num_read_errors != self._num_errors:
            raise NotClean
        else:
            self._is_read = True
            self._look.end()

    def _settled(self, target: int, ahead: Sequence[int]) -> int:
        """The time of the picture shown at target; packets that come before it are decoded on the way."""
        while not self._look.is_settled(target):
            self._pull()
            best = self._look.shown_at(target)
            while self._queue and best is not None and self._queue[0].pts != best and self._queued_is(best):
                is_wanted = self._is_wanted(ahead)
                if is_wanted is None:
                    break
                self._feed(is_wanted)
        time = self._look.shown_at(target)
        if time is None:
            raise NotClean
        return time

    def _queued_is(self, time: int) -> bool:
        return any(packet.pts == time for packet in reversed(self._queue))

    def _is_wanted(self, ahead: Sequence[int]) -> bool | None:
        packet = self._queue[0]
        return False if packet.is_discard else self._look.is_wanted(packet.pts, ahead)

    def _feed_until(self, time: int, ahead: Sequence[int], target: int, is_left_after: Callable[[int], bool]) -> None:
        """Decode until the picture of this time has come out."""
        is_fed = not self._queued_is(time)
        while not self._out or self._out[0].pts < time:
            if self._out:
                self._out.popleft()
                continue
            if is_fed and is_left_after(target):
                self._empty()
                continue
            if not self._queue and not self._is_read:
                self._pull()
                continue
            is_wanted = self._is_wanted(ahead) if self._queue else True
            if is_wanted is None:
                self._pull()
                continue
            is_fed = is_fed or self._queue[0].pts == time
            self._feed(is_wanted)

    def _feed(self, is_wanted: bool) -> None:
        if not self._queue:
            self._empty()
            return
        packet = self._queue.popleft()
        self._last_fed = packet.pts
        if not is_wanted:
            self._skipped.append(packet.pts)
        self._take(self._source.decode(packet, is_wanted=is_wanted))

    def _empty(self) -> None:
        if self._is_empty:
            raise NotClean
        self._is_empty = True
        self._take(self._source.decode(None))

    def _take(self, frames: list[Any] | None) -> None:
        if frames is None:
            raise NotClean
        for frame in frames:
            if frame.pts is None:
                raise NotClean
            if frame.pts < self._from:
                continue
            is_wrong_start = self._must_open is not None and (frame.pts != self._must_open or not frame.key_frame)
            if is_wrong_start or frame.is_corrupt or frame.interlaced_frame or frame.pts <= self._last_out:
                raise NotClean
            self._must_open = None
            self._last_out = frame.pts
            self._out.append(Picture(frame.pts, frame.duration or self._source.frame_ticks, frame))
