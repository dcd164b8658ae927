"""Plain values (from TOML or JSON) -> a frozen dataclass, every key known and every value of its field's kind.

It knows no configuration in particular; messages begin with the place that the caller names.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Part = TypeVar("Part")


class BadValue(ValueError):
    """A key or value that a configuration can't have. Its reader translates it into an error of its own."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def checked(kind: type[Part], values: Any, where: str, *, leave_out: frozenset[str] = frozenset(), **own: Any) -> Part:
    """A dataclass from values. leave_out: fields that values may not set; own: what the caller sets.

    Raises: BadValue naming the place, the key, and what would be right.
    """
    if not isinstance(values, Mapping):
        raise BadValue(f"{where} is {values!r}; a table is needed.")
    hints = get_type_hints(kind)
    names = [item.name for item in fields(kind) if item.name not in leave_out]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise BadValue(f"{where} has no key {key!r}.", f"It has {', '.join(names) or 'none'}.")
    return kind(**{key: _fitted(value, hints[key], f"{where} {key}") for key, value in values.items()}, **own)


def check_at_least(value: float | None, least: float, where: str) -> None:
    """Raises: BadValue if the value is there and below the least."""
    if value is not None and not value >= least:
        raise BadValue(f"{where} is {value}; at least {least} is needed.")


def _fitted(value: Any, hint: Any, where: str) -> Any:
    """The value as the hint wants it: whole numbers may stand for fractions, lists for tuples."""
    options = _options(hint)
    for option in options:
        origin = get_origin(option)
        if origin is Literal and value in get_args(option) and not isinstance(value, bool):
            return value
        if option is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        if origin is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
            return dict(value)
        if option in (str, int, bool) and type(value) is option:
            return value
    raise BadValue(f"{where} is {value!r}; {' or '.join(_named(option) for option in options)} is needed.")


def _options(hint: Any) -> list[Any]:
    """What a hint allows but None, which an absent key means."""
    is_union = get_origin(hint) in (Union, types.UnionType)
    return [option for option in get_args(hint) if option is not type(None)] if is_union else [hint]


def _named(option: Any) -> str:
    if get_origin(option) is Literal:
        return "one of " + ", ".join(repr(value) for value in get_args(option))
    names = {str: "a text", int: "a whole number", float: "a finite number", bool: "true or false"}
    return names.get(option, "a list of texts" if get_origin(option) is tuple else "a table")
