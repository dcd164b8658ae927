"""The form in which benchmarks report: rows with targets, as JSON and as a table."""

from __future__ import annotations

import json

import pytest

from benchmarks.report import Row, Spread, at_least, at_most, interleaved, markdown, print_rows


def test_measurements_are_taken_in_turn() -> None:
    calls: list[str] = []
    counts = iter(range(10))

    def measure(name: str) -> float:
        calls.append(name)
        return next(counts)

    found = interleaved({"ours": lambda: measure("ours"), "peer": lambda: measure("peer")}, rounds=3)
    assert calls == ["ours", "peer"] * 3
    assert found == {"ours": Spread(median=2, min=0, max=4), "peer": Spread(median=3, min=1, max=5)}


def test_a_target_is_held_to_the_value_or_the_ratio() -> None:
    assert Row("start", Spread(2.9, 2.0, 9.0), "s", target=at_most(3)).holds is True
    assert Row("start", 3.1, "s", target=at_most(3)).holds is False
    assert Row("rerank", 2.0, "ms", {"official": 93.0}, ratio=46.5, target=at_least(50, "ratio")).holds is False
    assert Row("rerank", 2.0, "ms").holds is None
    with pytest.raises(ValueError, match="the row has none"):
        _ = Row("rerank", 2.0, "ms", target=at_least(50, "ratio")).holds


def test_rows_are_printed_as_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row("rerank", Spread(2.0, 1.5, 4.0), "ms", {"official": 90.0}, ratio=45.0, target=at_least(50, "ratio"))]
    print_rows(rows, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"machine", "commit", "rows"} and "processor" in found["machine"]
    assert found["rows"] == [
        {
            "name": "rerank",
            "value": 2.0,
            "min": 1.5,
            "max": 4.0,
            "unit": "ms",
            "against": {"official": 90.0},
            "ratio": 45.0,
            "target": "ratio >= 50",
            "holds": False,
        }
    ]


def test_rows_are_a_table_for_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row("start", Spread(2.5, 2.4, 2.75), "s", {"import torch": Spread(2.0, 2.0, 2.0)}, target=at_most(3))]
    line = markdown(rows).splitlines()[-1]
    assert line == "| start | 2.5 s (2.4 to 2.75) | import torch 2 |  | value <= 3 | yes |"
    print_rows(rows, as_json=False)
    assert line in capsys.readouterr().out
