"""JSON bodies: strict, bounded, and complaining about the right field."""

from __future__ import annotations

import pytest

from service.bodies import parse, validate
from service.errors import InvalidRequest, MalformedBody
from service.requests import AddByPath, ChangeVideo, StoredSearch, TextSearch


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"\xff", b"nan", b'{"a": NaN}', b'{"a": 1e999}', b'{"a": "\\ud800"}', b"[" * 5000, b"1" * 5000,
        b'{"a": 1} x',
    ],
)  # fmt: skip
def test_what_is_no_json_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedBody):
        parse(text, "body")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"query": "a", "colour": 1}', "colour"),
        ('{"query": "a", "then": "b"}', "then"),
        ('{"query": 5}', "query"),
        ("{}", "query"),
        ('{"query": "a", "top_k": 0}', "top_k"),
        ('{"query": "a", "top_k": "10"}', "top_k"),
        ('{"query": "a", "top_k": true}', "top_k"),
        ('{"query": "a", "top_k": 1e9}', "top_k"),
        ('{"query": "a", "recall": {"mode": "fast"}}', "recall.mode"),
        ('{"query": "a", "recall": {"candidates": 100000000}}', "recall.candidates"),
        ('{"query": "a", "recall": {"depth": 1}}', "recall.depth"),
        ('{"query": "a", "filter": []}', "filter"),
        ('{"query": "a", "video_ids": [1]}', "video_ids.0"),
        ("[]", "body"),
        ("null", "body"),
    ],
)
def test_the_wrong_field_is_named(text: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        validate(text, TextSearch, "body")
    assert field in [name for name, _ in caught.value.fields]
    assert caught.value.message.startswith(field)


def test_an_unknown_field_is_said_to_be_unknown() -> None:
    with pytest.raises(InvalidRequest, match="exclude: no such field"):
        validate('{"query": "a", "exclude": "b"}', TextSearch, "body")


def test_ranges_run_forward() -> None:
    with pytest.raises(InvalidRequest, match="end_s must be greater"):
        validate('{"video_id": "a", "start_s": 2, "end_s": 2}', StoredSearch, "body")
    assert validate('{"video_id": "a", "start_s": 2}', StoredSearch, "body").start_s == 2.0


def test_a_change_changes_something_and_nothing_is_null() -> None:
    for text in ("{}", '{"title": null}', '{"title": ""}', '{"metadata": []}', '{"title": "a\\u0000b"}'):
        with pytest.raises(InvalidRequest):
            validate(text, ChangeVideo, "body")
    assert validate('{"title": "x"}', ChangeVideo, "body").model_dump(exclude_unset=True) == {"title": "x"}


def test_metadata_is_bounded() -> None:
    with pytest.raises(InvalidRequest, match="metadata"):
        validate('{"path": "a", "metadata": {"a": "%s"}}' % ("x" * 70_000), AddByPath, "body")


def test_options_reach_the_index() -> None:
    text = '{"query": "a", "top_k": 3, "recall": {"mode": "exact"}, "video_ids": ["v"], "filter": {"x": 1}}'
    options = validate(text, TextSearch, "body").options(77)
    assert (options.top_k, options.recall, options.candidates) == (3, "exact", 77)
    assert options.video_ids == ("v",) and options.filter == {"x": 1}
    assert validate('{"query": "a", "recall": {"candidates": 5}}', TextSearch, "body").options(77).candidates == 5
