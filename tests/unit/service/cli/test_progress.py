"""How far `vidgrain index` is, as a terminal and as a file show it."""

from __future__ import annotations

import io
import os
import re
from dataclasses import replace

import pytest
from rich.console import Console

from indexer.records import Job, JobProgress, QueueProgress
from service.cli.printing import jobs_table, span, speed
from service.cli.progress import MOST_NAMED, Bars, Lines, Standing, display_on, shortened

HOSTILE = "a\x1b[31m film\r\nof a \x07 bell [bold]" + "!" * 40 + ".mp4"
QUEUE = QueueProgress(
    queued=30,
    running=2,
    succeeded=7,
    failed=1,
    cancelled=0,
    seconds_left=600.0,
    seconds_per_byte=0.5,
    x_real_time=12.34,
    frames_per_s=9.0,
    eta_s=200.0,
)


def job(number: int) -> Job:
    job = Job("j", "index_video", "v", "running", "encode", JobProgress(), 1, 3, 0.0, 1.0, None, None, None)
    progress = JobProgress(1, 4, 12, 30.0, 120.0)
    return replace(job, id=f"j{number}", progress=progress, working_since=90.0, updated_at=100.0)


def standing(num_in_work: int = 2) -> Standing:
    names = [HOSTILE, *(f"{n}.mp4" for n in range(1, num_in_work))]
    in_work = [(name, job(n)) for n, name in enumerate(names)]
    return Standing(total=40, settled=8, failed=1, in_work=in_work, queue=QUEUE)


def test_a_file_gets_plain_lines_even_where_colours_are_forced() -> None:
    out = io.StringIO()
    with display_on(Console(file=out, force_terminal=True, width=80)) as display:
        display.show(standing())
    assert isinstance(display, Lines)
    (line,) = out.getvalue().removesuffix("\n").split("\n")
    assert line.startswith("8 of 40, 12 x real time, about 4 min left, 1 failed; in work: a\ufffd[31m film")
    assert line.endswith(", 1.mp4 25 %") and line.isprintable()


def test_bars_are_for_terminals_that_can_move_their_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    ends = os.openpty()
    with os.fdopen(ends[0], "rb"), os.fdopen(ends[1], "w") as terminal:
        assert isinstance(display_on(Console(file=terminal)), Bars)
        monkeypatch.setenv("TERM", "dumb")
        assert isinstance(display_on(Console(file=terminal)), Lines)


def test_a_terminal_gets_one_bar_for_the_whole_and_a_line_for_each_file() -> None:
    lines = drawn(standing())
    assert [re.sub("[━╸╺ ]+", " ", line).strip() for line in lines[:1]] == [
        "indexing 21 % 8 of 40, 12 x real time, about 4 min left, 1 failed"
    ]
    assert re.fullmatch(r"  a\ufffd\[31m film\ufffd\ufffd.*…!!!!\.mp4 ━+ +25 % indexing, 3\.0 x real time *", lines[1])
    assert len(lines) == 3 and all(len(line) <= 80 for line in lines)


def test_a_few_of_many_files_in_work_are_named_and_the_rest_counted() -> None:
    lines = drawn(standing(MOST_NAMED + 3))
    assert len(lines) == 1 + MOST_NAMED + 1 and lines[-1].strip() == "and 3 more"
    out = io.StringIO()
    Lines(Console(file=out)).show(standing(MOST_NAMED + 3))
    assert out.getvalue().endswith("7.mp4 25 %, 3 more\n")


def test_what_has_ended_leaves_only_the_whole() -> None:
    out = io.StringIO()
    with Bars(Console(file=out, force_terminal=True, width=80)) as bars:
        bars.show(standing(MOST_NAMED + 3))
        bars.show(replace(standing(), settled=40, in_work=[]))
    last = plain(out.getvalue()).splitlines()[-1]
    assert "100 % 40 of 40, 12 x real time, 1 failed" in last


def test_files_that_are_not_in_the_queue_yet_count_in_what_is_left() -> None:
    assert standing().eta_s == 200.0
    assert replace(standing(), bytes_to_add=2000).eta_s == (600 + 1000) / 12.34
    unknown = replace(QUEUE, seconds_per_byte=None)
    assert replace(standing(), bytes_to_add=2000, queue=unknown).eta_s is None
    assert "left" not in replace(standing(), bytes_to_add=2000, queue=unknown).describe()


def test_a_file_in_work_counts_in_part() -> None:
    assert standing().fraction == (8 + 2 * 0.25) / 40
    assert Standing(total=0, settled=0, failed=0, in_work=[], queue=QUEUE).fraction == 1.0


def test_jobs_are_listed_with_their_speed_and_what_is_left() -> None:
    out = io.StringIO()
    queued = replace(job(2), status="queued", progress=JobProgress())
    Console(file=out, width=160).print(jobs_table([job(1), queued]))
    first, second = out.getvalue().splitlines()[3:5]
    assert [cell.strip() for cell in first.split("│")][5:8] == ["25 %", "3.0", "30 s"]
    assert [cell.strip() for cell in second.split("│")][5:8] == ["", "", ""]


@pytest.mark.parametrize(("name", "shown"), [("a.mp4", "a.mp4"), ("a" * 40 + ".mp4", "a" * 23 + "…aaaa.mp4")])
def test_a_long_name_keeps_its_beginning_and_its_suffix(name: str, shown: str) -> None:
    assert shortened(name) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (7.2, "8 s"), (99.0, "99 s"), (200.0, "4 min"), (7500.0, "2 h 5 min")]
)
def test_time_left_is_rounded_up_as_a_person_does(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


@pytest.mark.parametrize(
    ("times", "shown"), [(0.04, "0.04"), (0.949, "0.95"), (3.21, "3.2"), (9.96, "10"), (1234.5, "1,234")]
)
def test_a_speed_has_two_figures_or_more(times: float, shown: str) -> None:
    assert speed(times) == shown


def plain(text: str) -> str:
    """What a terminal shows of it, movements of the cursor and colours left out."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "\n")


def drawn(where: Standing) -> list[str]:
    """The lines of the bars on a terminal of 80 columns."""
    bars = Bars(Console(file=io.StringIO(), force_terminal=True, width=80))
    bars.show(where)
    out = io.StringIO()
    Console(file=out, width=80).print(bars._live.renderable)
    return out.getvalue().splitlines()
