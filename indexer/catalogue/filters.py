"""Search filters: typed JSON in, a WHERE clause with bound parameters out.

    {"tags": {"in": ["a", "b"]}, "duration_s": {"lte": 600}, "not": {"camera": "north"},
     "or": [{"year": 2023}, {"year": {"exists": false}}]}

All conditions of an object must hold. "not" takes a filter, "or" and "and" take lists of filters. A field is one of
FIELDS, else a key of the video's metadata. Operators: eq, ne, in, gte, lte, gt, lt, exists; a bare value means eq.
Values are compared with values of their own kind only (text, number, true/false, null). eq and in hold for a list in
the metadata if one of its elements matches; ne is the opposite of eq, so it holds if the key is absent. Text is
compared by code point.

No part of a filter ever becomes SQL: fields and operators select fixed pieces, keys and values are bound.
It knows the columns of `videos` (as `v`) and no database.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from indexer.errors import InvalidFilter

Kind = Literal["text", "number"]

FIELDS: dict[str, tuple[str, Kind]] = {
    "video_id": ("v.id", "text"),
    "title": ("v.title", "text"),
    "duration_s": ("v.duration_s", "number"),
    "created_at": ("v.created_at", "number"),
    "width": ("v.width", "number"),
    "height": ("v.height", "number"),
    "fps": ("v.fps", "number"),
    "codec": ("v.codec", "text"),
    "size_bytes": ("v.size_bytes", "number"),
}
"""Fields of every video: column and kind. A metadata key of the same name can't be filtered on."""

INSTANTS = frozenset({"created_at"})
"""Fields stored as epoch seconds; a filter may also give the time as ISO 8601 text, as answers show it."""

OPERATORS = ("eq", "ne", "in", "gte", "lte", "gt", "lt", "exists")
MAX_DEPTH = 8
MAX_CONDITIONS = 64
MAX_IN_VALUES = 1000
MAX_VALUES = 4000
MAX_TEXT_CHARS = 2000

_RANGES = {"gte": ">=", "lte": "<=", "gt": ">", "lt": "<"}
_JSON_TYPES = {"text": "('text')", "number": "('integer', 'real')", "bool": "('true', 'false')", "null": "('null')"}


@dataclass(frozen=True, slots=True)
class Clause:
    """A condition on `videos AS v` that is never NULL, with its parameters in order."""

    sql: str
    parameters: tuple[Any, ...]


def compile_filter(filter: Mapping[str, Any] | None) -> Clause:
    """The filter as SQL; None and {} match everything. Raises: InvalidFilter, naming the bad part."""
    if filter is None:
        return Clause("1", ())
    compiler = _Compiler()
    sql = compiler.everything(filter, "filter", 0)
    return Clause(sql, tuple(compiler.parameters))


class _Compiler:
    """One walk over a filter: collects parameters in the order of their question marks."""

    def __init__(self) -> None:
        self.parameters: list[Any] = []
        self._num_conditions = 0

    def everything(self, part: Any, where: str, depth: int) -> str:
        """The condition that all keys of the object `part` hold."""
        if not isinstance(part, Mapping):
            raise _refusal(where, f"must be an object, not {_kind_name(part)}")
        if depth > MAX_DEPTH:
            raise _refusal(where, f"is nested deeper than {MAX_DEPTH} levels")
        if not part:
            self._count(where)  # it has no condition, but counts as a term of its list
        clauses = [self._entry(key, value, f"{where}.{_shown(key)}", depth) for key, value in part.items()]
        return "(" + " AND ".join(clauses) + ")" if clauses else "1"

    def _entry(self, key: Any, value: Any, where: str, depth: int) -> str:
        if not isinstance(key, str):
            raise _refusal(where, "must be named by text")
        self._count(where)
        if key == "not":
            return f"(NOT {self.everything(value, where, depth + 1)})"
        if key in ("or", "and"):
            if not isinstance(value, list | tuple) or not value:
                raise _refusal(where, "must be a list of at least one filter")
            parts = [self.everything(inner, f"{where}[{n}]", depth + 1) for n, inner in enumerate(value)]
            return "(" + f" {key.upper()} ".join(parts) + ")"
        operators = value if isinstance(value, Mapping) else {"eq": value}
        if not operators:
            raise _refusal(where, f"needs an operator, one of {', '.join(OPERATORS)}")
        return (
            "("
            + " AND ".join(self._condition(key, op, v, f"{where}.{_shown(op)}") for op, v in operators.items())
            + ")"
        )

    def _count(self, where: str) -> None:
        self._num_conditions += 1
        if self._num_conditions > MAX_CONDITIONS:
            raise _refusal(where, f"is one of more than {MAX_CONDITIONS} conditions")

    def _condition(self, key: str, operator: Any, value: Any, where: str) -> str:
        if operator not in OPERATORS:
            raise _refusal(where, f"is not an operator; use one of {', '.join(OPERATORS)}")
        if operator == "exists":
            if not isinstance(value, bool):
                raise _refusal(where, "must be true or false")
            return self._exists(key) if value else f"(NOT {self._exists(key)})"
        if operator == "ne":
            return f"(NOT {self._equal(key, value, where)})"
        if operator == "eq":
            return self._equal(key, value, where)
        if operator == "in":
            return self._among(key, value, where)
        return self._range(key, _RANGES[operator], value, where)

    def _exists(self, key: str) -> str:
        if key in FIELDS:
            return f"({FIELDS[key][0]} IS NOT NULL)"
        self._bind_key(key)
        return "EXISTS (SELECT 1 FROM json_each(v.metadata) AS m WHERE m.key = ?)"

    def _among(self, key: str, values: Any, where: str) -> str:
        if not isinstance(values, list | tuple):
            raise _refusal(where, f"must be a list, not {_kind_name(values)}")
        if len(values) > MAX_IN_VALUES:
            raise _refusal(where, f"has more than {MAX_IN_VALUES} values")
        kinds: dict[str, list[Any]] = {}
        for n, value in enumerate(values):
            kind, bound = _operand(key, value, f"{where}[{n}]")
            kinds.setdefault(kind, []).append(bound)
        clauses = [self._matches(key, kind, bound, where) for kind, bound in kinds.items()]
        return "(" + " OR ".join(clauses) + ")" if clauses else "0"

    def _equal(self, key: str, value: Any, where: str) -> str:
        kind, bound = _operand(key, value, where)
        return self._matches(key, kind, [bound], where)

    def _matches(self, key: str, kind: str, values: list[Any], where: str) -> str:
        """The condition that the field is one of the values, all of one kind, or a list that holds one of them."""
        marks = f"({', '.join('?' * len(values))})"
        if key in FIELDS:
            column, field_kind = FIELDS[key]
            if kind == "null":
                return f"({column} IS NULL)"
            self._require_kind(field_kind, kind, where)
            self._bind(values, where)
            return f"({column} IS NOT NULL AND {column} IN {marks})"
        types = _JSON_TYPES[kind]
        among = "" if kind == "null" else f" AND {{0}}.atom IN {marks}"
        self._bind_key(key)
        for _ in range(0 if kind == "null" else 2):
            self._bind(values, where)
        return (
            "EXISTS (SELECT 1 FROM json_each(v.metadata) AS m WHERE m.key = ? AND ("
            f"(m.type IN {types}{among.format('m')}) OR EXISTS (SELECT 1 FROM "
            "json_each(CASE m.type WHEN 'array' THEN m.value ELSE '[]' END) AS e "
            f"WHERE e.type IN {types}{among.format('e')})))"
        )

    def _range(self, key: str, sign: str, value: Any, where: str) -> str:
        kind, bound = _operand(key, value, where)
        if kind not in ("text", "number"):
            raise _refusal(where, f"must be a number or text, not {_kind_name(value)}")
        if key in FIELDS:
            column, field_kind = FIELDS[key]
            self._require_kind(field_kind, kind, where)
            self._bind([bound], where)
            return f"({column} IS NOT NULL AND {column} {sign} ?)"
        self._bind_key(key)
        self._bind([bound], where)
        return (
            "EXISTS (SELECT 1 FROM json_each(v.metadata) AS m "
            f"WHERE m.key = ? AND m.type IN {_JSON_TYPES[kind]} AND m.atom {sign} ?)"
        )

    def _require_kind(self, expected: Kind, kind: str, where: str) -> None:
        if kind != expected:
            raise _refusal(where, f"must be {'text' if expected == 'text' else 'a number'}")

    def _bind_key(self, key: str) -> None:
        self._bind([_text(key, "a field's name")], "filter")

    def _bind(self, values: list[Any], where: str) -> None:
        self.parameters.extend(values)
        if len(self.parameters) > MAX_VALUES:
            raise _refusal(where, f"brings the filter over {MAX_VALUES} values")


def _operand(key: str, value: Any, where: str) -> tuple[str, Any]:
    """The kind of a value that a field is compared with, and what to bind for it."""
    if key in INSTANTS and isinstance(value, str):
        try:
            instant = datetime.fromisoformat(value)
        except ValueError as error:
            raise _refusal(where, "must be a time in ISO 8601, such as 2026-11-21T15:50:00Z") from error
        return "number", (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
    return _scalar(value, where)


def _scalar(value: Any, where: str) -> tuple[str, Any]:
    """The kind of a value and what to bind for it."""
    if value is None:
        return "null", None
    if isinstance(value, bool):
        return "bool", int(value)
    if isinstance(value, str):
        return "text", _text(value, where)
    if isinstance(value, int) and abs(value) < 2**63:
        return "number", value
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return "number", number
        raise _refusal(where, "must be a finite number")
    raise _refusal(where, f"must be text, a number, true, false or null, not {_kind_name(value)}")


def _text(value: str, where: str) -> str:
    if len(value) > MAX_TEXT_CHARS:
        raise _refusal(where, f"is longer than {MAX_TEXT_CHARS} characters")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise _refusal(where, "holds characters that aren't text (NUL or half a surrogate pair)")
    return value


def _refusal(where: str, problem: str) -> InvalidFilter:
    return InvalidFilter(f"{where} {problem}.")


def _shown(key: Any) -> str:
    """A key as messages show it: printable and short."""
    text = str(key) if isinstance(key, str) and key.isprintable() and key.isascii() else ascii(key)
    return text if len(text) <= 60 else text[:57] + "..."


def _kind_name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
