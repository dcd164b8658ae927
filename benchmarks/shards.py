"""The shards of an index: what publishing and removing one video costs at any size, and how fast an index opens.

    python -m benchmarks.shards --json [--segments 1000 100000 1000000] [--store int8] [--folder /scratch]

Segments of 12 frames, 512 wide. Publishing and removing: a library of that size whose sealed shards share their memory,
since no feature of theirs is read. Opening: in a fresh process, from a real catalogue and from files of shards; beyond
100,000 segments the catalogue's features are empty (opening from files reads none of them), and from the catalogue
itself nothing is measured. The folder needs 14 GB a million segments, twice that up to 100,000; it is cleared.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Row, Spread, at_least, at_most, print_rows
from indexer.catalogue.database import Database
from indexer.catalogue.reader import CatalogueReader
from indexer.catalogue.rows import Transaction
from indexer.catalogue.segments import replace_segments
from indexer.records import PackedSegment, PublishedVideo, SegmentFeatures, VideoChange
from indexer.shards.coarse import Coarse
from indexer.shards.shard import SealedShard, sealed
from indexer.shards.sizes import Layout
from indexer.shards.snapshot import CoarseMaker, Snapshots
from indexer.shards.view import SegmentTable, VideoTable
from indexer.vectors import VectorIndex
from model.kernels.block import FeatureBlock, Store, quantize

DIM, FRAMES = 512, 12
PER_VIDEO = 16
SHARD_SEGMENTS = 65_536
CHANGES = 200
"""Videos published and removed, one by one, for a row."""
LARGEST_CATALOGUE = 100_000
"""Segments of the largest catalogue that is filled with features."""
LEAST_FOR_MEMORY = 100_000
"""Segments from which on the features outweigh the libraries that a process loads."""
FINGERPRINT = "benchmark"
OPEN_S = 3.0
SHARE_OF_MEMORY = 1.1

COARSE = CoarseMaker(lambda shard: Coarse.build(shard.parts.block, has_frame_recall=True), Coarse.from_parts)


# ---- one video more, one less


class Feed:
    """A catalogue that publishes and removes one video at a time."""

    def __init__(self, num_videos: int) -> None:
        self._table = np.array([(n + 1, n + 1, PER_VIDEO) for n in range(num_videos)], np.int64).reshape(-1, 3)
        self._seq = num_videos
        self._change: VideoChange | None = None
        rng = np.random.default_rng(0)
        frames = rng.standard_normal((FRAMES, DIM)).astype("<f2").tobytes()
        times = np.arange(FRAMES, dtype="<f8").tobytes()
        self._segments = tuple(PackedSegment(n, 0.0, 1.0, times, frames[: 2 * DIM], frames) for n in range(PER_VIDEO))

    def publish(self, number: int) -> None:
        """A new video."""
        self._seq += 1
        self._change = VideoChange(self._seq, f"{number:016x}", PER_VIDEO, number, self._seq)

    def remove(self, number: int) -> None:
        """A known one."""
        self._seq += 1
        self._change = VideoChange(self._seq, f"{number:016x}", 0, number, self._seq)

    def last_seq(self) -> int:
        """The newest change."""
        return self._seq

    @contextmanager
    def snapshot(self) -> Iterator[Feed]:
        """Itself."""
        yield self

    def published(self) -> NDArray[np.int64]:
        """The videos of the start."""
        return self._table

    def videos(self, first_number: int, last_number: int) -> Iterator[PublishedVideo]:
        """The newest video."""
        change = self._change
        if change is not None and first_number <= change.number <= last_number:
            yield PublishedVideo(change.number, change.video_id, change.seq, PER_VIDEO, self._segments, None)

    def changes(self, after_seq: int, limit: int = 1000) -> Sequence[VideoChange]:
        """The newest change."""
        return [self._change] if self._change is not None and self._change.seq > after_seq else []

    def num_stored(self) -> int:
        """Those of the start."""
        return int(self._table[:, 2].sum())

    def shard_tokens(self) -> Sequence[str]:
        """None are asked for."""
        return ()


def changes(num_segments: int, store: Store) -> tuple[list[float], list[float]]:
    """Milliseconds of publishing one video and of removing one, at that size."""
    num_videos = max(1, num_segments // PER_VIDEO)
    feed = Feed(num_videos)
    vectors = VectorIndex(DIM, FRAMES, store=store)
    block = untouched_block(min(SHARD_SEGMENTS, num_videos * PER_VIDEO), store)
    vectors.shards.start(list(shards_of(num_videos, block)))
    vectors.follow(feed)
    assert vectors.num_segments == num_videos * PER_VIDEO
    rng = np.random.default_rng(1)
    victims = rng.permutation(num_videos)[:CHANGES] + 1
    published, removed = [], []
    for n in range(CHANGES):
        feed.publish(num_videos + n + 1)
        published.append(follow_ms(vectors, feed))
        if n < len(victims):
            feed.remove(int(victims[n]))
            removed.append(follow_ms(vectors, feed))
    return published, removed


def follow_ms(vectors: VectorIndex, feed: Feed) -> float:
    """One change, until a search sees it."""
    before = vectors.num_videos
    started = time.perf_counter()
    vectors.follow(feed)
    seen = vectors.view().num_videos
    took_ms = (time.perf_counter() - started) * 1e3
    assert abs(seen - before) == 1
    return took_ms


# ---- shards made up


def untouched_block(num_segments: int, store: Store) -> FeatureBlock:
    """Features that are never read: their memory is only promised."""
    kind = np.int8 if store == "int8" else np.float16
    frames, pooled = np.zeros((num_segments * FRAMES, DIM), kind), np.zeros((num_segments, DIM), kind)
    return block_of(frames, pooled, store)


def random_block(num_segments: int, store: Store) -> FeatureBlock:
    """Random unit vectors, many of them alike."""
    rng = np.random.default_rng(0)
    known = rng.standard_normal((4096, DIM), dtype=np.float32)
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    rows = known.astype(np.float16) if store == "fp16" else quantize(known)[0]
    frames, pooled = rows[rng.integers(0, 4096, num_segments * FRAMES)], rows[rng.integers(0, 4096, num_segments)]
    return block_of(frames, pooled, store)


def block_of(frames: NDArray[Any], pooled: NDArray[Any], store: Store) -> FeatureBlock:
    """A block of segments of 12 frames each."""
    scales = [np.full(len(a), 1 / 127, np.float32) if store == "int8" else None for a in (frames, pooled)]
    first = np.arange(len(pooled), dtype=np.int64) * FRAMES
    return FeatureBlock(frames, pooled, first, np.full(len(pooled), FRAMES, np.int32), *scales)


def shards_of(num_videos: int, block: FeatureBlock) -> Iterator[SealedShard]:
    """Sealed shards that share the memory of one block."""
    at_once = len(block) // PER_VIDEO
    for first in range(0, num_videos, at_once):
        yield shard_of(first, min(at_once, num_videos - first), block)


def shard_of(first: int, count: int, block: FeatureBlock) -> SealedShard:
    """A shard of `count` videos whose numbers begin with first + 1."""
    rows = count * PER_VIDEO
    segments = SegmentTable(
        first * PER_VIDEO + np.arange(rows, dtype=np.int64) + 1,
        np.repeat(np.arange(count, dtype=np.int32), PER_VIDEO),
        np.tile(np.arange(PER_VIDEO, dtype=np.float64), count),
        np.tile(np.arange(PER_VIDEO, dtype=np.float64) + 1, count),
        np.zeros(rows * FRAMES),
    )
    numbers = first + np.arange(count, dtype=np.int64) + 1
    videos = VideoTable(
        numbers,
        np.array([f"{number:016x}" for number in numbers], dtype="S16"),
        np.arange(count, dtype=np.int64) * PER_VIDEO,
        np.full(count, PER_VIDEO, np.int64),
        numbers,
    )
    part = FeatureBlock(
        block.frames[: rows * FRAMES],
        block.pooled[:rows],
        block.first_frame[:rows],
        block.num_frames[:rows],
        None if block.frame_scales is None else block.frame_scales[: rows * FRAMES],
        None if block.pooled_scales is None else block.pooled_scales[:rows],
    )
    return sealed(segments, videos, part, None)


# ---- opening


def layout(store: Store) -> Layout:
    """Of all shards here."""
    return Layout(DIM, DIM, FRAMES, store)


def fill(folder: Path, num_segments: int) -> None:
    """A catalogue of that size; features only up to LARGEST_CATALOGUE."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    known = rng.standard_normal((4096, DIM)).astype(np.float16)
    with Database(folder / "catalogue.sqlite") as database:
        for first in range(0, num_segments // PER_VIDEO, 1000):
            with database.write() as tx:
                for n in range(first, min(first + 1000, num_segments // PER_VIDEO)):
                    _add_video(tx, n, known if num_segments <= LARGEST_CATALOGUE else None)


def _add_video(tx: Transaction, n: int, known: NDArray[np.float16] | None) -> None:
    video_id, seq = f"{n + 1:016x}", tx.next_seq()
    tx.change(
        "INSERT INTO videos (id, sha256, title, path, is_managed, size_bytes, metadata, status, created_at, seq, "
        "features_seq, number, num_segments) VALUES (?, ?, 'a video', X'2F', 0, 1, '{}', 'ready', 0, ?, ?, ?, ?)",
        *(video_id, video_id * 4, seq, seq, n + 1, PER_VIDEO),
    )
    if known is None:
        tx.change(
            "WITH RECURSIVE place(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM place WHERE n + 1 < ?) "
            "INSERT INTO segments (video_id, position, start_s, end_s, fingerprint, times, pooled, frames, crc32) "
            "SELECT ?, n, n, n + 1, '', X'', X'', X'', 0 FROM place",
            PER_VIDEO,
            video_id,
        )
        return
    rng = np.random.default_rng(n)
    times = tuple(float(second) for second in range(FRAMES))
    made = [
        SegmentFeatures(float(p), p + 1.0, times, known[rng.integers(4096)], known[rng.integers(0, 4096, FRAMES)])
        for p in range(PER_VIDEO)
    ]
    replace_segments(tx, video_id, made, FINGERPRINT)


def keep(folder: Path, num_segments: int, store: Store) -> None:
    """Files of shards beside the catalogue, with coarse indexes."""
    block = random_block(min(SHARD_SEGMENTS, num_segments), store)
    snapshots = Snapshots(folder / "shards", layout(store), FINGERPRINT, COARSE)
    assert snapshots.take()
    coarse: Coarse | None = None
    written = []
    for shard in shards_of(num_segments // PER_VIDEO, block):
        if coarse is None or len(shard) < len(block):
            coarse = Coarse.build(shard.parts.block, has_frame_recall=True)
        written.append(snapshots.write(replace(shard, coarse=coarse), lambda: True))
    with Database(folder / "catalogue.sqlite") as database:
        snapshots.commit(written, CatalogueReader(database).renew_shard_token)
    snapshots.close()


def opened(folder: Path, store: Store, *, with_files: bool) -> dict[str, float]:
    """Open in this process, which must be fresh: seconds, and the most memory, with every feature touched."""
    before = peak_bytes()
    snapshots = Snapshots(folder / "shards", layout(store), FINGERPRINT, COARSE) if with_files else None
    started = time.perf_counter()
    with Database(folder / "catalogue.sqlite") as database:
        vectors = VectorIndex(DIM, FRAMES, store=store, snapshots=snapshots)
        vectors.follow(CatalogueReader(database))
        took_s = time.perf_counter() - started
    view = vectors.view()
    assert view.is_whole and (not with_files or all(shard.coarse for shard in view.shards))
    for shard in view.shards:
        shard.block.frames[:: max(1, 2048 // DIM)].sum(dtype=np.float32)
        shard.block.pooled[:: max(1, 2048 // DIM)].sum(dtype=np.float32)
    features = sum(shard.block.size_bytes for shard in view.shards)
    return {"took_s": took_s, "segments": view.num_segments, "share": (peak_bytes() - before) / features}


def peak_bytes() -> int:
    """The most memory that this process had at once, with the pages of files that it has touched."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("the kernel tells no peak")


def opened_apart(folder: Path, store: Store, *, with_files: bool) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.shards", "--store", store, "--open", str(folder)]
    done = subprocess.run([*command, *["--without-files"] * (not with_files)], check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(done.stdout)
    return found


# ---- rows


def rows_of_changes(sizes: Sequence[int], store: Store) -> Iterator[Row]:
    """Publishing and removing, each size beside the smallest."""
    least: dict[str, Spread] = {}
    for size in sizes:
        for name, values in zip(("publish", "remove"), changes(size, store), strict=True):
            found = Spread.of(values)
            first = least.setdefault(name, found)
            yield Row(
                f"{name} one video of {PER_VIDEO} segments, {size:,} segments held",
                found,
                "ms",
                {f"at {sizes[0]:,}": first},
                first.median / found.median,
                at_least(0.5, "ratio"),
            )


def rows_of_opening(sizes: Sequence[int], store: Store, scratch: Path, rounds: int) -> Iterator[Row]:
    """Opening from the catalogue and from files."""
    for size in sizes:
        folder = scratch / f"{size}"
        try:
            fill(folder, size)
            keep(folder, size, store)
            found = {
                with_files: [opened_apart(folder, store, with_files=with_files) for _ in range(rounds)]
                for with_files in (True, False)
                if with_files or size <= LARGEST_CATALOGUE
            }
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        seconds = {key: Spread.of([one["took_s"] for one in values]) for key, values in found.items()}
        against = {"from the catalogue": seconds[False]} if False in seconds else {}
        yield Row(f"open {size:,} segments from files", seconds[True], "s", against, target=at_most(OPEN_S))
        for with_files, values in found.items() if size >= LEAST_FOR_MEMORY else ():
            share = Spread.of([one["share"] for one in values])
            name = f"most memory, opening {size:,} from {'files' if with_files else 'the catalogue'}"
            yield Row(name, share, "x features", target=at_most(SHARE_OF_MEMORY))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.add_argument("--segments", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--store", choices=["fp16", "int8"], default="fp16")
    parser.add_argument("--rounds", type=int, default=3, help="openings of each kind")
    parser.add_argument("--folder", type=Path, help="where to put catalogues and files, which are deleted again")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--without-files", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.open is not None:
        print(json.dumps(opened(given.open, given.store, with_files=not given.without_files)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        rows = list(rows_of_changes(given.segments, given.store))
        rows += rows_of_opening(
            [size for size in given.segments if size > 1000], given.store, Path(scratch), given.rounds
        )
    print_rows(rows, as_json=given.json)


if __name__ == "__main__":
    main()
