"""Decoding: twelve frames of a video, and all that indexing takes of a long one, beside decord, torchcodec and bounds.

On one core every library decodes in one thread, and CPU time counts; with all cores each chooses its threads, and the
time counts. The bound is PyAV decoding exactly the key frame groups that hold a wanted frame, each up to the last one
wanted, or everything in one pass, whichever is faster, with no picture converted. Peers that aren't installed are left
out.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import av

from benchmarks.apart import apart
from benchmarks.indexing_clips import CLIP_RATE, Library
from benchmarks.process_tree import measured
from benchmarks.report import Row, Spread, at_least, at_most, interleaved
from indexer.media.reading import Reader, probe
from indexer.media.sandbox import DecodeSandbox
from indexer.records import Sampling
from indexer.segments import plan_segments
from model.resize import FrameResize
from model.sampling import served_instants

NUM_FRAMES = 12
EVERY_S = 1.3
"""Between the frames of a long video."""
SEGMENT_S = NUM_FRAMES * EVERY_S
GROUPS, PASS = "bound by key frame groups", "bound in one pass"
WHOLE_FILE = "plain decode of the whole file"
OURS = "ours"


@dataclass(frozen=True, slots=True)
class Case:
    """Frames of one file."""

    name: str
    path: Path
    instants_s: Sequence[float]
    times_decord: float
    """What is to be reached."""


@dataclass(frozen=True, slots=True)
class Group:
    """A key frame and the last frame after it that is wanted before the next, in ticks of the time base."""

    key: int
    last: int


def cases_of(library: Library) -> list[Case]:
    """20 s with near, far and no key frames, and 16 s in the middle of 10 minutes."""
    seconds = library.sizes.twelve_s
    found = [
        Case(f"{seconds} s, GOP {gop}", path, served_instants(0, seconds, NUM_FRAMES), 1.25 if gop <= 30 else 1.5)
        for gop, path in library.twelve.items()
    ]
    if library.long:
        gop, path = min(library.long.items())
        minutes = library.sizes.piece_s * library.sizes.num_pieces / 60
        middle_s = 30 * minutes
        length_s = min(16.0, middle_s)
        instants = served_instants(middle_s, middle_s + length_s, NUM_FRAMES)
        name = f"{length_s:g} s in the middle of {minutes:.3g} minutes, GOP {gop}"
        found.append(Case(name, path, instants, 1.25 if gop <= 30 else 1.5))
    return found


def decode_rows(library: Library, rounds: int) -> list[Row]:
    """Twelve frames by every library, on one core and on all."""
    rows = []
    for is_alone in (True, False):
        took = apart(twelve_frames, cases_of(library), rounds, is_alone=is_alone)
        for case in cases_of(library):
            rows += rows_of_case(case, took[case.name], is_alone=is_alone)
    return rows


def twelve_frames(cases: Sequence[Case], rounds: int, *, is_alone: bool) -> dict[str, dict[str, Spread]]:
    """Milliseconds of each way in each case: of CPU on one core if is_alone, else of time. Call it apart."""
    if is_alone:
        stay_on_one_core()
    clock = time.process_time if is_alone else time.perf_counter
    found = {}
    for case in cases:
        ways = ways_of(case, 1 if is_alone else None)
        if case is cases[0]:
            for way in ways_of(replace(case, instants_s=case.instants_s[:1]), 1).values():
                way()  # libraries load their parts at their first call
        found[case.name] = interleaved({name: partial(_took_ms, way, clock) for name, way in ways.items()}, rounds)
    return found


def ways_of(case: Case, threads: int | None) -> dict[str, Callable[[], object]]:
    """What reads the frames of a case."""
    path, instants_s = case.path, case.instants_s
    groups = groups_of(*packets_of(path), instants_s)
    ways: dict[str, Callable[[], object]] = {
        OURS: partial(with_reader, path, instants_s, threads),
        GROUPS: partial(decode_groups, path, groups, threads),
        PASS: partial(decode_groups, path, [Group(groups[0].key, groups[-1].last)], threads),
    }
    if find_spec("decord"):
        ways["decord"] = partial(with_decord, path, instants_s, threads)
    if find_spec("torchcodec"):
        ways["torchcodec"] = partial(with_torchcodec, path, instants_s, threads)
    return ways


def rows_of_case(case: Case, took: Mapping[str, Spread], *, is_alone: bool) -> list[Row]:
    """Ours beside the peers, with decord's target; ours beside the bound."""
    unit, on = ("ms of CPU", "one core") if is_alone else ("ms", "all cores")
    name, ours = f"decode {NUM_FRAMES} frames, {case.name}, {on}", took[OURS]
    peers = {peer: spread for peer, spread in took.items() if peer not in (OURS, GROUPS, PASS)}
    bound = min(GROUPS, PASS, key=lambda way: took[way].median)
    rows = [Row(f"{name}: of the bound", ours, unit, {bound: took[bound]}, took[bound].median / ours.median)]
    if "decord" in peers:
        target = at_least(case.times_decord, "ratio") if is_alone else None
        rows.insert(0, Row(f"{name}: times decord", ours, unit, peers, peers["decord"].median / ours.median, target))
    elif peers:
        rows.insert(0, Row(name, ours, unit, peers))
    return rows


def keyframes_rows(library: Library, rounds: int) -> list[Row]:
    """Key frames in place of the frames asked for."""
    found = apart(exact_and_keyframes, cases_of(library), rounds)
    rows = []
    for name, took in found.items():
        exact, keyframes = took["exact"], took["keyframes"]
        ratio = exact.median / keyframes.median
        what = f"key frames only, {name}, one core"
        rows.append(Row(what, keyframes, "ms of CPU", {"exact": exact}, ratio, at_least(2.5, "ratio")))
    return rows


def exact_and_keyframes(cases: Sequence[Case], rounds: int) -> dict[str, dict[str, Spread]]:
    """Milliseconds of CPU of both ways of sampling, frames resized. Call it apart."""
    stay_on_one_core()

    found = {}
    for case in cases:
        ways: dict[str, Callable[[], object]] = {
            "exact": partial(with_reader, case.path, case.instants_s, 1, FrameResize(), "exact"),
            "keyframes": partial(with_reader, case.path, case.instants_s, 1, FrameResize(), "keyframes"),
        }
        timed = {name: partial(_took_ms, way, time.process_time) for name, way in ways.items()}
        found[case.name] = interleaved(timed, rounds)
    return found


def long_rows(library: Library, rounds: int) -> list[Row]:
    """One frame every 1.3 s of a long file, segment by segment in one sandbox, beside decoding all of it."""
    rows = []
    for gop, path in library.long.items():
        has_decord = gop == min(library.long) and find_spec("decord") is not None  # key frames make no difference to it
        took: dict[str, list[float]] = {}
        for _ in range(rounds):
            for both in ((OURS, WHOLE_FILE), ("decord",) if has_decord else ()):
                with ThreadPoolExecutor(2) as pool:  # side by side, on cores of their own: both meet the same machine
                    seconds = pool.map(lambda way, path=path: apart(long_file, path, way), both)
                    for way, cpu_s in zip(both, seconds, strict=True):
                        took.setdefault(way, []).append(cpu_s)
        spreads = {way: Spread.of(values) for way, values in took.items()}
        ours = spreads.pop(OURS)
        minutes = library.sizes.piece_s * library.sizes.num_pieces / 60
        name = f"a frame every {EVERY_S:g} s of {minutes:.3g} minutes, GOP {gop}"
        ratio = ours.median / spreads[WHOLE_FILE].median
        rows.append(Row(name, ours, "s of CPU", spreads, ratio, at_most(1.1, "ratio")))
    return rows


def long_file(path: Path, way: str) -> float:
    """CPU seconds of one way with one codec thread, children included."""
    plans = plan_segments(probe(path).duration_s, NUM_FRAMES, SEGMENT_S)

    def ours() -> None:
        with DecodeSandbox(threads=1) as child:
            for plan in plans:
                child.read_frames(path, plan.instants_s, FrameResize())

    ways: dict[str, Callable[[], object]] = {
        OURS: ours,
        WHOLE_FILE: partial(decode_groups, path, [Group(0, 2**62)], 1),
        "decord": partial(with_decord, path, [instant for plan in plans for instant in plan.instants_s], 1),
    }
    with measured() as used:
        ways[way]()
    return used.cpu_s


def stay_on_one_core() -> None:
    """Leave this process, and the threads that it starts from now on, one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def packets_of(path: Path) -> tuple[list[int], list[int], float]:
    """When each frame is shown and when each key frame is, sorted, in ticks; the length of a tick in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(stream) if packet.pts is not None]
        return sorted(p for p, _ in packets), sorted(p for p, is_key in packets if is_key), float(stream.time_base)


def groups_of(shown: Sequence[int], keys: Sequence[int], tick_s: float, instants_s: Sequence[float]) -> list[Group]:
    """The key frame groups that hold the frames shown at these instants, and the last wanted frame of each."""
    last: dict[int, int] = {}
    for instant_s in instants_s:
        wanted = shown[max(0, bisect_right(shown, shown[0] + instant_s / tick_s + 1e-6) - 1)]
        last[keys[max(0, bisect_right(keys, wanted) - 1)]] = wanted
    return [Group(key, wanted) for key, wanted in sorted(last.items())]


def decode_groups(path: Path, groups: Sequence[Group], threads: int | None) -> int:
    """Decode from each key frame to the last frame wanted; the number of frames that came."""
    count = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = threads or 0
        for group in groups:
            container.seek(group.key, stream=stream)
            for frame in container.decode(stream):
                count += 1
                if frame.pts is not None and frame.pts >= group.last:
                    break
    return count


def with_reader(
    path: Path,
    instants_s: Sequence[float],
    threads: int | None,
    resize: FrameResize | None = None,
    sampling: Sampling = "exact",
) -> None:
    """As an index reads frames, in this process."""
    reader = Reader(threads=threads)
    reader.read_frames(path, instants_s, resize=resize, sampling=sampling)
    reader.release()


def with_decord(path: Path, instants_s: Sequence[float], threads: int | None) -> None:
    """As decord's own documentation reads frames, a segment's at a time."""
    import decord

    reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=threads or 0)
    indices = [min(int(instant_s * CLIP_RATE + 1e-6), len(reader) - 1) for instant_s in instants_s]
    for start in range(0, len(indices), NUM_FRAMES):
        reader.get_batch(indices[start : start + NUM_FRAMES]).asnumpy()


def with_torchcodec(path: Path, instants_s: Sequence[float], threads: int | None) -> None:
    """As torchcodec's own documentation reads frames."""
    from torchcodec.decoders import VideoDecoder

    VideoDecoder(str(path), num_ffmpeg_threads=threads or 0).get_frames_played_at(seconds=list(instants_s))


def _took_ms(call: Callable[[], object], clock: Callable[[], float]) -> float:
    began_s = clock()
    call()
    return (clock() - began_s) * 1e3
