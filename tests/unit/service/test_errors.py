"""Every error of every floor has a status, and one body."""

from __future__ import annotations

import re
from pathlib import Path

import indexer.errors
import model.errors
import service.errors
from model.errors import VidgrainError
from service.errors import STATUSES, InvalidRequest, MalformedBody, problem, status_and_title


def kinds(root: type[VidgrainError]) -> list[type[VidgrainError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in kinds(child))]


def test_every_error_has_a_row_of_its_own_floor_and_a_code() -> None:
    assert indexer.errors and model.errors
    for kind in kinds(VidgrainError):
        status, title = status_and_title(kind("x"))
        assert 400 <= status < 600 and title
        assert kind.code == kind.code.lower().replace(" ", "_")


def test_the_nearest_ancestor_in_the_table_counts() -> None:
    assert status_and_title(indexer.errors.DecodeTimeout("x"))[0] == STATUSES[indexer.errors.MediaError][0]
    assert status_and_title(MalformedBody("x"))[0] == 400
    assert status_and_title(InvalidRequest("x"))[0] == 422
    assert status_and_title(indexer.errors.NotFound("x"))[0] == 404
    assert status_and_title(indexer.errors.StorageFull("x"))[0] == 507


def test_a_problem_names_the_file_and_no_folder() -> None:
    error = indexer.errors.FileMissing("There is no such file.", "Put it back.", path=Path("/srv/data/a b.mp4"))
    assert problem(error, "id")["detail"] == "a b.mp4: There is no such file."
    assert str(error) == "/srv/data/a b.mp4: There is no such file. Put it back."


def test_a_problem_says_what_and_how_on() -> None:
    body = problem(InvalidRequest("top_k: no", "use less", fields=[("top_k", "no")]), "id-1")
    assert body == {
        "type": "urn:vidgrain:problem:invalid_request",
        "title": "The request can't be used as it is",
        "status": 422,
        "detail": "top_k: no",
        "code": "invalid_request",
        "retryable": False,
        "request_id": "id-1",
        "hint": "use less",
        "errors": [{"field": "top_k", "message": "no"}],
    }
    assert problem(indexer.errors.StorageFull("full"), "id-2")["retryable"] is True


def test_the_docstring_draws_the_whole_tree() -> None:
    drawn = service.errors.__doc__ or ""
    for kind in kinds(service.errors.ServiceError)[1:]:
        if kind.__module__ == "service.errors":
            assert kind.__name__ in drawn and kind.code in drawn


def test_the_documented_codes_have_the_documented_statuses() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
    rows = {
        code: int(row.split("|")[1])
        for row in page.splitlines()
        if re.match(r"\| \d{3} \|", row)
        for code in re.findall(r"`(\w+)`", row)
    }
    known: dict[str, set[int]] = {}
    for kind in kinds(VidgrainError):
        known.setdefault(kind.code, set()).add(status_and_title(kind("x"))[0])
    assert len(rows) > 20
    for code, status in rows.items():
        assert status in known[code], code
    assert {kind.code for kind in kinds(service.errors.ServiceError)[1:]} <= set(rows)
