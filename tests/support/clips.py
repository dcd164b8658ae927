"""Writes test clips with PyAV: numbered frames (the number drawn into the picture can be read back), plain colours.

A number is drawn as a 6 x 4 grid of black and white blocks over the whole frame: 16 bits of the number, 8 bits of a
checksum of it. Blocks of 8 pixels and more survive any encoder here; a frame that is turned, mixed or damaged fails the
checksum, so `read_number` says None instead of a wrong number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

COLUMNS, ROWS = 6, 4
DARK, LIGHT = 16, 235


def numbered_frame(number: int, size: tuple[int, int] = (192, 128)) -> Picture:
    """One picture (height, width, 3) that shows number, 0 <= number < 65536. size is (width, height) in pixels."""
    bits = [number >> i & 1 for i in range(16)] + [_checksum(number) >> i & 1 for i in range(8)]
    cells = np.array(bits, dtype=np.uint8).reshape(ROWS, COLUMNS) * (LIGHT - DARK) + DARK
    width, height = size
    rows = np.arange(height) * ROWS // height
    columns = np.arange(width) * COLUMNS // width
    return np.repeat(cells[rows][:, columns, None], 3, axis=2).astype(np.uint8)


def numbered_frames(num: int, size: tuple[int, int] = (192, 128), first: int = 0) -> Iterator[Picture]:
    """num pictures that show first, first + 1, ..."""
    return (numbered_frame(first + i, size) for i in range(num))


def read_number(frame: Picture) -> int | None:
    """The number drawn into a frame (height, width, 3), None where its checksum fails."""
    height, width = frame.shape[:2]
    bits = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            y, x = (2 * row + 1) * height // (2 * ROWS), (2 * column + 1) * width // (2 * COLUMNS)
            dy, dx = max(1, height // (6 * ROWS)), max(1, width // (6 * COLUMNS))
            bits.append(int(frame[y - dy : y + dy, x - dx : x + dx].mean() > 128))
    number = sum(bit << i for i, bit in enumerate(bits[:16]))
    check = sum(bit << i for i, bit in enumerate(bits[16:]))
    return number if check == _checksum(number) else None


def write_clip(
    path: Path,
    frames: Iterable[Picture],
    fps: float | Fraction = 25,
    codec: str = "libx264",
    *,
    container: str | None = None,
    pix_fmt: str | None = None,
    gop: int | None = None,
    b_frames: int | None = None,
    times_ms: Sequence[int] | None = None,
    rotation_deg: int = 0,
    audio_s: float = 0.0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    colour: tuple[int, int] | None = None,
) -> Path:
    """Encode frames (height, width, 3) uint8 into path and return it.

    times_ms: presentation times in milliseconds instead of a steady rate. rotation_deg: clockwise turn a player has to
    make (mp4, mov). audio_s: seconds of a quiet AAC tone beside the video. colour: (colorspace, range) in FFmpeg's
    numbers, e.g. (1, 2) for BT.709 full range. Raises: av.error.FFmpegError where the wheel has no such encoder.
    """
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w", format=container, container_options=container_options or {}) as output:
        video = output.add_stream(codec, rate=rate, options={**_fast(codec), **(options or {})})
        if gop is not None:
            video.codec_context.gop_size = gop
        if b_frames is not None:
            video.codec_context.max_b_frames = b_frames
        if times_ms is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        if rotation_deg:
            video.set_display_rotation(-rotation_deg)
        sound = output.add_stream("aac", rate=8000, layout="mono") if audio_s else None
        for i, picture in enumerate(frames):
            if i == 0:
                video.height, video.width = picture.shape[:2]
                video.pix_fmt = pix_fmt or _pixel_format(codec, picture)
                if colour is not None:
                    video.codec_context.colorspace, video.codec_context.color_range = colour
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if colour is not None:
                frame = frame.reformat(format=video.pix_fmt, dst_colorspace=colour[0], dst_color_range=colour[1])
            frame.pts = i if times_ms is None else times_ms[i]
            frame.time_base = 1 / rate if times_ms is None else Fraction(1, 1000)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if sound is not None:
            _write_tone(output, sound, audio_s)
    return path


def solid_clip(
    path: Path,
    rgb: tuple[int, int, int],
    duration_s: float,
    fps: float = 10,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
) -> Path:
    """A clip of one colour. size is (width, height)."""
    picture = np.full((size[1], size[0], 3), rgb, dtype=np.uint8)
    return write_clip(path, [picture] * max(1, round(duration_s * fps)), fps, codec)


def audio_clip(path: Path, duration_s: float) -> Path:
    """A file with a quiet tone and no video."""
    with av.open(str(path), "w") as output:
        _write_tone(output, output.add_stream("aac", rate=8000, layout="mono"), duration_s)
    return path


def _write_tone(output: av.container.OutputContainer, sound: av.AudioStream, duration_s: float) -> None:
    num = int(8000 * duration_s)
    wave = (0.05 * np.sin(np.arange(num) * 2 * np.pi * 220 / 8000)).astype(np.float32)
    for start in range(0, num, 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        output.mux(sound.encode(frame))
    output.mux(sound.encode(None))


def _fast(codec: str) -> dict[str, str]:
    if codec in ("libx264", "libx265"):
        quiet = {"x265-params": "log-level=none:pools=1"} if codec == "libx265" else {}
        return {"preset": "ultrafast", "crf": "18", **quiet}
    if codec == "libvpx-vp9":
        return {"deadline": "realtime", "cpu-used": "8"}
    if codec == "libsvtav1":
        return {"preset": "8", "crf": "15", "svtav1-params": "lp=1"}
    return {}


def _pixel_format(codec: str, picture: Picture) -> str:
    if codec == "gif":
        return "rgb8"
    is_odd = picture.shape[0] % 2 or picture.shape[1] % 2
    return "yuv444p" if is_odd and codec == "libx264" else "yuv420p"


def _checksum(number: int) -> int:
    return (number * 2654435761 >> 13 ^ number >> 3 ^ 0xA5) & 0xFF
