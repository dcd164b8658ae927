"""FAISS's door: finds candidates of one sealed shard without reading all of its features.

Letters: Q queries, N segments of the shard, C centres of a segment, D width of frames, P width of pooled vectors.
Two inverted-file indexes of product-quantised vectors (a quarter of a byte a number), scanned by FAISS's fast-scan
code: one over pooled vectors, one over two or three centres of each segment's frames (shards/centres.py). An entry's
id is the segment's row, so that several centres of one segment share an id, and a filter is one bitmap over rows.
How many lists are scanned is measured when the index is built. Everything here is derived from the features.
It knows no model, no file and no catalogue.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.errors import BackendMissing, CatalogueUnreadable
from indexer.shards.centres import Array, finite, frame_centres
from indexer.shards.probes import choose_nprobe, probe_queries
from indexer.shards.view import FoundRows
from model.kernels.block import FeatureBlock, Rows

FORMAT = 1
"""Of the parts; raised whenever older parts can't be read any more."""
ROWS_FOR_TRAINING = 8192
"""Segments drawn from a shard to train its lists and codes."""
ROWS_AT_ONCE = 4096
"""Segments entered at once: bounds the float32 copies."""
QUERIES_FOR_PROBES = 96
"""Sampled queries by which the number of lists to scan is measured."""
DEPTH_FOR_PROBES = 100
"""How many of the best entries of a scan of all lists are looked for."""
JITTER = 0.003
"""Noise on the vectors that codes are trained on, as a share of their length."""

Bytes = NDArray[np.uint8]
Bits = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an index is made of; the defaults are those that benchmarks/recall.py speaks for."""

    num_centres: int = 3
    """Centres of a segment's frames, at most."""
    numbers_per_code: int = 2
    """Numbers of a vector that share a code of four bits."""
    largest_flat: int = 4096
    """Up to so many entries there is one list, which is always scanned in full."""
    entries_per_list: int = 512
    """Beyond, on average."""
    most_lists: int = 256


RECIPE = Recipe()


class Coarse:
    """Candidates of one sealed shard; a CoarseIndex. Immutable, safe to be searched by many threads.

    A search runs in the calling thread alone, without the GIL.
    """

    def __init__(self, pooled: _Channel, frames: _Channel | None) -> None:
        self._pooled = pooled
        self._frames = frames

    @classmethod
    def build(cls, block: FeatureBlock, *, has_frame_recall: bool, seed: int = 0, recipe: Recipe = RECIPE) -> Coarse:
        """Train on a sample of the block and enter all of its segments, at least one. The same seed, the same index.

        has_frame_recall: whether `by_frames` will be asked. Some seconds for 65,536 segments, in this thread alone.
        Raises: BackendMissing where FAISS is not installed, or too old.
        """
        rng = np.random.default_rng(seed)
        size = len(block)
        drawn = np.sort(rng.permutation(size)[:ROWS_FOR_TRAINING])
        batches = [np.arange(at, min(at + ROWS_AT_ONCE, size)) for at in range(0, size, ROWS_AT_ONCE)]
        pooled = _Channel.build(
            _pooled(block, drawn), ((_pooled(block, rows), rows) for rows in batches), size, size, recipe, rng
        )
        if not has_frame_recall:
            return cls(pooled, None)
        frames = _Channel.build(
            frame_centres(block, drawn, recipe.num_centres)[0],
            (frame_centres(block, rows, recipe.num_centres) for rows in batches),
            size,
            int(np.minimum(block.num_frames, recipe.num_centres).sum()),
            recipe,
            rng,
        )
        return cls(pooled, frames)

    @classmethod
    def from_parts(cls, parts: Mapping[str, Bytes]) -> Coarse:
        """What `parts` gave, opened again. Some arrays are read in place, and must not change while the index is used.

        Raises: CatalogueUnreadable if parts are missing, damaged or of another format; BackendMissing.
        """
        try:
            head = json.loads(parts["head"].tobytes())
            if head["format"] != FORMAT:
                raise ValueError(f"format {head['format']!r} where {FORMAT} is expected")
            channels = {name: _Channel.open(parts[name], _Facts(**facts)) for name, facts in head["channels"].items()}
            return cls(channels.pop("pooled"), channels.pop("frames", None))
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise CatalogueUnreadable(
                f"The coarse index of a shard can't be read: {str(error).strip() or type(error).__name__}.",
                "It is made of the catalogue: remove the snapshot, and it is built again.",
            ) from error

    def parts(self) -> dict[str, Bytes]:
        """What a snapshot keeps: a head of JSON and FAISS's own bytes, named."""
        channels = self._channels()
        head = {"format": FORMAT, "channels": {name: asdict(channel.facts) for name, channel in channels.items()}}
        named = {name: channel.serialize() for name, channel in channels.items()}
        return {"head": np.frombuffer(json.dumps(head).encode(), np.uint8), **named}

    def by_pooled(self, queries: Array, k: int, allowed: Bits | None) -> FoundRows:
        """The k segments whose pooled vectors have the largest inner product with each query (Q, P).

        Scores are those of the quantised vectors, comparable between shards. allowed: (N,); None: all.
        """
        return self._pooled.search(queries, k, allowed)

    def by_frames(self, queries: Array, k: int, allowed: Bits | None) -> FoundRows:
        """The k segments one of whose centres has the largest inner product with each query (Q, D).

        Raises: ValueError if the index was built without frames.
        """
        if self._frames is None:
            raise ValueError("this shard's coarse index was built without frames")
        return self._frames.search(queries, k, allowed)

    @property
    def size_bytes(self) -> int:
        """Bytes of codes, ids and centroids."""
        return sum(channel.size_bytes for channel in self._channels().values())

    def describe(self) -> dict[str, Any]:
        """For stats: entries, lists, lists scanned and the recall measured, for each of the two indexes."""
        return {name: asdict(channel.facts) for name, channel in self._channels().items()}

    def _channels(self) -> dict[str, _Channel]:
        return {"pooled": self._pooled} | ({} if self._frames is None else {"frames": self._frames})


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known of an index besides its codes."""

    rows: int
    """N"""
    width: int
    """Of the vectors."""
    padded_width: int
    """Of the index, which holds zeros beyond."""
    entries: int
    lists: int
    most_per_row: int
    """Entries of the row that has most."""
    nprobe: int
    """Lists that a search scans."""
    recall: float
    """Measured for nprobe, against a scan of all lists."""


class _Channel:
    """One FAISS index whose ids are rows of the shard."""

    def __init__(self, index: Any, facts: _Facts, raw: Bytes | None = None) -> None:
        self.facts = facts
        self._index = index
        self._raw = raw  # FAISS points into it: kept alive
        self._faiss = _import_faiss()

    @classmethod
    def build(
        cls,
        sample: Array,
        batches: Iterable[tuple[Array, Rows]],
        num_rows: int,
        num_entries: int,
        recipe: Recipe,
        rng: np.random.Generator,
    ) -> _Channel:
        """Train on a sample (S, width), enter vectors (X, width) under their rows (X,), and choose nprobe.

        num_entries: about how many vectors will come. All vectors of a row are in one batch.
        """
        faiss = _import_faiss()
        faiss.omp_set_num_threads(1)
        width = sample.shape[1]
        padded_width = width + -width % recipe.numbers_per_code
        index = _trained(faiss, _padded(sample, padded_width), num_entries, recipe, rng)
        most_per_row = 1
        for vectors, rows in batches:
            most_per_row = max(most_per_row, int(np.bincount(rows).max(initial=1)))
            index.add_with_ids(_padded(vectors, padded_width), np.ascontiguousarray(rows, dtype=np.int64))
        lists, entries = int(index.nlist), int(index.ntotal)
        channel = cls(index, _Facts(num_rows, width, padded_width, entries, lists, most_per_row, lists, 1.0))
        nprobe, recall = choose_nprobe(channel._searcher(sample, rng), lists)
        channel.facts = replace(channel.facts, nprobe=nprobe, recall=round(recall, 4))
        return channel

    @classmethod
    def open(cls, raw: Bytes, facts: _Facts) -> _Channel:
        """The index in FAISS's bytes. Raises: ValueError or RuntimeError if it isn't what the facts describe."""
        faiss = _import_faiss()
        raw = np.ascontiguousarray(raw)
        index = faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(raw), raw.nbytes))
        if not isinstance(index, faiss.IndexIVFPQFastScan):
            raise ValueError(f"FAISS read a {type(index).__name__}")
        found = (int(index.nlist), int(index.ntotal), int(index.d))
        described = (facts.lists, facts.entries, facts.padded_width)
        is_sound = 1 <= facts.nprobe <= facts.lists and 0 < facts.width <= facts.padded_width
        if found != described or not is_sound or min(facts.rows, facts.most_per_row) < 1:
            raise ValueError(f"FAISS read lists, entries, width of {found} where {described} were written")
        return cls(index, facts, raw)

    def serialize(self) -> Bytes:
        """FAISS's own bytes of the index."""
        raw: Bytes = self._faiss.serialize_index(self._index)
        return raw

    @property
    def size_bytes(self) -> int:
        """Bytes of codes and ids in whole blocks, and of centroids."""
        index = self._index
        sizes = [int(index.invlists.list_size(at)) for at in range(int(index.nlist))]
        codes = sum(-(-size // int(index.bbs)) * int(index.bbs) for size in sizes) * int(index.M2) // 2
        centroids = 4 * int(index.d) * (int(index.nlist) + int(index.ksub))
        return codes + 8 * sum(sizes) + centroids

    def search(self, queries: Array, k: int, allowed: Bits | None) -> FoundRows:
        """The k rows with the best entry for each query, as many as may be found if these are fewer.

        Where a filter leaves little, all lists are scanned.
        """
        facts = self.facts
        num_allowed = facts.rows if allowed is None else int(np.count_nonzero(allowed))
        k = min(k, num_allowed)
        if k <= 0 or not len(queries):
            return FoundRows(np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32))
        selector = None if allowed is None else self._selector(allowed)
        nprobe = facts.nprobe if num_allowed >= facts.rows / 2 else facts.lists
        found = self._best(queries, k, nprobe, selector)
        if nprobe < facts.lists and (found.rows[:, -1] < 0).any():
            found = self._best(queries, k, facts.lists, selector)
        self._fill(found, allowed)
        return found

    def _best(self, queries: Array, k: int, nprobe: int, selector: Any) -> FoundRows:
        num_entries = min(k * self.facts.most_per_row, self.facts.entries)
        entry_rows, entry_scores = self._entries(queries, num_entries, nprobe, selector)
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        place = np.arange(num_entries)
        first_place = np.empty(self.facts.rows + 1, np.int64)  # the last one belongs to row -1
        for q, (entries, found) in enumerate(zip(entry_rows, entry_scores, strict=True)):
            first_place[entries[::-1]] = place[::-1]  # of equal rows the last assignment holds, which is the best place
            best = np.flatnonzero((first_place[entries] == place) & (entries >= 0))[:k]
            rows[q, : len(best)] = entries[best]
            scores[q, : len(best)] = found[best]
        return FoundRows(rows, scores)

    def _fill(self, found: FoundRows, allowed: Bits | None) -> None:
        """Put the rows last that are still missing: fast scan drops an entry that has the lowest score its tables can
        hold (of a query of zeros: all). With many codes a vector that hardly happens, with few it does."""
        for rows, scores in zip(found.rows, found.scores, strict=True):
            num_found = int(np.count_nonzero(rows >= 0))
            if num_found < len(rows):
                is_missing = np.ones(self.facts.rows, np.bool_) if allowed is None else allowed.copy()
                is_missing[rows[:num_found]] = False
                rows[num_found:] = np.flatnonzero(is_missing)[: len(rows) - num_found]
                scores[num_found:] = scores[num_found - 1] if num_found else 0.0

    def _entries(self, queries: Array, k: int, nprobe: int, selector: Any) -> tuple[Rows, Array]:
        """FAISS's answer (Q, k): a row as often as it has entries, best first, then -1."""
        faiss = self._faiss
        faiss.omp_set_num_threads(1)  # holds for the calling thread
        options = {} if selector is None else {"sel": selector}
        params = faiss.SearchParametersIVF(nprobe=nprobe, **options)
        scores, rows = self._index.search(_padded(queries, self.facts.padded_width), k, params=params)
        return rows, scores

    def _selector(self, allowed: Bits) -> Any:
        """A bitmap over rows. FAISS points into `bits`: the selector is given them to keep alive."""
        bits = np.packbits(allowed, bitorder="little")
        selector = self._faiss.IDSelectorBitmap(bits)
        selector.bits_kept_alive = bits
        return selector

    def _searcher(self, sample: Array, rng: np.random.Generator) -> Callable[[int], Rows]:
        queries = probe_queries(sample, QUERIES_FOR_PROBES, rng)
        depth = min(DEPTH_FOR_PROBES, self.facts.entries)
        return lambda nprobe: self._entries(queries, depth, nprobe, None)[0]


def _trained(faiss: ModuleType, sample: Array, num_entries: int, recipe: Recipe, rng: np.random.Generator) -> Any:
    """An empty index for vectors like those of the sample."""
    width = sample.shape[1]
    is_flat = num_entries <= recipe.largest_flat
    num_lists = 1 if is_flat else max(1, min(recipe.most_lists, num_entries // recipe.entries_per_list))
    num_codes = width // recipe.numbers_per_code
    index = faiss.IndexIVFPQFastScan(
        faiss.IndexFlatIP(width), width, num_lists, num_codes, 4, faiss.METRIC_INNER_PRODUCT
    )
    index.by_residual = True
    for clustering in (index.cp, index.pq.cp):
        clustering.niter = 10
        clustering.seed = int(rng.integers(2**31))
        clustering.min_points_per_centroid = 1  # fewer are enough, and no warning on stderr
    # where all vectors are equal, fast scan has no range to scale its tables to: the sample is blurred, by little
    sample = np.resize(sample, (max(len(sample), 2**4), width))
    blur = JITTER * np.linalg.norm(sample, axis=1).mean() / np.sqrt(width)
    index.train(sample + np.float32(blur) * rng.standard_normal(sample.shape, dtype=np.float32))
    return index


def _pooled(block: FeatureBlock, rows: Rows) -> Array:
    vectors = block.pooled[rows].astype(np.float32)
    if block.pooled_scales is not None:
        vectors *= block.pooled_scales[rows][:, None]
    return finite(vectors)


def _padded(vectors: Array, width: int) -> Array:
    """Contiguous float32, zeros at the end."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    missing = width - vectors.shape[1]
    return np.pad(vectors, ((0, 0), (0, missing))) if missing else vectors


def _import_faiss() -> ModuleType:
    hint = "Install one of the two: pip install 'vidgrain[cpu]' or pip install 'vidgrain[gpu]'."
    try:
        import faiss
    except ImportError as error:
        raise BackendMissing("FAISS is not installed.", hint) from error
    if not hasattr(faiss, "ZeroCopyIOReader") or not hasattr(faiss, "SearchParametersIVF"):
        raise BackendMissing(f"FAISS {faiss.__version__} is too old: it can't open a shard's index.", hint)
    module: ModuleType = faiss
    return module
