"""The videos that the benchmark of indexing reads: what each is like, and making those that aren't in the folder yet.

A file's name carries a digest of its recipe: the same recipe gives the same file, and a folder may be used again.
Encoding takes longest, so a video of many key frame groups repeats a piece of whole groups, and of the many short clips
some are encoded while the others are those under another title, which makes their bytes, and so their ids, differ. The
one long file is the short clips joined, so that both hold the same pictures, bit for bit.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import av

from benchmarks.indexing_footage import pictures, real_footage

RECIPE = 1
"""Counts up whenever the same fields give another file."""
GOPS = (30, 60, 250, 600)
RATES = (25, 30, 24, 30, 60, 25, 24, 30, 25, 30)
CLIP_GOP, CLIP_RATE = 50, 25
"""Of the short clips and the long file."""
LONG_GOPS = (30, 250)
TWELVE_GOPS = (30, 250, 600)
MOST_REPEATS = 3
"""Of the piece that a mixed video consists of."""
NUM_SHORT_ENCODED, NUM_TINY_ENCODED = 60, 100
GOLDEN = 0.618034
"""Multiples of it, without their whole part, spread evenly over 0 to 1 in any number."""

_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "libx264": {"preset": "veryfast", "threads": "1", "sc_threshold": "0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "threads": "1"},
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much the benchmark reads."""

    num_mixed: int = 40
    mixed_s: tuple[int, int] = (20, 60)
    """The shortest and the longest of the mixed videos."""
    num_short: int = 300
    short_s: int = 4
    twelve_s: int = 20
    """The video that twelve frames are taken from."""
    piece_s: int = 60
    """What the long files repeat: whole key frame groups of 30 and 250 frames at 25 frames a second."""
    num_pieces: int = 10
    num_tiny: int = 2000
    """Clips of the memory measurement, a second each."""
    size: tuple[int, int] = (1280, 720)
    tiny_size: tuple[int, int] = (320, 180)
    encode_s: float = 10.0
    """How long encoding alone is measured, once its best setting is known."""
    decode_rounds: int = 3
    """Of the twelve frames, for each round of what takes minutes."""


FULL = Sizes()
QUICK = Sizes(
    4, (2, 5), num_short=8, short_s=1, twelve_s=3, piece_s=2, num_pieces=4, num_tiny=40, encode_s=0.5, decode_rounds=1
)


@dataclass(frozen=True, slots=True)
class Clip:
    """One encoded video."""

    group: str
    number: int
    seconds: float
    """Of the piece that is encoded."""
    fps: int
    gop: int
    """Frames from one key frame to the next."""
    b_frames: int
    kbit_s: int
    size: tuple[int, int]
    codec: str = "libx264"
    suffix: str = ".mp4"
    footage: str | None = None
    """The path of a real video, None for a drawn scene."""
    repeats: int = 1
    """How often the piece is played."""

    def path(self, folder: Path) -> Path:
        """Where it lies."""
        fields = asdict(self) | {"footage": self.footage and Path(self.footage).name, "recipe": RECIPE}
        digest = hashlib.sha256(repr(sorted(fields.items())).encode()).hexdigest()[:8]
        return folder / f"{self.group}-{self.number:04d}-{digest}{self.suffix}"

    @property
    def num_frames(self) -> int:
        """How many pictures the piece has."""
        return round(self.seconds * self.fps)


@dataclass(frozen=True, slots=True)
class Library:
    """The files of one run."""

    sizes: Sizes
    mixed: Sequence[Path]
    short: Sequence[Path]
    one_file: Path
    """What the short clips hold, in one file."""
    twelve: Mapping[int, Path]
    """By key frame distance."""
    long: Mapping[int, Path]
    """By key frame distance."""
    tiny: Sequence[Path]


def plan_mixed(sizes: Sizes, footage: Sequence[str]) -> list[Clip]:
    """Videos as a person's folder holds them: lengths, rates, key frames, codecs and containers of all kinds."""
    shortest, longest = sizes.mixed_s
    planned = []
    for n in range(sizes.num_mixed):
        fps, gop = RATES[n % len(RATES)], GOPS[n % len(GOPS)]
        num_frames = round(fps * (shortest + (longest - shortest) * (n * GOLDEN % 1)))
        piece, repeats = cut(num_frames, gop, shortest * fps, longest * fps)
        is_vp9 = n % 13 == 5
        planned.append(
            Clip(
                "mixed",
                n,
                piece / fps,
                fps,
                gop,
                0 if is_vp9 else 3 * (n // len(GOPS) % 2),
                2000 + round(3000 * ((n + 0.5) * GOLDEN % 1)),
                sizes.size,
                "libvpx-vp9" if is_vp9 else "libx264",
                ".webm" if is_vp9 else ".mkv" if n % 10 == 7 else ".ts" if n % 20 == 9 else ".mp4",
                _footage_of(n, footage),
                repeats,
            )
        )
    return planned


def cut(num_frames: int, gop: int, fewest: int, most: int) -> tuple[int, int]:
    """About num_frames, fewest to most, as (frames of a piece of whole key frame groups, how often it is played).

    The nearest length that some piece allows; the whole as one piece, of any length, where none does.
    """
    fitting = [
        (abs(piece * repeats - num_frames), piece, repeats)
        for repeats in range(MOST_REPEATS, 1, -1)
        for piece in range(gop, most // repeats + 1, gop)
        if piece * repeats >= fewest
    ]
    _, piece, repeats = min(fitting, default=(0, num_frames, 1))
    return piece, repeats


def plan_even(
    group: str, count: int, seconds: float, gop: int, size: tuple[int, int], footage: Sequence[str]
) -> list[Clip]:
    """Videos that differ in their pictures only."""
    kbit_s = 100 + round(3000 * size[0] * size[1] / (1280 * 720))
    return [
        Clip(group, n, seconds, CLIP_RATE, gop, 3, kbit_s, size, footage=_footage_of(n, footage)) for n in range(count)
    ]


def made_library(folder: Path, sizes: Sizes, parts: Sequence[str]) -> Library:
    """The files that these parts of the benchmark read, made where they are missing. parts: see indexing.py."""
    folder.mkdir(parents=True, exist_ok=True)
    footage, wanted = [str(path) for path in real_footage()], set(parts)
    print(f"footage: {len(footage)} real videos and a drawn scene", file=sys.stderr)
    is_decoding = bool(wanted & {"decode", "long", "keyframes"})
    num_short = sizes.num_short if "clips" in wanted else 0
    num_tiny = sizes.num_tiny if "memory" in wanted else 0

    def even(group: str, count: int, seconds: float, gop: int, size: tuple[int, int] = sizes.size) -> list[Clip]:
        return plan_even(group, count, seconds, gop, size, footage)

    mixed = plan_mixed(sizes, footage) if wanted & {"whole", "gpu"} else []
    short = even("short", min(num_short, NUM_SHORT_ENCODED), sizes.short_s, CLIP_GOP)
    tiny = even("tiny", min(num_tiny, NUM_TINY_ENCODED), 1.0, CLIP_GOP, sizes.tiny_size)
    twelve = [clip for gop in TWELVE_GOPS if is_decoding for clip in even("twelve", 1, sizes.twelve_s, gop)]
    pieces = [clip for gop in LONG_GOPS if is_decoding for clip in even("long", 1, sizes.piece_s, gop)]
    long = [replace(clip, repeats=sizes.num_pieces) for clip in pieces]
    make_missing(folder, [*mixed, *short, *twelve, *long, *tiny])
    short_paths = titled(folder, short, num_short)
    return Library(
        sizes,
        mixed=[clip.path(folder) for clip in mixed],
        short=short_paths,
        one_file=_one_file(folder, short, num_short) if short else folder,
        twelve={clip.gop: clip.path(folder) for clip in twelve},
        long={clip.gop: clip.path(folder) for clip in long},
        tiny=titled(folder, tiny, num_tiny),
    )


def titled(folder: Path, clips: Sequence[Clip], count: int) -> list[Path]:
    """`count` files of different bytes: the clips in turn, again and again, each time under another title."""
    paths = []
    for number in range(count):
        clip = clips[number % len(clips)]
        paths.append(clip.path(folder).with_stem(f"{clip.path(folder).stem}-{number:04d}"))
        if not paths[-1].exists():
            join([clip.path(folder)], clip.seconds, paths[-1], f"{clip.group} {number}")
    return paths


def make_missing(folder: Path, clips: Sequence[Clip]) -> None:
    """Encode those that aren't there, one process per core, longest first; progress goes to stderr."""
    missing = sorted((c for c in clips if not c.path(folder).exists()), key=lambda c: -c.num_frames * c.size[0])
    if not missing:
        return
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        made = as_completed([pool.submit(make, clip, clip.path(folder)) for clip in missing])
        for number, one in enumerate(made, 1):
            one.result()
            if number % max(1, len(missing) // 20) == 0 or number == len(missing):
                print(f"made {number} of {len(missing)} videos", file=sys.stderr, flush=True)


def make(clip: Clip, path: Path) -> None:
    """Encode one video; readers see the whole file or none."""
    if clip.repeats == 1:
        _whole_or_none(path, partial(_encode, clip))
        return
    piece = path.with_name(f"piece-{path.stem}{'.webm' if path.suffix == '.webm' else '.mp4'}")
    try:
        _encode(clip, piece)
        join([piece] * clip.repeats, clip.seconds, path)
    finally:
        piece.unlink(missing_ok=True)


def join(parts: Sequence[Path], seconds: float, path: Path, title: str = "") -> None:
    """Put videos of one recipe, each of so many seconds, behind one another without encoding again."""

    def write(target: Path) -> None:
        with av.open(str(target), "w") as output:
            output.metadata["title"] = title
            copy = None
            for number, part in enumerate(parts):
                with av.open(str(part)) as container:
                    stream = container.streams.video[0]
                    assert stream.time_base is not None
                    copy = copy or output.add_stream_from_template(stream)
                    offset = round(number * seconds / stream.time_base)
                    for packet in container.demux(stream):
                        if packet.dts is None or packet.pts is None:
                            continue  # the mark of the end
                        packet.pts += offset
                        packet.dts += offset
                        packet.stream = copy
                        output.mux(packet)

    _whole_or_none(path, write)


def _encode(clip: Clip, target: Path) -> None:
    seed = int.from_bytes(hashlib.sha256(f"{clip.group} {clip.number}".encode()).digest()[:4], "big")
    source = None if clip.footage is None else Path(clip.footage)
    with av.open(str(target), "w") as output:
        stream = output.add_stream(clip.codec, rate=clip.fps, options=dict(_OPTIONS[clip.codec]))
        stream.width, stream.height = clip.size
        stream.pix_fmt, stream.bit_rate = "yuv420p", clip.kbit_s * 1000
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = clip.gop, clip.b_frames
        for picture in pictures(source, clip.num_frames, clip.size, seed):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
        output.mux(stream.encode(None))


def _one_file(folder: Path, clips: Sequence[Clip], count: int) -> Path:
    """What `count` titled clips hold, joined."""
    parts = [clips[number % len(clips)].path(folder) for number in range(count)]
    digest = hashlib.sha256(" ".join(part.name for part in parts).encode()).hexdigest()[:8]
    path = folder / f"one-file-{digest}.mp4"
    if not path.exists():
        join(parts, clips[0].seconds, path)
    return path


def _whole_or_none(path: Path, write: Callable[[Path], None]) -> None:
    unfinished = path.with_name(f"unfinished-{os.getpid()}-{path.name}")
    try:
        write(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _footage_of(number: int, footage: Sequence[str]) -> str | None:
    """Each real video in turn, and a drawn scene after the last."""
    return [*footage, None][number % (len(footage) + 1)]
