"""The Triton kernel on a GPU beside streaming the same bytes, cuBLAS's rate and torch's eager referee.

    python -m benchmarks.gpu [--segments 100000 1000000] [--rounds 20] [--json]

Needs a GPU with room for the features: 13.3 GB for a million segments of 12 x 512 in float16. They are random unit
vectors, made on the device. Peers take turns with the kernel, round after round; times are of the device, from the
first launch to the last. Streaming is the faster of a sum over the same memory and of half a copy of it. Ratios are
shares of the roof that a row names first.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import Row, Spread, Target, at_least, at_most, interleaved, print_rows
from model.kernels.aosm_reference import Mixing, four_grains
from model.kernels.block import Store
from model.kernels.device_blocks import DeviceBlock
from model.kernels.device_scorers import Aosm, BestOrMean, Scored
from model.kernels.panel import Array, MixingArrays, Panel
from model.kernels.triton_kernel import MAX_COLUMNS, scorers_of, unavailable

FRAMES, WIDTH = 12, 512
WORDS = 12
"""Real ones, as in a sentence that a person types."""
BATCH = 32
STORES: tuple[Store, ...] = ("fp16", "int8")
TILE_WIDTHS = (32, 64, 128)
"""Columns of queries that a program takes at once, in a batch."""
RERANKED = 1000
OF_STREAMING = at_least(1 / 1.3, "ratio")
"""At most 1.3 times as long."""
OF_CUBLAS = at_least(0.6, "ratio")
EAGER_SEGMENTS = 4096
"""That the referee takes at once."""
EAGER_UP_TO = 100_000
COPIED_BYTES = 2**31

Call = Callable[[], object]


@dataclass(frozen=True)
class Query:
    """A panel with what the referee takes."""

    panel: Panel
    mixing: Mixing


def measure(device: torch.device, sizes: Sequence[int], rounds: int, batch: int = BATCH) -> list[Row]:
    """Every size that fits the device, float16 and int8, one query and a batch; the rest at the largest size."""
    rows: list[Row] = []
    fitting = [size for size in sizes if _fits(size, device)]
    for size in fitting:
        for store in STORES:
            block = block_on(device, size, store)
            of = f"{size:,} segments, {store}"
            rows += _one_query(block, of, rounds, is_target=size >= 1_000_000 and store == "fp16")
            rows += _batch(block, of, batch, rounds, is_target=size >= 1_000_000 and store == "fp16")
            if store == "fp16":
                rows.append(_error(block))
            if size == fitting[-1]:
                rows += _others(block, of, rounds)
            del block
    return rows


def _one_query(block: DeviceBlock, of: str, rounds: int, *, is_target: bool) -> Iterator[Row]:
    query, every = query_of(1, WORDS), Scored(block, None, len(block.pooled))
    scorer = _aosm(block, query.panel)
    best = min(100, every.count)
    calls: dict[str, Call] = {
        "ours": lambda: scorer.score(every),
        "ours with the best": lambda: scorer.score(every).topk(best),
        "sum": lambda: _sum(block.frames, block.pooled),
        "copy": lambda: _copy(block.frames, block.pooled),
    }
    if every.count <= EAGER_UP_TO and not block.is_int8:
        calls["torch eager"] = lambda: _eager(block, query, every.count)
    took = _measured(block, calls, rounds)
    streaming = {"streaming": _faster(took["sum"], _scaled(took["copy"], 0.5))}
    eager = {peer: took[peer] for peer in took if peer == "torch eager"}
    yield _row(f"aosm, 1 query, {of}", took["ours"], streaming | eager, OF_STREAMING if is_target else None)
    yield _row(f"aosm, 1 query, {of}, with the {best} best", took["ours with the best"], streaming)


def _batch(block: DeviceBlock, of: str, batch: int, rounds: int, *, is_target: bool) -> Iterator[Row]:
    """Tiles of several widths, against the rate at which cuBLAS makes the products that a batch needs."""
    device, every = block.frames.device, Scored(block, None, len(block.pooled))
    columns = torch.randn(batch * (WORDS + 1), WIDTH, device=device).to(_product_dtype(device))
    some = block.frames[: min(len(block.frames), 2**20)].to(columns.dtype)
    panel = query_of(batch, WORDS).panel
    calls: dict[str, Call] = {
        str(width): functools.partial(_aosm(block, panel, width).score, every) for width in TILE_WIDTHS
    }
    peers: dict[str, Call] = {"cuBLAS": lambda: some @ columns.T, "sum": lambda: _sum(block.frames, block.pooled)}
    took = _measured(block, calls | peers, rounds)
    products = every.count * (FRAMES + 1) / len(some)
    against = {"cuBLAS in float16": _scaled(took["cuBLAS"], products), "streaming": took["sum"]}
    for width in TILE_WIDTHS:
        name = f"aosm, {batch} queries, {of}, {width} columns at once"
        yield _row(name, took[str(width)], against, OF_CUBLAS if is_target and width == MAX_COLUMNS else None)


def _others(block: DeviceBlock, of: str, rounds: int) -> Iterator[Row]:
    """One query without learnt mixing, with many words, by the other scorers, and a rerank, which launches bound."""
    device, every = block.frames.device, Scored(block, None, len(block.pooled))
    chosen = torch.randint(0, every.count, (min(RERANKED, every.count),), device=device)
    some = Scored(block, chosen, len(chosen))
    without, long, usual = query_of(1, WORDS, is_mixed=False), query_of(1, 31), query_of(1, WORDS)
    calls: dict[str, Call] = {
        "aosm without learnt mixing": functools.partial(_aosm(block, without.panel).score, every),
        "aosm with 31 words": functools.partial(_aosm(block, long.panel).score, every),
        f"aosm, {len(chosen):,} segments of": functools.partial(_aosm(block, usual.panel).score, some),
    }
    reads = dict.fromkeys(calls, "all")
    for name, read in (("maxsim", "frames"), ("max_frame", "frames"), ("multi_grained", "all"), ("mean", "pooled")):
        terms, _ = scorers_of(replace(usual.panel, scorer=name), device, MAX_COLUMNS)
        calls[name] = functools.partial(_all_scores, terms, every)
        reads[name] = read
    roofs: dict[str, Call] = {
        "all": lambda: _sum(block.frames, block.pooled),
        "frames": lambda: _sum(block.frames),
        "pooled": lambda: _sum(block.pooled),
    }
    took = _measured(block, calls | roofs, rounds)
    for name, read in reads.items():
        is_rerank = name.endswith(" of")
        yield _row(f"{name}, 1 query, {of}", took[name], {} if is_rerank else {"streaming": took[read]})


def _error(block: DeviceBlock) -> Row:
    """How far the kernel lies from the referee on the first segments."""
    query, count = query_of(1, WORDS), min(EAGER_SEGMENTS, len(block.pooled))
    difference = _aosm(block, query.panel).score(Scored(block, None, count)) - _eager(block, query, count)
    name = f"largest difference from the referee, {count:,} segments, fp16"
    return Row(name, float(difference.abs().max()), "cosine", target=at_most(1e-3))


def query_of(num_queries: int, num_words: int, *, is_mixed: bool = True) -> Query:
    """Random unit vectors, all words real, matrices near the identity or none."""
    rng = np.random.default_rng(num_words)

    def unit(*shape: int) -> Array:
        x = rng.standard_normal(shape)
        vectors: Array = (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)
        return vectors

    def matrix(side: int) -> Array | None:
        noise = rng.standard_normal((side, side))
        return (np.eye(side) + 0.1 / side**0.5 * noise).astype(np.float32) if is_mixed else None

    whole, parts = unit(num_queries, WIDTH), unit(num_queries, num_words, WIDTH)
    arrays = [matrix(side) for side in (num_words,) * 3 + (FRAMES,) * 3]
    mask = np.ones((num_queries, num_words), np.bool_)
    panel = Panel("aosm", whole, whole, parts, parts, mask, MixingArrays(*arrays), 0.01)
    tensors = [None if array is None else torch.from_numpy(array) for array in arrays]
    return Query(panel, Mixing(None, None, *tensors))


def block_on(device: torch.device, num_segments: int, store: Store) -> DeviceBlock:
    """Random unit vectors, made and rounded on the device."""
    frames, frame_scales = _random(device, num_segments * FRAMES, store)
    pooled, pooled_scales = _random(device, num_segments, store)
    counts = torch.full((num_segments,), FRAMES, dtype=torch.int32, device=device)
    first = torch.arange(num_segments, device=device) * FRAMES
    return DeviceBlock(frames, pooled, first, counts, frame_scales, pooled_scales, None, FRAMES)


def _random(device: torch.device, num_rows: int, store: Store) -> tuple[Tensor, Tensor | None]:
    is_int8 = store == "int8"
    values = torch.empty(num_rows, WIDTH, dtype=torch.int8 if is_int8 else torch.float16, device=device)
    scales = torch.empty(num_rows, device=device) if is_int8 else None
    torch.manual_seed(0)
    for start in range(0, num_rows, 2**20):
        some = torch.randn(len(values[start : start + 2**20]), WIDTH, device=device)
        some = torch.nn.functional.normalize(some, dim=1)
        if scales is not None:
            step = some.abs().amax(1) / 127.0
            scales[start : start + 2**20] = step
            some = (some / step[:, None]).round()
        values[start : start + 2**20] = some.to(values.dtype)
    return values, scales


def _aosm(block: DeviceBlock, panel: Panel, max_columns: int = MAX_COLUMNS) -> Aosm:
    return Aosm(panel, block.frames.device, max_columns)


def _all_scores(terms: Sequence[Aosm | BestOrMean], scored: Scored) -> list[Tensor]:
    return [term.score(scored) for term in terms]


def _eager(block: DeviceBlock, query: Query, count: int) -> Tensor:
    """The referee as it stands, in float32, some segments at a time."""
    device = block.frames.device
    whole, parts = (torch.from_numpy(x).to(device) for x in (query.panel.whole, query.panel.parts))
    mixing = Mixing(*(None if matrix is None else matrix.to(device) for matrix in query.mixing))
    found = []
    for start in range(0, count, EAGER_SEGMENTS):
        stop = min(count, start + EAGER_SEGMENTS)
        frames = block.frames[start * FRAMES : stop * FRAMES].float().reshape(stop - start, FRAMES, WIDTH)
        grains = four_grains(whole, parts, block.pooled[start:stop].float(), frames, mixing).grains_TV4
        found.append(grains.mean(-1))
    return torch.cat(found, dim=1)


def _sum(*features: Tensor) -> list[Tensor]:
    """Read features once; their bits are taken for float32."""
    return [some.view(torch.float32).sum() for some in features]


def _copy(*features: Tensor) -> None:
    """Read features once and write as many bytes, into a buffer that is used again."""
    for those in features:
        step = max(1, COPIED_BYTES // (those.element_size() * WIDTH))
        buffer = torch.empty_like(those[:step])
        for start in range(0, len(those), step):
            some = those[start : start + step]
            buffer[: len(some)].copy_(some)


def _scaled(took: Spread, factor: float) -> Spread:
    return Spread(took.median * factor, took.min * factor, took.max * factor)


def _faster(one: Spread, other: Spread) -> Spread:
    return one if one.median <= other.median else other


def _product_dtype(device: torch.device) -> torch.dtype:
    return torch.float16 if device.type == "cuda" else torch.float32


def _row(name: str, ours: Spread, against: Mapping[str, Spread], target: Target | None = None) -> Row:
    """The ratio is the share of the first roof."""
    roof = next(iter(against.values()), None)
    return Row(name, ours, "ms", against, None if roof is None else roof.median / ours.median, target)


def _measured(block: DeviceBlock, calls: Mapping[str, Call], rounds: int) -> dict[str, Spread]:
    """Milliseconds of each, after a call of each that compiles and settles memory."""
    device = block.frames.device
    for call in calls.values():
        call()
    return interleaved({name: functools.partial(_took_ms, call, device) for name, call in calls.items()}, rounds)


def _took_ms(call: Call, device: torch.device) -> float:
    if device.type != "cuda":
        started = time.perf_counter()
        call()
        return (time.perf_counter() - started) * 1e3
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _fits(num_segments: int, device: torch.device) -> bool:
    """Whether float16 features, a buffer and scores have room; a size that hasn't is reported and left out."""
    if device.type != "cuda":
        return True
    needed = num_segments * ((FRAMES + 1) * WIDTH * 2 + BATCH * 8) + COPIED_BYTES + 2**32
    free = torch.cuda.mem_get_info(device)[0]
    if needed > free:
        print(f"{num_segments:,} segments need {needed:,} bytes, {free:,} are free: left out", file=sys.stderr)
    return needed <= free


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where no GPU can run the kernel."""
    parser = argparse.ArgumentParser(description="The Triton kernel beside streaming, cuBLAS and eager torch.")
    parser.add_argument("--segments", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    if (reason := unavailable(device)) is not None:
        print(f"benchmarks.gpu needs a GPU: {reason}", file=sys.stderr)
        return 1
    print_rows(measure(device, given.segments, given.rounds), as_json=given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
