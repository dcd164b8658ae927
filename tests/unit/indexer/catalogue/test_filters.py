"""The filter language, compiled and run on a real catalogue."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from indexer.catalogue.filters import MAX_CONDITIONS, MAX_DEPTH, MAX_IN_VALUES, compile_filter
from indexer.errors import InvalidFilter
from tests.support.catalogues import MEDIA, SPEC, Catalogue, add, claim, features

METADATA: dict[str, dict[str, Any]] = {
    "a": {"tags": ["x", "y"], "year": 2020, "is_indoor": True, "camera": "north", "note": None},
    "b": {"tags": ["y"], "year": 2021.5, "is_indoor": False, "camera": "south", 'odd " key\\.$[0]': "v"},
    "c": {"tags": "x", "year": "2020", "is_indoor": 1, "deep": {"a": 1}, "": "empty", "é\n": ["ü"]},
    "d": {},
}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    with Catalogue(tmp_path_factory.mktemp("filters") / "catalogue.sqlite") as opened:
        opened.bind_model(SPEC)
        for n, (name, metadata) in enumerate(METADATA.items()):
            add(opened, name, metadata=metadata)
            if name != "d":
                media = replace(MEDIA, duration_s=10.0 * (n + 1), codec=("h264", "vp9", "av1")[n])
                opened.publish(claim(opened), media, features(1), SPEC.fingerprint)
        yield opened


def found(catalogue: Catalogue, filter: Any) -> str:
    """The names of the videos that pass, in one word."""
    return "".join(sorted(video.title for video in catalogue.list_videos(filter=filter)[0]))


@pytest.mark.parametrize(
    ("filter", "names"),
    [
        (None, "abcd"),
        ({}, "abcd"),
        ({"camera": "north"}, "a"),
        ({"camera": {"eq": "north"}}, "a"),
        ({"camera": {"ne": "north"}}, "bcd"),
        ({"camera": {"in": ["north", "south", 3, None]}}, "ab"),
        ({"camera": {"in": []}}, ""),
        ({"tags": "x"}, "ac"),
        ({"tags": {"in": ["x", "y"]}}, "abc"),
        ({"tags": {"ne": "x"}}, "bd"),
        ({"year": 2020}, "a"),
        ({"year": 2020.0}, "a"),
        ({"year": "2020"}, "c"),
        ({"year": {"gte": 2020, "lt": 2021.5}}, "a"),
        ({"year": {"gt": 2020}}, "b"),
        ({"year": {"lte": "2020"}}, "c"),
        ({"is_indoor": True}, "a"),
        ({"is_indoor": 1}, "c"),
        ({"is_indoor": {"in": [True, False]}}, "ab"),
        ({"note": None}, "a"),
        ({"note": {"exists": True}}, "a"),
        ({"camera": {"exists": False}}, "cd"),
        ({"deep": {"exists": True}}, "c"),
        ({"deep": {"eq": 1}}, ""),
        ({"": "empty"}, "c"),
        ({"é\n": "ü"}, "c"),
        ({'odd " key\\.$[0]': "v"}, "b"),
        ({"title": "a"}, "a"),
        ({"title": {"gte": "b"}}, "bcd"),
        ({"codec": {"in": ["h264", "av1"]}}, "ac"),
        ({"codec": None}, "d"),
        ({"codec": {"ne": "h264"}}, "bcd"),
        ({"duration_s": {"lte": 20}}, "ab"),
        ({"duration_s": {"gt": 10, "lt": 31}}, "bc"),
        ({"duration_s": {"exists": False}}, "d"),
        ({"width": 640, "height": {"gte": 360}, "fps": {"in": [25, 30]}}, "abc"),
        ({"size_bytes": 1}, "abcd"),
        ({"created_at": {"gt": 0}}, "abcd"),
        ({"created_at": {"gte": "2000-01-01T00:00:00Z", "lt": "9000-01-01"}}, "abcd"),
        ({"created_at": {"lt": "2000-01-01T00:00:00+14:00"}}, ""),
        ({"not": {"camera": "north"}}, "bcd"),
        ({"not": {"duration_s": {"lte": 20}}}, "cd"),
        ({"not": {}}, ""),
        ({"or": [{"camera": "north"}, {"codec": "av1"}]}, "ac"),
        ({"and": [{"tags": "x"}, {"tags": "y"}]}, "a"),
        ({"or": [{"camera": "north"}, {"not": {"tags": {"exists": True}}}], "duration_s": {"exists": True}}, "a"),
        ({"year": 10**30}, ""),
        ({"camera'; DROP TABLE videos; --": "x"}, ""),
        ({"camera": "'; DROP TABLE videos; --"}, ""),
    ],
)
def test_what_passes(catalogue: Catalogue, filter: Any, names: str) -> None:
    assert found(catalogue, filter) == names


@pytest.mark.parametrize(
    ("filter", "names_the_part"),
    [
        ([], "filter must be an object, not a list"),
        ("x", "filter must be an object, not text"),
        ({"a": {"like": "x"}}, r"filter\.a\.like is not an operator"),
        ({"a": {}}, r"filter\.a needs an operator"),
        ({"a": [1]}, r"filter\.a\.eq must be"),
        ({"a": {"in": "x"}}, r"filter\.a\.in must be a list, not text"),
        ({"a": {"in": [1, {}]}}, r"filter\.a\.in\[1\] must be"),
        ({"a": {"in": [0] * (MAX_IN_VALUES + 1)}}, "more than 1000"),
        ({"a": {"exists": 1}}, r"filter\.a\.exists must be true or false"),
        ({"a": {"gt": None}}, r"filter\.a\.gt must be a number or text, not null"),
        ({"a": {"gt": True}}, r"filter\.a\.gt must be a number or text"),
        ({"a": float("nan")}, r"filter\.a\.eq must be a finite number"),
        ({"a": 10**400}, r"filter\.a\.eq must be a finite number"),
        ({"duration_s": "long"}, r"filter\.duration_s\.eq must be a number"),
        ({"created_at": {"lt": "soon"}}, r"filter\.created_at\.lt must be a time in ISO 8601"),
        ({"codec": {"lt": 3}}, r"filter\.codec\.lt must be text"),
        ({"a": "x\0y"}, r"filter\.a\.eq holds characters"),
        ({"a\ud800": 1}, "holds characters"),
        ({"a": "x" * 3000}, "longer than 2000"),
        ({1: 2}, "must be named by text"),
        ({"or": []}, r"filter\.or must be a list of at least one"),
        ({"or": {"a": 1}}, r"filter\.or must be a list"),
        ({"or": [{"a": 1}, 7]}, r"filter\.or\[1\] must be an object, not a number"),
        ({"not": [1]}, r"filter\.not must be an object"),
        ({f"k{n}": n for n in range(MAX_CONDITIONS + 1)}, "more than 64"),
        ({"or": [{}] * 3000}, "more than 64"),
        (
            {"a": {"in": list(range(1000)), "eq": 1}, "b": {"in": list(range(1000))}, "c": {"in": [0] * 1000}},
            "4000 values",
        ),
    ],
)
def test_what_cannot_be_read_is_named(filter: Any, names_the_part: str) -> None:
    with pytest.raises(InvalidFilter, match=names_the_part):
        compile_filter(filter)


def test_depth_has_a_limit() -> None:
    filter: dict[str, Any] = {"a": 1}
    for _ in range(MAX_DEPTH):
        filter = {"not": filter}
    compile_filter(filter)
    with pytest.raises(InvalidFilter, match="nested deeper than 8"):
        compile_filter({"not": filter})


def test_the_largest_filter_that_is_allowed_runs(catalogue: Catalogue) -> None:
    filter = {"or": [{f"key {n}": {"in": [f"{n} {m}" for m in range(25)]}} for n in range(MAX_CONDITIONS // 2)]}
    assert found(catalogue, filter) == ""
    assert found(catalogue, {"title": {"in": ["a"] * MAX_IN_VALUES}}) == "a"


def test_neither_keys_nor_values_reach_the_sql() -> None:
    marker = "needle"
    clause = compile_filter({f"{marker}1": f"{marker}2", "or": [{f"{marker}3": {"in": [f"{marker}4"]}}]})
    assert marker not in clause.sql
    assert clause.sql.count("?") == len(clause.parameters)
    assert sqlite3.complete_statement(f"SELECT {clause.sql};")
