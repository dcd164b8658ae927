"""A whole search is measured at small sizes, and drawn."""

from __future__ import annotations

from benchmarks.whole_search import chart, rows


def test_every_mode_is_measured_beside_the_official_arithmetic() -> None:
    found = rows([40, 80], "fp16", 1)
    assert [row.name.split(",")[0] for row in found] == ["whole search", "ann's share of exact's first ten"] * 2
    assert set(found[0].against) == {"exact", "ann", "official"} and found[0].ratio is not None
    drawn = chart(found)
    assert all(f">{name}</text>" in drawn for name in ("auto", "exact", "ann", "official"))
