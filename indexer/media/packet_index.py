"""Where a file's key frames are, as far as its container lists them: whether a seek would skip anything.

Containers list times of decoding (mp4) or of showing (Matroska), all packets or a few key frames; a list may be loaded
late, or end before the file does. It knows lists as plain numbers; it knows no decoder and no file. All times are ticks
of the stream's time base.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Protocol


class Entry(Protocol):
    """One packet of a container's list."""

    @property
    def timestamp(self) -> int:
        """Its time."""
        ...


class Entries(Protocol):
    """A container's list of packets, searched by the library that read it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Entry: ...

    def search_timestamp(self, timestamp: int, *, backward: bool = True, any_frame: bool = False) -> int:
        """The number of the last (backward) or first key frame there, -1 if there is none."""
        ...


class PacketIndex:
    """The key frames in a container's list of packets.

    entries: the list, which may grow while the file is read.
    early: how much earlier than it is shown a key frame is listed.
    """

    def __init__(self, entries: Entries, early: int = 0) -> None:
        self._entries = entries
        self._early = early
        self.is_whole = False
        """Whether the list reaches to the end of the file; otherwise nothing is known behind its last entry."""

    def key_before(self, time: int) -> int | None:
        """When the last key frame at or before a time is shown; None where the list doesn't reach that far."""
        num = len(self._entries)
        if not num or (not self.is_whole and self._entries[num - 1].timestamp + self._early < time):
            return None
        found = self._entries.search_timestamp(time - self._early)
        return None if found < 0 else self._entries[found].timestamp + self._early

    def key_near(self, time: int) -> int | None:
        """When the key frame nearest to a time is shown, the earlier of two; None where the list doesn't tell."""
        before = self.key_before(time)
        if before is None:
            return None
        found = self._entries.search_timestamp(time - self._early, backward=False)
        return before if found < 0 else _nearer(time, before, self._entries[found].timestamp + self._early)


class KeyList:
    """The key frames of a file whose packets have all been read once.

    keys: (time, place) of each, in order of time; place is its offset in the file, in bytes.
    """

    def __init__(self, keys: Sequence[tuple[int, int]]) -> None:
        self._keys = keys

    def key_before(self, time: int) -> int | None:
        """When the last key frame at or before a time is shown; None before the first."""
        found = bisect_right(self._keys, (time, 2**63)) - 1
        return self._keys[found][0] if found >= 0 else None

    def key_near(self, time: int) -> int | None:
        """When the key frame nearest to a time is shown, the earlier of two; None before the first."""
        before, found = self.key_before(time), bisect_left(self._keys, (time, 0))
        if before is None or found == len(self._keys):
            return before
        return _nearer(time, before, self._keys[found][0])


def _nearer(time: int, before: int, after: int) -> int:
    return before if time - before <= after - time else after
