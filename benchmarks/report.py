"""What a benchmark prints: one JSON object of rows with the machine and the commit, or the same rows in Markdown.

    {"machine": {...}, "commit": ..., "rows": [{"name", "value", "min", "max", "unit", "against": {peer: value},
                                               "ratio", "target", "holds"}]}

`interleaved` takes the measurements: ours and the peers in turn, round after round, so that a busy machine slows all.
It knows no benchmark.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.machine import describe_machine


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several measurements, and how far they lie apart."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Target:
    """What a row should reach, in its value or in its ratio."""

    limit: float
    quantity: Literal["value", "ratio"] = "value"
    is_upper: bool = True
    """Whether the quantity should be at most the limit, else at least."""

    def __str__(self) -> str:
        return f"{self.quantity} {'<=' if self.is_upper else '>='} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a benchmark."""

    name: str
    value: float | Spread
    unit: str
    against: Mapping[str, float | Spread] = field(default_factory=dict)
    """The same of each peer and of each roof, in the row's unit."""

    ratio: float | None = None
    """How many times better than the peer that the benchmark names, or the share of a roof."""

    target: Target | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the target is reached; None without a target."""
        if self.target is None:
            return None
        found = _median(self.value) if self.target.quantity == "value" else self.ratio
        if found is None:
            raise ValueError(f"the target of {self.name!r} is a ratio, and the row has none")
        return found <= self.target.limit if self.target.is_upper else found >= self.target.limit

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON holds it."""
        spread = self.value if isinstance(self.value, Spread) else None
        return {
            "name": self.name,
            "value": _median(self.value),
            "min": spread.min if spread else None,
            "max": spread.max if spread else None,
            "unit": self.unit,
            "against": {peer: _median(value) for peer, value in self.against.items()},
            "ratio": self.ratio,
            "target": None if self.target is None else str(self.target),
            "holds": self.holds,
        }


def at_most(limit: float, quantity: Literal["value", "ratio"] = "value") -> Target:
    """The value or the ratio should not exceed the limit."""
    return Target(limit, quantity, is_upper=True)


def at_least(limit: float, quantity: Literal["value", "ratio"] = "value") -> Target:
    """The value or the ratio should reach the limit."""
    return Target(limit, quantity, is_upper=False)


def interleaved(measured: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Spread]:
    """Call each function once a round, in turn; every call returns one measurement."""
    found: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(rounds):
        for name, measure in measured.items():
            found[name].append(measure())
    return {name: Spread.of(values) for name, values in found.items()}


def report(rows: Sequence[Row]) -> dict[str, Any]:
    """The object that `--json` prints."""
    machine = describe_machine()
    commit = machine.pop("commit")
    return {"machine": machine, "commit": commit, "rows": [row.as_dict() for row in rows]}


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table for docs/performance.md."""
    lines = ["| what | median (min to max) | beside it | ratio | target | holds |", "|---|---|---|---|---|---|"]
    for row in rows:
        value = f"{_shown(_median(row.value))} {row.unit}"
        if isinstance(row.value, Spread):
            value += f" ({_shown(row.value.min)} to {_shown(row.value.max)})"
        against = ", ".join(f"{peer} {_shown(_median(other))}" for peer, other in row.against.items())
        ratio = "" if row.ratio is None else _shown(row.ratio)
        holds = {None: "", True: "yes", False: "**no**"}[row.holds]
        lines.append(f"| {row.name} | {value} | {against} | {ratio} | {row.target or ''} | {holds} |")
    return "\n".join(lines)


def print_rows(rows: Sequence[Row], *, as_json: bool) -> None:
    """Print the rows on stdout, as JSON or as a Markdown table headed by the machine."""
    found = report(rows)
    if as_json:
        json.dump(found, sys.stdout, indent=2)
        print()
        return
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items() if value is not None)
    print(f"{machine}, commit {found['commit']}\n\n{markdown(rows)}")


def _median(value: float | Spread) -> float:
    return value.median if isinstance(value, Spread) else value


def _shown(number: float) -> str:
    """Three significant digits, large numbers whole."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"
