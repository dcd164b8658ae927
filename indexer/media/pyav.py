"""The door of PyAV: the best video stream of a file as packets, and as frames that come out of its decoder.

Only a local file of a known video container is opened: no network, no playlists, no file that names other files.
PyAV's exceptions leave here as the index's errors. Which packets are decoded is up to cursor.py; this file knows no
pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from indexer.errors import MediaError, UnsupportedMedia, VideoTooLong, VideoUndecodable
from indexer.media.clock import Clock, Stamp, read_clock
from indexer.media.nal_units import has_one_layer, is_unreferenced, length_bytes
from indexer.media.packet_index import KeyList, PacketIndex

DEFAULT_MAX_PIXELS = 8192 * 5120
"""Largest picture: 8K (7680 x 4320) passes, a decompression bomb does not."""

CONTAINERS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,gif,apng,ogg,mxf,nut,rm,ivf,obu,h264,hevc,av1,m4v,mpegvideo,mjpeg,dv"
)
SEEKABLE = {"mov", "mp4", "matroska", "webm", "mpegts", "flv", "asf"}
"""Containers whose timestamps survive a seek; in others they depend on what was read before, so reading is linear."""

INDEXED = {"mov", "mp4", "matroska", "webm"}
"""Containers that list their key frames, so that what a seek would skip is known before it is done."""

ORDERED_ONLY = {"avi"}
"""Containers that store the decoding order and no presentation times: the k-th frame out is shown in the k-th slot."""

RESTARTING = {"mpegts", "mpeg"}
"""Containers whose clock may start over in the middle, see clock.py."""

SELECTIVE = {"h264", "hevc", "vp9", "vp8", "av1", "mpeg4", "mpeg2video"}
"""Codecs whose frames have the time of the packet they came in."""

SKIPPING = {"h264", "mpeg4", "mpeg2video"}
"""Codecs that mark the pictures no other refers to, and whose decoder leaves those out when asked. HEVC marks them
within a temporal layer only, see nal_units.py; the decoders of VP9 and AV1 leave nothing out."""

SMALL_PIXELS = 640 * 480
"""Pictures up to this size are decoded by one thread."""

LARGE_PIXELS = 2560 * 1440
"""Larger pictures are decoded by several threads even beside other files: a segment must come within its time limit."""

MAX_READ_ERRORS = 16


class Source:
    """An open file's best video stream, read forwards from its start or from where a seek led.

    threads: of the codec; None chooses by the size of the picture, and large ones always have several. hardware: decode
    on a CUDA device where there is one that knows the codec; pixels may then differ by rounding.
    Raises: UnsupportedMedia, VideoTooLong.
    """

    def __init__(
        self, path: Path, max_pixels: int | None = None, threads: int | None = None, hardware: bool = False
    ) -> None:
        max_pixels = max_pixels or DEFAULT_MAX_PIXELS
        self._path = path
        self._container, self._stream = _open(path, max_pixels, threads, hardware and _has_cuda())
        self._codec = cast(Any, self._stream.codec_context)
        self.names = set(self._container.format.name.split(","))
        """The short names of the container."""
        self.time_base = self._stream.time_base or Fraction(1, 1000)
        """Seconds of one tick."""
        self.frame_ticks = max(1, round(1 / self.fps / self.time_base))
        """How long a frame is shown where it doesn't say so itself."""
        self.num_read_errors = 0
        """How often the container could not be read."""
        self.clock: Clock | None = None
        """The timeline of a file whose clock starts over; None for all others."""
        self._slots: dict[int | None, int | None] = {}
        if self.names & ORDERED_ONLY:
            self._slots = {entry.pos + 8: entry.timestamp for entry in self._stream.index_entries}
        self._last_part = 0
        self.has_sought = False
        """Whether a seek succeeded."""
        record, name = self._codec.extradata, self.codec_name
        self._can_skip = name in SKIPPING or (name == "hevc" and has_one_layer(record))
        self._num_length_bytes = length_bytes(name, record) if name in ("h264", "hevc") else None
        self._clock_of_keys: Clock | None = None
        if self.names & RESTARTING:
            clock = _clock(path, max_pixels, self.frame_ticks, *stamp(path))
            self.clock = clock if clock.is_broken else None
            self._clock_of_keys = clock if clock.keys else None

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
    def codec_name(self) -> str:
        """FFmpeg's short name of the codec, e.g. "h264"."""
        return str(self._stream.codec_context.codec.canonical_name)

    @property
    def container_name(self) -> str:
        """FFmpeg's short name of the container; the file's suffix where that is one of its names."""
        suffix = self._path.suffix.lower().lstrip(".")
        return suffix if suffix in self.names else self._container.format.name.split(",")[0]

    @property
    def has_audio(self) -> bool:
        """Whether there is an audio stream."""
        return bool(self._container.streams.audio)

    @property
    def claimed_end(self) -> int:
        """Where the container says that the stream ends."""
        start = self._stream.start_time or 0
        if self._stream.duration:
            return start + self._stream.duration
        return start + int(Fraction(self._container.duration or 0, 1_000_000) / self.time_base)

    @property
    def is_selective(self) -> bool:
        """Whether frames can be told by the times of their packets, so that not all have to be decoded."""
        return bool(self.names & SEEKABLE) and self.clock is None and self.codec_name in SELECTIVE

    def index(self, early: int) -> PacketIndex | KeyList | None:
        """The key frames that the container lists, or that a pass over its packets found.

        early: how much earlier its first key frame is decoded than shown.
        """
        if self._clock_of_keys is not None:
            return KeyList(self._clock_of_keys.keys)
        if not self.names & INDEXED:
            return None
        is_by_decoding_time = bool(self.names & {"mov", "mp4"})
        index = PacketIndex(self._stream.index_entries, early if is_by_decoding_time else 0)
        if is_by_decoding_time:
            index.is_whole = 0 < self._stream.frames <= len(self._stream.index_entries)
        else:
            index.is_whole = self.has_sought  # Matroska's list is loaded by the first seek
        return index

    def seek(self, time: int) -> bool:
        """Go to a key frame shown at or before time, or near it; whether the container can."""
        try:
            if self._clock_of_keys is not None and (self.clock is not None or self.is_selective):
                self._container.seek(self._clock_of_keys.key_before(time), unsupported_byte_offset=True)
            else:
                self._container.seek(time, stream=self._stream, backward=True)
        except av.error.FFmpegError:
            return False
        self.has_sought = True
        return True

    def packets(self) -> Iterator[av.Packet[VideoStream]]:
        """Packets of the stream, last the empty one that drains the decoder; steps over what can't be read."""
        num_errors = 0
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    num_errors = 0
                    if self.clock is not None and packet.pts is not None:
                        packet.pts += self.clock.offsets[self.part(packet)]
                    yield packet
                return
            except av.error.FFmpegError as error:
                _raise_shortage(error)
                self.num_read_errors += 1
                num_errors += 1
                if num_errors >= MAX_READ_ERRORS:
                    return

    def decode(self, packet: av.Packet[VideoStream] | None, *, is_wanted: bool = True) -> list[VideoFrame] | None:
        """What comes out of the decoder for a packet, None where it is damaged.

        packet: None empties the decoder, which then needs a seek. is_wanted: False leaves the picture out where no
        other refers to it.
        """
        if packet is not None and packet.is_corrupt and not self._is_seam(packet):
            return None
        skip = "DEFAULT" if is_wanted or packet is None or not self._may_skip(packet) else "NONREF"
        if self._codec.skip_frame != skip:
            self._codec.skip_frame = skip
        try:
            return cast(list[VideoFrame], self._codec.decode(packet))
        except av.error.FFmpegError as error:
            _raise_shortage(error)
            return None

    def part(self, packet: av.Packet[VideoStream]) -> int:
        """The part of a file whose clock starts over, from 0; a packet without a place is of the part before."""
        if self.clock is not None and packet.pos is not None:
            self._last_part = self.clock.part(packet.pos)
        return self._last_part

    def shown_at(self, packet: av.Packet[VideoStream]) -> int | None:
        """When a packet is shown. For a container that only counts packets, the slot that its index lists for it."""
        return self._slots.get(packet.pos, packet.dts) if self.names & ORDERED_ONLY else packet.pts

    def _may_skip(self, packet: av.Packet[VideoStream]) -> bool:
        if self._num_length_bytes is None:
            return self._can_skip
        return self._can_skip and is_unreferenced(self.codec_name, bytes(packet), self._num_length_bytes)

    def _is_seam(self, packet: av.Packet[VideoStream]) -> bool:
        return self.clock is not None and packet.pos in self.clock.seams


@lru_cache(maxsize=4)
def _clock(path: Path, max_pixels: int, frame_ticks: int, *_: int) -> Clock:
    """The clock of the file's best video stream by a pass over its packets; once per content (the file's stamp)."""
    container, stream = _open(path, max_pixels, 1)
    with closing(container):
        return read_clock(_stamps(container, stream, frame_ticks), stream.time_base or Fraction(1, 1000))


@lru_cache(maxsize=1)
def _has_cuda() -> bool:
    """Whether a device can be opened; asked once in a process."""
    try:
        HWAccel("cuda").create(av.Codec("h264", "r"))
    except (av.error.FFmpegError, ValueError, NotImplementedError, RuntimeError):
        return False
    return True


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


def stamp(path: Path) -> tuple[int, int, int]:
    """Size, time of change and identity of a file. Raises: UnsupportedMedia where there is none."""
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


def _open(
    path: Path, max_pixels: int, threads: int | None, hardware: bool = False
) -> tuple[InputContainer, VideoStream]:
    if not path.is_file():
        raise UnsupportedMedia("There is no such file." if not path.exists() else "Not a regular file.")
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS, "max_pixels": str(max_pixels)}
    try:
        accelerator = HWAccel("cuda", allow_software_fallback=True) if hardware else None
        container = av.open(
            f"file:{path.absolute()}", "r", options=options, metadata_errors="replace", hwaccel=accelerator
        )
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
        return container, _best_stream(container, max_pixels, threads)
    except BaseException:
        container.close()
        raise


def _check_size(container: InputContainer, max_pixels: int) -> None:
    for codec in (stream.codec_context for stream in container.streams.video):
        if codec and codec.width * codec.height > max_pixels:
            raise VideoTooLong(f"Pictures of {codec.width} x {codec.height} are over the limit of {max_pixels} px.")


def _best_stream(container: InputContainer, max_pixels: int, threads: int | None) -> VideoStream:
    stream = cast(VideoStream | None, container.streams.best("video"))
    if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
        raise UnsupportedMedia("There is no video stream in it.")
    codec = cast(Any, stream.codec_context)
    if codec is None:
        raise UnsupportedMedia("No decoder here knows its video codec.")
    num_pixels, many = codec.width * codec.height, min(4, os.cpu_count() or 1)
    if threads is None:
        threads = many if num_pixels > SMALL_PIXELS else 1
    elif num_pixels > LARGE_PIXELS:
        threads = max(threads, many)
    codec.thread_type = "AUTO"
    codec.thread_count = threads
    codec.options = {"max_pixels": str(max_pixels), "err_detect": "explode"}
    return stream
