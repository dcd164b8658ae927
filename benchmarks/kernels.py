"""What scoring costs: the compiled kernel on each path of this CPU, the official arithmetic, MaxSim and the roofs.

    python -m benchmarks.kernels [--segments 100000] [--rounds 5] [--json]

Random features with topics, F = 12, D = 512. A rerank takes K segments: warm ones, which were scored just before, or
cold ones, chosen at random out of a library far larger than the caches. `exact` scores every segment. One thread and
CPU time for reranks, wall time for `exact`; ours and the peers in turn, medians. Peers: the official arithmetic
(X-CLIP at 6b5344f: no masks, identity matrices multiplied, float32) and plain MaxSim in torch, which scores less,
and in maxsim-cpu where that is installed. Roofs: reading the same bytes, and the path's multiply-add on registers.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import Row, Spread, at_least, at_most, interleaved, print_rows
from model.kernels import native
from model.kernels.aosm_reference import Mixing, four_grains
from model.kernels.block import FeatureBlock, Store
from model.kernels.native import NativeKernel, NativeQuery
from model.kernels.panel import MixingArrays, Panel

NUM_FRAMES, DIM = 12, 512
NUM_WARM = 1000
STORES: tuple[Store, ...] = ("fp16", "int8")


@dataclass(frozen=True)
class Sentence:
    """A query with W slots of which some are words."""

    slots: int
    words: int

    @property
    def name(self) -> str:
        """As rows name it."""
        return f"W={self.slots}" + (f", {self.words} words" if self.words < self.slots else "")

    def panel(self, rng: np.random.Generator) -> Panel:
        """Random words."""
        whole, parts = _unit(rng.standard_normal((1, DIM))), _unit(rng.standard_normal((1, self.slots, DIM)))
        mask = (np.arange(self.slots) < self.words)[None]
        return Panel("aosm", whole, whole, parts, parts, mask, MixingArrays(), 0.01)


SENTENCES = (Sentence(32, 32), Sentence(32, 11), Sentence(77, 12))


class Library:
    """N segments in both stores; the float32 features that the peers take are made of the fp16 ones."""

    def __init__(self, num_segments: int) -> None:
        rng = np.random.default_rng(0)
        topics = _unit(rng.standard_normal((256, DIM)))
        counts = np.full(num_segments, NUM_FRAMES, np.int32)
        first = np.arange(num_segments, dtype=np.int64) * NUM_FRAMES
        frames = np.empty((num_segments * NUM_FRAMES, DIM), np.float16)
        pooled = np.empty((num_segments, DIM), np.float16)
        frames8, scales8 = np.empty(frames.shape, np.int8), np.empty(len(frames), np.float32)
        pooled8, pooled_scales8 = np.empty(pooled.shape, np.int8), np.empty(len(pooled), np.float32)
        for start in range(0, num_segments, NUM_WARM):
            at = slice(start, min(num_segments, start + NUM_WARM))
            below = slice(at.start * NUM_FRAMES, at.stop * NUM_FRAMES)
            made = topics[rng.integers(0, 256, at.stop - start), None] * 24 + rng.standard_normal(
                (at.stop - start, NUM_FRAMES, DIM), dtype=np.float32
            )
            made = _unit(made)
            means = _unit(made.mean(1))
            frames[below], pooled[at] = made.reshape(-1, DIM), means
            for values, rows, scales, where in (
                (made.reshape(-1, DIM), frames8, scales8, below),
                (means, pooled8, pooled_scales8, at),
            ):
                scales[where] = np.abs(values).max(1) / 127
                rows[where] = np.rint(values / scales[where][:, None])
        self.blocks: dict[Store, FeatureBlock] = {
            "fp16": FeatureBlock(frames, pooled, first, counts),
            "int8": FeatureBlock(frames8, pooled8, first, counts, scales8, pooled_scales8),
        }

    def __len__(self) -> int:
        return len(self.blocks["fp16"])

    def dense(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies in float32: frames (n, F, D) and pooled vectors (n, D)."""
        block = self.blocks["fp16"]
        frames = block.frames.reshape(len(self), NUM_FRAMES, DIM)[rows]
        return torch.from_numpy(frames.astype(np.float32)), torch.from_numpy(block.pooled[rows].astype(np.float32))


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=100_000, help="of the library, for cold rows and `exact`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=1000, help="of the comparison of rank; 0 leaves it out")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    library = Library(chosen.segments)
    peak_rows, peaks = multiply_adds(chosen.rounds)
    rows = reranks(library, chosen.rounds) + exact(library, chosen.rounds, peaks) + peak_rows
    if chosen.queries:
        rows += ranks(library, chosen.queries)
    print_rows(rows, as_json=chosen.json)


def reranks(library: Library, rounds: int) -> list[Row]:
    """K segments, warm and cold, by every path and store."""
    rng = np.random.default_rng(1)
    found = []
    for sentence in SENTENCES:
        panel = sentence.panel(rng)
        queries = _queries(panel)
        for count in (100, 1000, 10_000):
            if count > len(library) // 4:
                continue
            for is_cold in (False, True):
                if is_cold and (count != 1000 or sentence.slots != 32):
                    continue
                picked = _Picker(library, count, is_cold, rng)
                calls = {name: _score(picked, query, store) for (name, store), query in queries.items()}
                calls |= _peers(picked, panel)
                calls |= {f"reading {store}": _read(picked, store) for store in STORES}
                taken = interleaved(calls, rounds if count < 10_000 else 3)
                what = f"rerank {count:,}, {sentence.name}, {'cold' if is_cold else 'warm'}"
                found += _rerank_rows(what, taken, queries, is_headline=count == 1000 and sentence.words == 32)
    return found


def _rerank_rows(
    what: str, taken: dict[str, Spread], queries: dict[tuple[str, Store], NativeQuery], *, is_headline: bool
) -> list[Row]:
    is_cold = what.endswith("cold")
    rows = []
    peers = {name: s for name, s in taken.items() if name.startswith(("official", "torch", "maxsim"))}
    maxsims = {name: s for name, s in peers.items() if "maxsim" in name.lower()}
    fastest = min(s.median for s in maxsims.values())
    for name, store in queries:
        ours = taken[name]
        against = {**peers, f"reading {store}": taken[f"reading {store}"]}
        is_best = is_headline and name.startswith(native.paths()[0])
        ratio = taken["official"].median / ours.median
        target = at_least(30 if is_cold else 50, "ratio") if is_best else None
        rows.append(Row(f"{what}: {name}", ours, "ms", against, ratio, target))
        if is_best and not is_cold:
            rows.append(
                Row(f"{what}: {name} / MaxSim", ours, "ms", maxsims, fastest / ours.median, at_least(4, "ratio"))
            )
    return rows


def exact(library: Library, rounds: int, peaks: dict[str, Spread]) -> list[Row]:
    """Every segment, with one thread and with two. peaks: multiply-adds by path and store, in 1e9 a second."""
    rng = np.random.default_rng(2)
    rows = []
    for sentence in SENTENCES[:2]:
        queries = _queries(sentence.panel(rng))
        for threads in (1, 2):
            calls: dict[str, Callable[[], float]] = {}
            for (name, store), query in queries.items():
                if name.startswith(("portable", "avx2")):
                    continue
                calls[name] = _in_threads(
                    library, threads, lambda part, q=query, s=store: q.totals(library.blocks[s], part)
                )
            for store in STORES:
                block = library.blocks[store]
                calls[f"reading {store}"] = _in_threads(
                    library,
                    threads,
                    lambda part, b=block: native.read(b.frames[part[0] * NUM_FRAMES : (part[-1] + 1) * NUM_FRAMES]),
                )
            taken = interleaved(calls, rounds)
            for (name, store), _ in queries.items():
                if name not in taken:
                    continue
                ours, roof = taken[name], taken[f"reading {store}"]
                what = f"exact {len(library):,}, {sentence.name}, {threads} thread{'s' * (threads > 1)}: {name}"
                is_headline = threads == 2 and name.startswith(native.paths()[0])
                against = {f"reading {store}": roof}
                products = len(library) * (NUM_FRAMES + 1) * (sentence.words + 1) * DIM
                share = products / peaks[name].median / 1e6 / threads
                against["multiplying"] = share
                ratio = max(share, roof.median) / ours.median
                rows.append(Row(what, ours, "ms", against, ratio, at_least(0.5, "ratio") if is_headline else None))
                if is_headline and sentence.words == 32:
                    limit = at_most(90 * len(library) / 100_000)
                    rows.append(Row(f"{what}, in time", ours, "ms", against, None, limit))
    return rows


def multiply_adds(rounds: int) -> tuple[list[Row], dict[str, Spread]]:
    """The multiply-add of each path on registers, as rows and by name."""
    calls = {f"{path} {store}": (lambda p=path, s=store: _peak(p, s)) for path in native.paths() for store in STORES}
    found = interleaved(calls, rounds)
    return [Row(f"multiply-adds: {name}", spread, "GMAC/s") for name, spread in found.items()], found


def ranks(library: Library, num_queries: int) -> list[Row]:
    """Top-10 overlap with float32, over queries that look for something of one of 2,000 segments."""
    rng = np.random.default_rng(3)
    rows = np.arange(min(2000, len(library)))
    kernels = {(p, s): NativeKernel(p) for p in native.paths() for s in STORES if p in ("amx", "avx512bf16", "avx512")}
    truth = NativeKernel("avx512" if "avx512" in native.paths() else native.paths()[-1])
    overlaps: dict[tuple[str, Store], list[float]] = {key: [] for key in kernels}
    frames = library.blocks["fp16"].frames
    for _ in range(num_queries):
        panel = SENTENCES[1].panel(rng)
        sought = frames[int(rng.integers(0, len(rows))) * NUM_FRAMES].astype(np.float32)
        whole, parts = _unit(0.6 * sought + 0.8 * panel.whole), _unit(0.5 * sought + 0.9 * panel.parts)
        panel = replace(panel, whole=whole, whole_mixed=whole, parts=parts, parts_local=parts).trimmed()
        best = _top(truth.prepare(panel).totals(library.blocks["fp16"], rows))
        for (path, store), kernel in kernels.items():
            found = _top(kernel.prepare(panel).totals(library.blocks[store], rows))
            overlaps[path, store].append(len(best & found) / 10)
    return [
        Row(f"top-10 overlap with float32: {path} {store}", float(np.mean(seen)), "", target=at_least(0.99))
        for (path, store), seen in overlaps.items()
    ]


class _Picker:
    """Which rows a rerank takes: the same every time, or others each time, which no cache holds."""

    def __init__(self, library: Library, count: int, is_cold: bool, rng: np.random.Generator) -> None:
        self.source, self.count, self.is_cold, self._rng = library, count, is_cold, rng
        self._fixed = rng.permutation(len(library))[:count]

    def rows(self) -> NDArray[np.int64]:
        return self._rng.permutation(len(self.source))[: self.count] if self.is_cold else self._fixed


def _queries(panel: Panel) -> dict[tuple[str, Store], NativeQuery]:
    return {(f"{p} {s}", s): NativeKernel(p).prepare(panel.trimmed()) for p in native.paths() for s in STORES}


def _score(picked: _Picker, query: NativeQuery, store: Store) -> Callable[[], float]:
    block = picked.source.blocks[store]

    def call() -> float:
        rows = picked.rows()
        if not picked.is_cold:
            query.totals(block, rows)
        return _cpu_ms(lambda: query.totals(block, rows))

    return call


def _read(picked: _Picker, store: Store) -> Callable[[], float]:
    """Reading what a rerank reads, in a row."""
    frames = picked.source.blocks[store].frames[: picked.count * NUM_FRAMES]

    def call() -> float:
        if not picked.is_cold:
            native.read(frames)
        return _cpu_ms(lambda: native.read(frames))

    return call


def _peers(picked: _Picker, panel: Panel) -> dict[str, Callable[[], float]]:
    """Each takes float32 features; the cold ones are gathered out of a large block within the measurement."""
    eye = [torch.eye(n) for n in (DIM, DIM, *(panel.mask.shape[1],) * 3, *(NUM_FRAMES,) * 3)]
    whole, parts = torch.from_numpy(panel.whole), torch.from_numpy(panel.parts)
    real = parts[0][torch.from_numpy(panel.mask[0])]
    pool = picked.source.dense(np.arange(min(len(picked.source), 20_000))) if picked.is_cold else None
    fixed = picked.source.dense(picked.rows()) if pool is None else None

    def features() -> tuple[torch.Tensor, torch.Tensor]:
        if fixed is not None:
            return fixed
        assert pool is not None
        rows = torch.from_numpy(picked.rows() % len(pool[1]))
        return pool[0][rows], pool[1][rows]

    def official() -> None:
        frames, pooled = features()
        four_grains(whole, parts, pooled, frames, Mixing(*eye))

    def torch_maxsim() -> None:
        frames, _ = features()
        (frames.reshape(-1, DIM) @ real.T).view(-1, NUM_FRAMES, len(real)).amax(1).mean(1)

    peers: dict[str, Callable[[], None]] = {"official": official, "torch MaxSim": torch_maxsim}
    try:
        import maxsim_cpu  # type: ignore[import-not-found]

        def library_maxsim() -> None:
            maxsim_cpu.maxsim_scores(real.numpy(), features()[0].numpy())

        peers["maxsim-cpu"] = library_maxsim
    except ImportError:
        pass

    def measured(peer: Callable[[], None]) -> Callable[[], float]:
        def call() -> float:
            with torch.inference_mode():
                if not picked.is_cold:
                    peer()
                return _cpu_ms(peer)

        return call

    return {name: measured(peer) for name, peer in peers.items()}


def _in_threads(library: Library, count: int, work: Callable[[NDArray[np.int64]], object]) -> Callable[[], float]:
    """Wall time of `count` threads, each with a share of all rows in order."""
    parts: Sequence[NDArray[np.int64]] = np.array_split(np.arange(len(library)), count)

    def call() -> float:
        threads = [threading.Thread(target=work, args=(part,)) for part in parts[1:]]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        work(parts[0])
        for thread in threads:
            thread.join()
        return (time.perf_counter() - started) * 1e3

    return call


def _peak(path: native.PathName, store: Store) -> float:
    kernel = NativeKernel(path)
    started = time.thread_time()
    done = kernel.peak(store, 200_000)
    return done / (time.thread_time() - started) / 1e9


def _cpu_ms(call: Callable[[], object]) -> float:
    """CPU time of the whole process: maxsim-cpu works in threads of its own."""
    started = time.process_time()
    call()
    return (time.process_time() - started) * 1e3


def _top(totals: NDArray[np.float32]) -> set[int]:
    return set(np.argsort(-totals[0])[:10].tolist())


def _unit(x: NDArray[np.floating]) -> NDArray[np.float32]:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()
