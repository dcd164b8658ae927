"""Titles, queries and reasons stand in a table as they were written, and move no terminal's cursor."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from indexer.records import Hit, Job, JobProgress, SearchAnswer, Video
from service.cli.printing import answer_table, jobs_table, videos_table

HOSTILE = ["a [bold]film", "a film [/x]", "a [red]film[/red]"]
VIDEO = Video("v", "0" * 64, "", Path("/a.mp4"), False, 1, {}, "failed", 0.0, None, 0, None, error_code="internal")
JOB = Job("j", "index_video", "v", "failed", "done", JobProgress(), 1, 3, 0.0, None, None, "internal", None)


def rows(table: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(table)
    return out.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_square_brackets_in_a_title_a_query_or_a_reason_are_shown(text: str) -> None:
    found = replace(VIDEO, title=text, error_message=text)
    answer = SearchAnswer((Hit(1, found, 0.5, None, {}, ()),), 1, 1, {}, {})
    assert rows(answer_table(answer, text)).count(text) == 2
    assert rows(videos_table([found])).count(text) == 2
    assert text in rows(jobs_table([replace(JOB, error_message=text)]))


def test_a_title_moves_no_cursor() -> None:
    shown = rows(videos_table([replace(VIDEO, title="a\x1b[31m film\r\nof a \x07 bell\t!")]))
    assert "a\ufffd[31m film\ufffd\ufffdof a \ufffd bell\ufffd!" in shown
