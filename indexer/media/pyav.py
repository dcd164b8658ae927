"""The door of PyAV: a video stream as a cursor over its decoded frames, in order of presentation.

Only a local file of a known video container is opened: no network, no playlists, no file that names other files.
PyAV's exceptions leave here as the index's errors. Which frames are wanted is up to reading.py; this file knows no
pixels.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from indexer.errors import MediaError, UnsupportedMedia, VideoTooLong, VideoUndecodable
from indexer.media.clock import Clock, Stamp, read_clock

DEFAULT_MAX_PIXELS = 8192 * 5120
"""Largest picture: 8K (7680 x 4320) passes, a decompression bomb does not."""

CONTAINERS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,gif,apng,ogg,mxf,nut,rm,ivf,obu,h264,hevc,av1,m4v,mpegvideo,mjpeg,dv"
)
SEEKABLE = {"mov", "mp4", "matroska", "webm", "mpegts", "flv", "asf"}
"""Containers whose timestamps survive a seek; in others they depend on what was read before, so reading is linear."""

ORDERED_ONLY = {"avi"}
"""Containers that store the decoding order and no presentation times: the k-th frame out is shown in the k-th slot."""

RESTARTING = {"mpegts", "mpeg"}
"""Containers whose clock may start over in the middle, see clock.py."""

STALE_S = 2.0
"""How long the last good frame may stand in for frames that are damaged or missing."""

SMALL_PIXELS = 640 * 480
FIRST_REACH_S = 1.5
MAX_READ_ERRORS = 16


class Picture(NamedTuple):
    """A decoded frame and when it is shown, in ticks of the stream's time base."""

    pts: int
    """When it is first shown."""
    ticks: int
    """How long it is shown."""
    frame: VideoFrame
    is_after_damage: bool
    """Whether something between it and the picture before could not be decoded."""


class Cursor:
    """A video stream read forwards in order of presentation, from its start or from a key frame before the target.

    `current` is the frame reached, `base` the time of the first; pts, base and targets are in ticks of the time base.
    """

    current: Picture
    _ahead: Picture | None
    _pictures: Iterator[Picture]

    def __init__(self, path: Path, max_pixels: int | None) -> None:
        self._path = path
        self._max_pixels = max_pixels or DEFAULT_MAX_PIXELS
        self._clock: Clock | None = None
        self._open()
        self._can_seek = bool(self._names & SEEKABLE)
        self._reach_s = FIRST_REACH_S
        self.base = self.current.pts

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    @property
    def fps(self) -> float:
        """Frames per second as the container reports them, 25 if it reports nothing plausible."""
        for rate in (self._stream.average_rate, self._stream.guessed_rate, self._stream.base_rate):
            if rate and 0 < rate <= 1000:
                return float(rate)
        return 25.0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the current frame before it is turned."""
        return self.current.frame.width, self.current.frame.height

    @property
    def codec_name(self) -> str:
        """FFmpeg's short name of the codec, e.g. "h264"."""
        return str(self._stream.codec_context.codec.canonical_name)

    @property
    def container_name(self) -> str:
        """FFmpeg's short name of the container; the file's suffix where that is one of its names."""
        suffix = self._path.suffix.lower().lstrip(".")
        return suffix if suffix in self._names else self._container.format.name.split(",")[0]

    @property
    def has_audio(self) -> bool:
        """Whether there is an audio stream."""
        return bool(self._container.streams.audio)

    def seconds(self, ticks: int) -> float:
        """A stretch of ticks in seconds."""
        return float(ticks * self._time_base)

    def ticks(self, seconds: float) -> int:
        """Whole ticks in a stretch; a microsecond of slack, so that a frame's own time finds that frame."""
        return math.floor(Fraction(seconds + 1e-6) / self._time_base)

    def at(self, target: int) -> tuple[Picture, bool]:
        """The frame shown at target, and whether it only stands in for damaged ones. Raises: VideoUndecodable."""
        if target < self.current.pts:
            self._rewind()
        elif self._can_seek and self.seconds(target - self.current.pts) > self._reach_s:
            self._seek(target)
        while True:
            if self._ahead is None:
                self._ahead = next(self._pictures, None)
            if self._ahead is None or self._ahead.pts > target:
                break
            self.current, self._ahead = self._ahead, None
        return self.current, self._is_stale(target)

    def packet_times(self) -> tuple[list[int], int]:
        """Sorted times of the packets that are shown, and how many packets there are (more with an edit list)."""
        self._rewind(decode=False)
        packets = [(self._shown_at(p), p.is_discard) for p in self._packets() if p.size]
        return sorted(at for at, is_cut in packets if at is not None and not is_cut), len(packets)

    def end_pts(self) -> int:
        """Where the last packet that can be read ends. The position is lost."""
        if self._clock is not None:
            return self._clock.end
        start = self._stream.start_time or 0
        if self._stream.duration:
            claimed = start + self._stream.duration
        else:
            claimed = start + self.ticks((self._container.duration or 0) / 1_000_000)
        for back_s in (3.0, 30.0):
            want = claimed - self.ticks(back_s)
            if self._can_seek and want > self.base:
                try:
                    self._container.seek(want, stream=self._stream, backward=True)
                except av.error.FFmpegError:
                    break
                if (end := self._last_end()) is not None:
                    return end
        self._rewind(decode=False)
        return self._last_end() or self.base + self._frame_ticks

    def _open(self, decode: bool = True) -> None:
        self._container, self._stream = _open(self._path, self._max_pixels)
        self._names = set(self._container.format.name.split(","))
        self._time_base = self._stream.time_base or Fraction(1, 1000)
        self._frame_ticks = max(1, round(1 / self.fps / self._time_base))
        listed = self._stream.index_entries if self._names & ORDERED_ONLY else ()
        self._slots: dict[int | None, int | None] = {entry.pos + 8: entry.timestamp for entry in listed}
        self._is_end_damaged = False
        self._last_part = 0
        self._ahead = None
        if self._names & RESTARTING and self._clock is None:
            clock = _clock(self._path, self._max_pixels, self._frame_ticks, *_stamp(self._path))
            self._clock = clock if clock.is_broken else None
        if decode:
            self._pictures = self._decode(need_key=None)
            first = next(self._pictures, None)
            if first is None:
                self._container.close()
                raise VideoUndecodable("No frame of the video stream can be decoded.")
            self.current = first

    def _rewind(self, decode: bool = True) -> None:
        self._container.close()
        self._open(decode)

    def _seek(self, target: int) -> None:
        """Go to a key frame at or before target; to the start where the container can't."""
        left = self.current.pts
        for back_s in (0.0, 2.0, 8.0):
            want = target - self.ticks(back_s)
            if want <= self.base:
                break
            try:
                if self._clock is None:
                    self._container.seek(want, stream=self._stream, backward=True)
                else:
                    self._container.seek(self._clock.key_before(want), unsupported_byte_offset=True)
            except av.error.FFmpegError:
                break
            self._pictures, self._ahead = self._decode(need_key=True), None
            landed = next(self._pictures, None)
            if landed is not None and self.base <= landed.pts <= target:
                if landed.pts <= left:  # decoding on would have been shorter: the key frames are that far apart
                    self._reach_s = max(self._reach_s, self.seconds(target - landed.pts))
                self.current = landed
                return
        self._can_seek = False
        self._rewind()

    def _decode(self, need_key: bool | None) -> Iterator[Picture]:
        """Frames in rising order of time. What follows damage is left out up to the next key frame.

        need_key: leave out what comes before the first key frame; None: only if the first packet isn't one.
        """
        is_damaged = False
        last: int | None = None
        slots: deque[int | None] = deque()
        part: int | None = None
        for packet in self._packets():
            before, part = part, self._part(packet)
            if need_key is None or part != before is not None:
                need_key = not packet.is_keyframe
            frames = self._frames_of(packet)
            if packet.size and frames is not None:
                slots.append(self._shown_at(packet))
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
                at = slot if self._names & ORDERED_ONLY else frame.pts
                pts = self._counted(last) if at is None else at
                if last is not None and pts <= last:
                    continue
                yield Picture(pts, frame.duration or self._frame_ticks, frame, is_damaged)
                need_key, is_damaged, last = False, False, pts
        self._is_end_damaged = is_damaged

    def _packets(self) -> Iterator[av.Packet[VideoStream]]:
        """Packets of the stream, last the empty one that drains the decoder; steps over what can't be read."""
        num_errors = 0
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    num_errors = 0
                    if self._clock is not None and packet.pts is not None:
                        packet.pts += self._clock.offsets[self._part(packet)]
                    yield packet
                return
            except av.error.FFmpegError as error:
                _raise_shortage(error)
                num_errors += 1
                if num_errors >= MAX_READ_ERRORS:
                    return

    def _frames_of(self, packet: av.Packet[VideoStream]) -> list[VideoFrame] | None:
        """What a packet decodes to, None where it is damaged."""
        if packet.is_corrupt and not (self._clock is not None and packet.pos in self._clock.seams):
            return None
        try:
            return packet.decode()
        except av.error.FFmpegError as error:
            _raise_shortage(error)
            return None

    def _part(self, packet: av.Packet[VideoStream]) -> int:
        """The part of a file whose clock starts over, from 0; a packet without a place is of the part before."""
        if self._clock is not None and packet.pos is not None:
            self._last_part = self._clock.part(packet.pos)
        return self._last_part

    def _shown_at(self, packet: av.Packet[VideoStream]) -> int | None:
        """When a packet is shown. For a container that only counts packets, the slot that its index lists for it."""
        return self._slots.get(packet.pos, packet.dts) if self._names & ORDERED_ONLY else packet.pts

    def _counted(self, last: int | None) -> int:
        self._can_seek = False
        return 0 if last is None else last + self._frame_ticks

    def _last_end(self) -> int | None:
        end: int | None = None
        num_untimed = 0
        for packet in self._packets():
            if not packet.size or packet.is_discard or packet.is_corrupt:
                continue
            at = self._shown_at(packet)
            at = packet.dts if at is None else at
            if at is None:
                num_untimed += 1
            else:
                end = max(end if end is not None else at, at + (packet.duration or self._frame_ticks))
        return end if end is not None or not num_untimed else self.base + num_untimed * self._frame_ticks

    def _is_stale(self, target: int) -> bool:
        shown_until = self.current.pts + self.current.ticks
        late_s = self.seconds(target - shown_until)
        is_hole = self._ahead.is_after_damage if self._ahead else self._is_end_damaged or late_s > STALE_S
        if not is_hole or late_s < 0:
            return False
        if late_s > STALE_S:
            raise VideoUndecodable(f"No frame near {self.seconds(target - self.base):.1f} s can be decoded.")
        return True


@lru_cache(maxsize=4)
def _clock(path: Path, max_pixels: int, frame_ticks: int, *_: int) -> Clock:
    """The clock of the file's best video stream by a pass over its packets; once per content (the file's stamp)."""
    container, stream = _open(path, max_pixels)
    with closing(container):
        return read_clock(_stamps(container, stream, frame_ticks), stream.time_base or Fraction(1, 1000))


def _stamps(container: InputContainer, stream: VideoStream, frame_ticks: int) -> Iterator[Stamp]:
    place = 0
    try:
        for packet in container.demux(stream):
            place = place if packet.pos is None else packet.pos
            dts, pts = packet.dts, packet.pts
            if packet.size and dts is not None and pts is not None:
                yield Stamp(place, dts, pts, packet.duration or frame_ticks, packet.is_keyframe)
    except av.error.FFmpegError as error:
        _raise_shortage(error)  # otherwise the packets end where the file can't be read


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Translate PyAV's exceptions into the index's errors, and give those of this file its path."""
    try:
        yield
    except MediaError as error:
        error.path = error.path or path
        raise
    except av.error.FFmpegError as error:
        _raise_shortage(error)
        raise VideoUndecodable(f"The video stream can't be read ({error.strerror}).", path=path) from error


def _raise_shortage(error: av.error.FFmpegError) -> None:
    """Raise MemoryError where memory or threads ran out (EAGAIN): that says nothing about the file."""
    if isinstance(error, MemoryError | BlockingIOError):
        raise MemoryError from error


def _open(path: Path, max_pixels: int) -> tuple[InputContainer, VideoStream]:
    if not path.is_file():
        raise UnsupportedMedia("There is no such file." if not path.exists() else "Not a regular file.")
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS, "max_pixels": str(max_pixels)}
    try:
        container = av.open(f"file:{path.absolute()}", "r", options=options, metadata_errors="replace")
    except av.error.PermissionError as error:
        raise UnsupportedMedia("The file may not be read.", "Check its permissions.") from error
    except av.error.FFmpegError as error:
        _raise_shortage(error)
        raise UnsupportedMedia(f"Not a video file that Vidgrain reads ({error.strerror}).") from error
    try:
        _check_size(container, max_pixels)
        if not all(s.codec_context and s.codec_context.width for s in container.streams.video):  # unknown codec
            with av.open(f"file:{path.absolute()}", "r", options={**options, "codec_whitelist": "none"}) as claims:
                _check_size(claims, max_pixels)
        return container, _best_stream(container, max_pixels)
    except BaseException:
        container.close()
        raise


def _check_size(container: InputContainer, max_pixels: int) -> None:
    for codec in (stream.codec_context for stream in container.streams.video):
        if codec and codec.width * codec.height > max_pixels:
            raise VideoTooLong(f"Pictures of {codec.width} x {codec.height} are over the limit of {max_pixels} px.")


def _best_stream(container: InputContainer, max_pixels: int) -> VideoStream:
    stream = cast(VideoStream | None, container.streams.best("video"))
    if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
        raise UnsupportedMedia("There is no video stream in it.")
    codec = cast(Any, stream.codec_context)
    if codec is None:
        raise UnsupportedMedia("No decoder here knows its video codec.")
    codec.thread_type = "AUTO"
    codec.thread_count = min(4, os.cpu_count() or 1) if codec.width * codec.height > SMALL_PIXELS else 1
    codec.options = {"max_pixels": str(max_pixels), "err_detect": "explode"}
    return stream
