"""A video stream as a cursor over its frames, in order of presentation: the frame shown at a time, at the least cost.

Three ways lead to a frame: seeking to a key frame near it (where that skips more than it costs), decoding from there
only what it needs (selective.py), and plain decoding of everything where packets or frames leave a doubt, for example
after damage. All of them give the same bits.

Files are opened by pyav.py. Which frames are wanted is up to reading.py; this file knows no pixels.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from indexer.errors import VideoUndecodable
from indexer.media.look_ahead import NotClean
from indexer.media.pyav import ORDERED_ONLY, SEEKABLE, Source
from indexer.media.selective import Picture, SelectiveRun, Skipped

STALE_S = 2.0
"""How long the last good frame may stand in for frames that are damaged or missing."""

SEEK_FRAMES = 3
"""A seek costs about as much as decoding this many frames: going there, and filling the decoder again."""

FIRST_REACH_S = 0.3
"""Where a container lists no key frames: how far ahead a target must be for the first attempt to seek to it."""

SHORT_S, SHORT_BYTES = 20.0, 2**25
"""A file whose packets are all read to find its end, and kept for decoding."""

MAX_MISSES = 2
"""How often a list of key frames may lead to an earlier one than it promised before it is no longer asked."""

BACK_S = (0.0, 2.0, 8.0)
"""How far before a target a seek aims, one after the other, until it lands at or before the target."""


class Cursor:
    """A video stream read forwards in order of presentation, from its start or from a key frame before the target.

    `current` is the frame reached, `base` the time of the first; pts, base and targets are in ticks of the time base.
    threads: of the codec; None chooses by the size of the picture.
    """

    current: Picture
    _ahead: Picture | None
    _pictures: Iterator[Picture]

    def __init__(
        self,
        path: Path,
        max_pixels: int | None = None,
        threads: int | None = None,
        open_source: Callable[[Path, int | None, int | None], Source] = Source,
    ) -> None:
        self._open_source = open_source
        self._path = path
        self._max_pixels = max_pixels
        self._threads = threads
        self._targets: list[int] = []
        self._reach_s = FIRST_REACH_S
        self._run: SelectiveRun | None = None
        self._is_lost = False
        self._early = 0
        self._num_misses = 0
        self._source = self._opened()
        try:
            self._can_seek = bool(self._source.names & SEEKABLE)
            if self._source.is_selective:
                self._start_selective()
            if self._run is None:
                self._start_plain()
        except BaseException:
            self._source.close()
            raise
        self.base = self.current.pts

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    @property
    def source(self) -> Source:
        """What the container reports about the stream."""
        return self._source

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the current frame before it is turned."""
        return self.current.frame.width, self.current.frame.height

    @property
    def codec_name(self) -> str:
        """FFmpeg's short name of the codec."""
        return self._source.codec_name

    @property
    def container_name(self) -> str:
        """FFmpeg's short name of the container; the file's suffix where that is one of its names."""
        return self._source.container_name

    def seconds(self, ticks: int) -> float:
        """A stretch of ticks in seconds."""
        return float(ticks * self._source.time_base)

    def ticks(self, seconds: float) -> int:
        """Whole ticks in a stretch; a microsecond of slack, so that a frame's own time finds that frame."""
        return math.floor(Fraction(seconds + 1e-6) / self._source.time_base)

    def expect(self, targets: Sequence[int]) -> None:
        """The targets (sorted) that at() will be asked for next: frames between them need not be decoded."""
        self._targets = list(targets)

    def at(self, target: int) -> tuple[Picture, bool]:
        """The frame shown at target, and whether it only stands in for damaged ones. Raises: VideoUndecodable."""
        if self._run is not None:
            try:
                return self._at_selectively(target), False
            except NotClean:
                self._reopen()
        return self._at_plainly(target)

    def key_near(self, target: int) -> tuple[Picture, bool]:
        """The key frame nearest to target, the earlier of two; otherwise as at().

        Where the container lists no key frames it is one at or before target; where it can't be sought, or
        does not decode cleanly, the frame shown at target.
        """
        if self._run is None:
            return self._at_plainly(target)
        try:
            self.current = self._key_near(target)
        except NotClean:
            self._reopen()
            return self._at_plainly(target)
        return self.current, False

    def packet_times(self) -> tuple[list[int], int]:
        """Sorted times of the packets that are shown, and how many packets there are (more with an edit list)."""
        self._leave()
        packets = [(self._source.shown_at(p), p.is_discard) for p in self._source.packets() if p.size]
        return sorted(at for at, is_cut in packets if at is not None and not is_cut), len(packets)

    def end_pts(self) -> int:
        """Where the last packet that can be read ends. The position is lost, but for a short file."""
        if self._source.clock is not None:
            return self._source.clock.end
        if self._run is not None and self._run.start <= self.base and not self._is_lost:
            try:
                is_short = self.seconds(self._source.claimed_end - self.base) <= SHORT_S
                if is_short and (end := self._run.read_to_end(SHORT_BYTES)) is not None:
                    return end
            except NotClean:
                self._run, self._is_lost = None, True
        for back_s in (3.0, 30.0):
            want = self._source.claimed_end - self.ticks(back_s)
            if self._can_seek and want > self.base:
                if not self._go(want):
                    break
                if (end := self._last_end()) is not None:
                    return end
        self._leave()
        return self._last_end() or self.base + self._source.frame_ticks

    # --- selective: packets first ---

    def _start_selective(self) -> None:
        try:
            self._run = SelectiveRun(self._source, is_start_of_file=True)
            self.current = self._run.first()
            self._early = self._run.early
        except NotClean:
            self._run = None
            self._source.close()
            self._source = self._opened()

    def _at_selectively(self, target: int) -> Picture:
        assert self._run is not None
        if target < self.current.pts or self._is_lost or self._leaps(target):
            self._land(target)
        try:
            picture = self._run.at(target, self._targets, self._is_left_after)
        except Skipped:
            self._land(target)
            picture = self._run.at(target, self._targets, self._is_left_after)
        self.current = picture
        if self._run.is_last(target):
            self._check_end(target)
        return picture

    def _key_near(self, target: int) -> Picture:
        if not self._source.has_sought:
            self._go(self.base)  # some containers load their list with the first seek
        index = self._source.index(self._early)
        key = index.key_near(target) if index else None
        if key is not None and max(key, self.base) == self.current.pts and self.current.frame.key_frame:
            return self.current
        self._land(target if key is None else max(key, self.base))
        assert self._run is not None
        return self._run.key()

    def _leaps(self, target: int) -> bool:
        """Whether a seek to target skips more than it costs, or is the only way."""
        assert self._run is not None
        if self._run.holds(target):
            return False
        if self._run.is_empty:
            return True
        key = self._key_before(target)
        if key is None:
            return self.seconds(target - self._run.front) > self._reach_s
        return key - self._run.front > SEEK_FRAMES * self._source.frame_ticks

    def _key_before(self, target: int) -> int | None:
        index = self._source.index(self._early) if self._num_misses < MAX_MISSES else None
        return index.key_before(target) if index else None

    def _is_left_after(self, target: int) -> bool:
        """Whether the next target will be reached by a seek; behind the last one, guessed from the step before it."""
        place = bisect_right(self._targets, target)
        if place < len(self._targets):
            following = self._targets[place]
        elif place > 1:
            following = 2 * self._targets[place - 1] - self._targets[place - 2]
        else:
            return False
        return self._key_before(following) is not None and self._leaps(following)

    def _land(self, target: int) -> None:
        """Start a new run at a key frame at or before target; at the start of the file where that fails."""
        assert self._run is not None
        left = self._run.front if not (self._is_lost or self._run.is_empty or target < self.current.pts) else None
        for back_s in BACK_S:
            want = max(target - self.ticks(back_s), self.base)
            if not self._go(want):
                break
            try:
                run = SelectiveRun(self._source, is_start_of_file=False)
            except NotClean:
                continue
            if run.start <= target:
                self._run, self._is_lost = run, False
                if left is not None and run.start <= left:  # decoding on would have been shorter
                    self._num_misses += 1
                    self._reach_s = max(self._reach_s, self.seconds(target - run.start))
                return
        self._leave()
        self._run, self._is_lost = SelectiveRun(self._source, is_start_of_file=True), False

    def _go(self, time: int) -> bool:
        """Seek; whether the container can. The position is lost."""
        self._is_lost = True
        return self._source.seek(time)

    # --- plain: every frame ---

    def _start_plain(self) -> None:
        self._run, self._ahead, self._is_lost = None, None, False
        self._is_end_damaged = False
        self._pictures = self._decode(need_key=None)
        first = next(self._pictures, None)
        if first is None:
            raise VideoUndecodable("No frame of the video stream can be decoded.")
        self.current = first

    def _reopen(self) -> None:
        self._leave()
        self._start_plain()

    def _leave(self) -> None:
        """Put the source at the start of the file; the position is lost."""
        self._source.close()
        self._source = self._opened()
        self._is_lost = True

    def _opened(self) -> Source:
        return self._open_source(self._path, self._max_pixels, self._threads)

    def _at_plainly(self, target: int) -> tuple[Picture, bool]:
        if self._is_lost or target < self.current.pts:
            self._reopen()
        elif self._can_seek and self.seconds(target - self.current.pts) > self._reach_s:
            self._seek(target)
        while True:
            if self._ahead is None:
                self._ahead = next(self._pictures, None)
            if self._ahead is None or self._ahead.pts > target:
                break
            self.current, self._ahead = self._ahead, None
        return self.current, self._is_stale(target)

    def _seek(self, target: int) -> None:
        """Go to a key frame at or before target; to the start where the container can't."""
        left = self.current.pts
        for back_s in BACK_S:
            want = target - self.ticks(back_s)
            if want <= self.base or not self._source.seek(want):
                break
            self._pictures, self._ahead = self._decode(need_key=True), None
            landed = next(self._pictures, None)
            if landed is not None and self.base <= landed.pts <= target:
                if landed.pts <= left:  # decoding on would have been shorter: the key frames are that far apart
                    self._reach_s = max(self._reach_s, self.seconds(target - landed.pts))
                self.current = landed
                return
        self._can_seek = False
        self._reopen()

    def _decode(self, need_key: bool | None) -> Iterator[Picture]:
        """Frames in rising order of time. What follows damage is left out up to the next key frame.

        need_key: leave out what comes before the first key frame; None: only if the first packet isn't one.
        """
        source = self._source
        is_damaged = False
        last: int | None = None
        slots: deque[int | None] = deque()
        part: int | None = None
        for packet in source.packets():
            before, part = part, source.part(packet)
            if need_key is None or part != before is not None:
                need_key = not packet.is_keyframe
            frames = source.decode(packet)
            if packet.size and frames is not None:
                slots.append(source.shown_at(packet))
            if frames is None:
                is_damaged = need_key = True
                continue
            for frame in frames:
                slot = slots.popleft() if slots else None
                if frame.is_corrupt:
                    is_damaged = True
                    continue
                if need_key and not frame.key_frame:
                    continue
                at = slot if source.names & ORDERED_ONLY else frame.pts
                pts = self._counted(last) if at is None else at
                if last is not None and pts <= last:
                    continue
                yield Picture(pts, frame.duration or source.frame_ticks, frame, is_damaged)
                need_key, is_damaged, last = False, False, pts
        self._is_end_damaged = is_damaged

    def _counted(self, last: int | None) -> int:
        self._can_seek = False
        return 0 if last is None else last + self._source.frame_ticks

    def _last_end(self) -> int | None:
        end: int | None = None
        num_untimed = 0
        for packet in self._source.packets():
            if not packet.size or packet.is_discard or packet.is_corrupt:
                continue
            at = self._source.shown_at(packet)
            at = packet.dts if at is None else at
            if at is None:
                num_untimed += 1
            else:
                end = max(end if end is not None else at, at + (packet.duration or self._source.frame_ticks))
        return end if end is not None or not num_untimed else self.base + num_untimed * self._source.frame_ticks

    def _is_stale(self, target: int) -> bool:
        late_s = self._late_s(target)
        is_hole = self._ahead.is_after_damage if self._ahead else self._is_end_damaged or late_s > STALE_S
        if not is_hole or late_s < 0:
            return False
        if late_s > STALE_S:
            self._raise_hole(target)
        return True

    def _check_end(self, target: int) -> None:
        if self._late_s(target) > STALE_S:
            self._raise_hole(target)

    def _late_s(self, target: int) -> float:
        return self.seconds(target - self.current.pts - self.current.ticks)

    def _raise_hole(self, target: int) -> None:
        raise VideoUndecodable(f"No frame near {self.seconds(target - self.base):.1f} s can be decoded.")
