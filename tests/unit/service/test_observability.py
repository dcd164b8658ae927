"""One event, one line; the request's id is on it; a foreign id can't write into the log."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from service.observability import configure_logging, new_request_id, request_id_var

NAMES = ("vidgrain", "service", "indexer", "model", "uvicorn", "uvicorn.access", "uvicorn.error")


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    before = [
        (logging.getLogger(n), logging.getLogger(n).__dict__.copy(), list(logging.getLogger(n).handlers)) for n in NAMES
    ]
    yield
    for logger, state, handlers in before:
        logger.setLevel(state["level"])
        logger.propagate = state["propagate"]
        logger.handlers[:] = handlers


def test_json_lines_carry_fields_and_the_request_id() -> None:
    out = io.StringIO()
    configure_logging("info", "json", out)
    token = request_id_var.set("req-7")
    try:
        logging.getLogger("vidgrain.test").info("job_failed", extra={"job_id": "j", "what": {1, 2}, "text": "a\nb"})
    finally:
        request_id_var.reset(token)
    logging.getLogger("vidgrain.test").debug("too_small")
    (line,) = out.getvalue().splitlines()
    event = json.loads(line)
    assert event["event"] == "job_failed" and event["request_id"] == "req-7" and event["job_id"] == "j"
    assert event["level"] == "info" and event["logger"] == "vidgrain.test" and event["text"] == "a\nb"


def test_a_traceback_stays_on_its_line() -> None:
    out = io.StringIO()
    configure_logging("info", "json", out)
    try:
        raise ValueError("odd \ud800")
    except ValueError:
        logging.getLogger("indexer.x").exception("broke")
    (line,) = out.getvalue().splitlines()
    assert "ValueError" in json.loads(line)["error"]


def test_text_is_for_reading() -> None:
    out = io.StringIO()
    configure_logging("warning", "text", out)
    logging.getLogger("vidgrain.test").warning("worker_died", extra={"pid": 4})
    assert out.getvalue().rstrip().endswith("warning worker_died pid=4")


def test_uvicorn_speaks_the_same_way_and_once() -> None:
    out = io.StringIO()
    configure_logging("info", "json", out)
    configure_logging("info", "json", out)
    logging.getLogger("uvicorn.error").info("Started")
    logging.getLogger("uvicorn.access").info("GET /")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["Started"]


@pytest.mark.parametrize("good", ["a", "3f-9_x.1", "x" * 64])
def test_a_harmless_id_is_kept(good: str) -> None:
    assert new_request_id(good) == good


@pytest.mark.parametrize("bad", [None, "", "x" * 65, "a b", "a\nb", 'a"', "ä", "a\n"])
def test_another_id_is_replaced(bad: str | None) -> None:
    assert new_request_id(bad) != bad
    assert new_request_id(bad) != new_request_id(bad)


def test_text_lines_stay_one_line_whatever_is_in_them() -> None:
    out = io.StringIO()
    configure_logging("info", "text", out)
    path = "/a\n2026-01-01T00:00:00Z info forged \x1b[2J \x9b \u2028é"
    logging.getLogger("vidgrain.test").info("request_served", extra={"path": path})
    (line,) = out.getvalue().splitlines()
    assert line.endswith(r"path=/a\n2026-01-01T00:00:00Z info forged \x1b[2J \x9b \u2028é")
