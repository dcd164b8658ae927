"""Reads annotation files without trusting them: text, lists, CSV, JSON, JSON lines, and the checks that parsers share.

Everything wrong is a DatasetError that names the file and the line or entry. It knows no dataset.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from model.errors import DatasetError

HINT = "docs/datasets.md lists which files a dataset needs and where they come from."


def read_bytes(path: Path) -> bytes:
    """All of a file. Raises: DatasetError."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DatasetError(f"There is no file {path.name} in {path.parent}.", HINT) from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} can't be read: {error}.", HINT) from error


def read_text(path: Path) -> str:
    """A file's text; UTF-8, a byte-order mark is dropped. Raises: DatasetError with the line that is no UTF-8."""
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{path.name}, line {line}: not UTF-8 ({error.reason}).") from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of each line that isn't blank, numbered from 1. Raises: DatasetError."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def read_list(path: Path) -> list[str]:
    """One name a line; a name that comes again counts once. Raises: DatasetError."""
    names = [name_of(line.strip(), f"{path.name}, line {number}") for number, line in read_lines(path)]
    return list(dict.fromkeys(names))


def read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) of a CSV file whose first line names its columns; those wanted must be there.

    Raises: DatasetError, also where a row has more or fewer cells than the first line.
    """
    rows = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    header: list[str] | None = None
    try:
        for row in rows:
            place = f"{path.name}, line {rows.line_num}"
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = [cell.strip() for cell in row]
                if missing := [column for column in columns if column not in header]:
                    refuse(place, f"no column {', '.join(missing)} among {', '.join(header)[:80]!r}")
            elif len(row) != len(header):
                refuse(place, f"{len(row)} cells where {len(header)} are needed")
            else:
                yield place, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise DatasetError(f"{path.name}, line {rows.line_num}: not CSV ({error}).") from error
    if header is None:
        refuse(path.name, "the file is empty")


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises: DatasetError."""
    return _parsed(read_text(path), path.name)


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of each line. Raises: DatasetError."""
    for number, line in read_lines(path):
        place = f"{path.name}, line {number}"
        yield place, object_of(_parsed(line, place), place)


def refuse(place: str, what: str) -> NoReturn:
    """Raise the DatasetError for what is wrong there."""
    raise DatasetError(f"{place}: {what}.", HINT)


def object_of(value: object, place: str) -> dict[str, Any]:
    """The value, if it is a JSON object. Raises: DatasetError."""
    if not isinstance(value, dict):
        refuse(place, f"{_kind(value)} where an object is needed")
    return value


def list_of(value: object, place: str) -> list[Any]:
    """The value, if it is a JSON list. Raises: DatasetError."""
    if not isinstance(value, list):
        refuse(place, f"{_kind(value)} where a list is needed")
    return value


def field(entry: Mapping[str, Any], key: str, place: str) -> Any:
    """entry[key]. Raises: DatasetError if the key is not there."""
    if key not in entry:
        refuse(place, f"there is no {key!r}")
    return entry[key]


def text_of(value: object, place: str) -> str:
    """The value, if it is text that UTF-8 can hold; it may be empty, as a few official captions are.

    Raises: DatasetError.
    """
    if not isinstance(value, str):
        refuse(place, f"{_kind(value)} where text is needed")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        refuse(place, "half of a surrogate pair is no text")
    return value


def number_of(value: object, place: str) -> float:
    """The value, if it is a finite number, or text that spells one. Raises: DatasetError."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    refuse(place, f"{str(value)[:40]!r} where a number is needed")


def name_of(value: object, place: str) -> str:
    """The value, if it is a name that stays inside the folder of videos.

    Raises: DatasetError for an empty name, an absolute one, one with "..", a backslash or a control character.
    """
    name = text_of(value, place)
    if not name.strip():
        refuse(place, "a video's name is empty")
    is_outside = name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/") or "\\" in name
    if is_outside or any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        refuse(place, f"{name[:80]!r} is no name inside the folder of videos")
    return name


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{place}: not JSON: {error.msg} (line {error.lineno}, column {error.colno}).") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets in brackets
        raise DatasetError(f"{place}: not JSON that can be read: {error}.") from error


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else "something else")
