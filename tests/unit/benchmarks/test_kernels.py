"""benchmarks.kernels on a few segments: every row has what its form needs."""

from __future__ import annotations

import pytest

from benchmarks.kernels import STORES, Library, exact, ranks
from benchmarks.report import Spread
from model.kernels import native


@pytest.mark.skipif(not native.paths(), reason=native.problem())
def test_rows_name_the_path_and_stand_beside_the_roofs() -> None:
    library = Library(40)
    peaks = {f"{path} {store}": Spread(1.0, 1.0, 1.0) for path in native.paths() for store in STORES}
    rows = [row.as_dict() for row in exact(library, 1, peaks)]
    best = [row for row in rows if f"2 threads: {native.paths()[0]} int8" in row["name"]]
    assert best and all("reading int8" in row["against"] for row in best)
    assert all(row["holds"] is not None for row in best)


@pytest.mark.skipif(not native.paths(), reason=native.problem())
def test_a_path_in_floats_ranks_as_floats_do() -> None:
    overlaps = {row.name: row.value for row in ranks(Library(40), 2)}
    assert all(value == 1.0 for name, value in overlaps.items() if name.endswith("avx512 fp16"))
