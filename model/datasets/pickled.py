"""Reads a pickle of plain captions, which is how MSVD's are published, without running it.

A pickle is a program: loading one can do anything. Here its instructions are only read (pickletools, no unpickler),
and the few that build dicts, lists and text are followed; the first other one is an error. It knows no dataset.
"""

from __future__ import annotations

import io
import pickletools
from pathlib import Path
from typing import Any

from model.datasets.annotation_files import HINT, read_bytes, refuse
from model.errors import DatasetError

_TEXT = {
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "STRING", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip
_NUMBER = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"}
_CONSTANT = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, type[dict[Any, Any]] | type[list[Any]]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": list,
}
_TUPLE = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


def read_pickle(path: Path) -> Any:
    """The dict, list, text or number that a pickle describes; tuples come as lists.

    Raises: DatasetError if it isn't a pickle, or holds anything else, such as the name of a class.
    """
    data = read_bytes(path)
    try:
        value = _Builder(path.name).follow(data)
    except DatasetError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, UnicodeError) as error:
        raise DatasetError(f"{path.name}: not a pickle that can be read: {error}.", HINT) from error
    if _is_larger(value, len(data)):
        refuse(path.name, "the pickle describes far more than it holds; such a pickle is not opened")
    return value


class _Builder:
    """The stack and the memo of the pickle machine, for its harmless instructions."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def follow(self, data: bytes) -> Any:
        for opcode, argument, position in pickletools.genops(io.BytesIO(data)):
            name = opcode.name
            if name == "STOP":
                (value,) = self._stack
                return value
            if not self._follow_one(name, argument):
                place = f"{self._name}, byte {position}"
                refuse(place, f"{name} is more than plain captions; such a pickle is not opened")
        raise ValueError("it ends early")

    def _follow_one(self, name: str, argument: Any) -> bool:
        stack = self._stack
        if name in _TEXT or name in _NUMBER:
            stack.append(argument)
        elif name in _CONSTANT:
            stack.append(_CONSTANT[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _TUPLE:
            stack[-_TUPLE[name] :] = [stack[-_TUPLE[name] :]]
        elif name in ("LIST", "TUPLE"):
            stack.append(self._since_mark())
        elif name == "DICT":
            stack.append(_paired(self._since_mark()))
        elif name in ("APPEND", "APPENDS"):
            values = [stack.pop()] if name == "APPEND" else self._since_mark()
            _as_list(stack[-1]).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._since_mark()
            stack[-1].update(_paired(values))
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        else:
            return name in ("PROTO", "FRAME")
        return True

    def _since_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]


def _as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("something is appended to what is no list")
    return value


def _paired(values: list[Any]) -> dict[Any, Any]:
    return dict(zip(values[::2], values[1::2], strict=True))


def _is_larger(value: Any, limit: int) -> bool:
    """Whether a value has more than `limit` parts: lists that hold one another again and again."""
    waiting, num = [value], 0
    while waiting:
        part = waiting.pop()
        num += 1
        if num > limit:
            return True
        if isinstance(part, list | dict):
            if len(part) + len(waiting) > limit:
                return True
            waiting.extend(part.values() if isinstance(part, dict) else part)
    return False
