"""Which of the packets ahead is shown at a time, and which nobody needs: known before any of them is decoded.

A packet's time says when its picture is shown. Packets come in decoding order, in which a picture may come early; how
early is bounded by the standards, so a few packets past a target settle which picture is shown then.

It knows packets as plain times; it knows no decoder and no file. All times are ticks of the stream's time base.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

MAX_EARLY = 16
"""How many pictures may be decoded before one that is shown ahead of them: the limit of H.264 and HEVC, the largest."""


class NotClean(Exception):
    """The times of these packets, or the frames that came out of them, leave a doubt; plain decoding has none."""


class LookAhead:
    """The times of the packets read since a key frame."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._times: list[int] = []
        self._is_at_end = False

    def add(self, time: int) -> None:
        """A packet was read. Those shown ahead of the key frame can't be decoded, and don't count.

        Raises: NotClean for two packets of one time, or one that comes later than any standard allows.
        """
        if time < self._start:
            return
        place = bisect_left(self._times, time)
        if self._times[place : place + 1] == [time] or len(self._times) - place > MAX_EARLY:
            raise NotClean
        insort(self._times, time)

    def end(self) -> None:
        """There are no more packets."""
        self._is_at_end = True

    def forget(self, time: int) -> None:
        """Nobody will ask for pictures before this time; the one shown then is kept."""
        del self._times[: max(0, bisect_right(self._times, time) - 1)]

    def is_settled(self, target: int) -> bool:
        """Whether no packet that is yet to be read can be shown at target."""
        return self._is_at_end or len(self._times) - bisect_right(self._times, target) > MAX_EARLY

    def is_followed(self, target: int) -> bool:
        """Whether a packet that was read is shown after target."""
        return bool(self._times) and self._times[-1] > target

    def shown_at(self, target: int) -> int | None:
        """The time of the picture shown at target, as far as packets have been read."""
        place = bisect_right(self._times, target)
        return self._times[place - 1] if place else None

    def is_wanted(self, time: int, targets: Sequence[int]) -> bool | None:
        """Whether the packet of this time is shown at one of the targets (sorted); None: read on to know.

        Beyond the last target everything is wanted: what will be asked for there is unknown.
        """
        if time < self._start:
            return False
        place = bisect_left(targets, time)
        if place == len(targets):
            return True
        if self.shown_at(targets[place]) != time:
            return False
        return True if self.is_settled(targets[place]) else None
