"""How the command line shows results: tables for people, JSON for programs, a progress bar. Knows no command."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

from indexer.progress import eta_s, fraction, x_real_time

if TYPE_CHECKING:
    from indexer.records import Job, SearchAnswer, Video
    from model.installed import InstalledModel

stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def print_json(value: object) -> None:
    """Print one JSON document on stdout: a response model, a dataclass, or plain values."""
    sys.stdout.write(json_text(value))


def json_text(value: object) -> str:
    """A JSON document that ends in a line break."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=to_jsonable_python) + "\n"


@contextmanager
def followed() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr; call the function that it yields with (what, done, total)."""
    with Progress(console=stderr) as bar:
        tasks: dict[str, TaskID] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=total)

        yield update


def clock(seconds: float) -> str:
    """Seconds as a person reads a player: 7.2 -> '0:07.2', 3725 -> '1:02:05.0'."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def span(seconds: float) -> str:
    """Seconds as a person estimates them: 7.2 -> '8 s', 200 -> '4 min', 7500 -> '2 h 5 min'; rounded up."""
    whole = math.ceil(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = math.ceil(whole / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def speed(times: float) -> str:
    """A rate in two figures or more: 0.04 -> '0.04', 3.21 -> '3.2', 41.7 -> '42'."""
    return f"{times:.2f}" if times < 0.95 else f"{times:.1f}" if times < 9.95 else f"{times:,.0f}"


def answer_table(answer: SearchAnswer, title: str) -> Table:
    """Hits as rows: rank, score, video, best second and the stretch around it."""
    table = Table(title=_plain(title), title_justify="left", title_style="bold")
    for heading, justify in (("rank", "right"), ("score", "right"), ("video", "left"), ("best second", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("moment", justify="right")
    for hit in answer.hits:
        best = hit.moments[0] if hit.moments else None
        table.add_row(
            str(hit.rank),
            f"{hit.score:.3f}",
            _plain(hit.video.title),
            clock(best.best_s) if best else "",
            f"{clock(best.start_s)} - {clock(best.end_s)}" if best else "",
        )
    return table


def videos_table(videos: Sequence[Video]) -> Table:
    """Videos as rows; a failed one with its reason."""
    table = Table("id", "status", "length", "segments", "title", "reason")
    for video in videos:
        length = clock(video.media.duration_s) if video.media else ""
        reason = f"{video.error_code}: {video.error_message}" if video.error_code else ""
        table.add_row(video.id, video.status, length, str(video.num_segments), _plain(video.title), _plain(reason))
    return table


def jobs_table(jobs: Sequence[Job]) -> Table:
    """Jobs as rows; a failed one with its reason."""
    table = Table("id", "video", "status", "stage", "progress", "x real time", "left", "attempt", "reason")
    for job in jobs:
        reason = f"{job.error_code}: {job.error_message}" if job.error_code else ""
        progress = f"{100 * fraction(job):.0f} %" if job.status != "queued" else ""
        pace, left_s = x_real_time(job), eta_s(job)
        rate, left = "" if pace is None else speed(pace), "" if left_s is None else span(left_s)
        attempt = f"{job.attempt}/{job.max_attempts}"
        table.add_row(job.id, job.video_id, job.status, job.stage, progress, rate, left, attempt, _plain(reason))
    return table


def models_table(models: Sequence[InstalledModel], served: InstalledModel) -> Table:
    """Models as rows, the one that the settings name marked; a damaged one with its reason."""
    table = Table("", "model", "kind", "temporal", "frames", "words", "image", "width", "scorers", "reason")
    for model in models:
        numbers = (model.num_frames, model.num_words, model.image_size, model.embed_dim)
        table.add_row(
            "*" if model is served else "",
            model.name,
            model.kind or "",
            model.temporal or "",
            *("" if number is None else str(number) for number in numbers),
            ", ".join(model.scorers),
            f"{model.error.code}: {model.error.describe()}" if model.error else "",
        )
    return table


def recalls_table(result: Mapping[str, Any]) -> Table:
    """An evaluation as rows: each direction and slice, and below them the papers' rows of that dataset, marked so."""
    about = f"{result['model']} on {result['dataset']}, {result['num_texts']:,} texts, {result['num_videos']:,} videos"
    table = Table(title=Text(about), title_justify="left", title_style="bold")
    for heading in ("what", "R@1", "R@5", "R@10", "R@50", "MdR", "MnR"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for way in _WAYS:
        table.add_row(way, *_figures(result[way]))
    for name, slice_ in result["slices"].items():
        table.add_row(name, *_figures(slice_["text_to_video"]))
    for way, words in _WAYS.items():
        if result["published"]:
            table.add_section()
        for row in result["published"]:
            name = f"published, {words}: {row['model']} {row['towers']} ({row['source']})"
            table.add_row(Text(name), *_figures(row[way]), style="dim")
    return table


def evaluation_notes(result: Mapping[str, Any]) -> list[str]:
    """What to know besides the figures: differences from the protocol, what is missing, what was kept."""
    notes = [f"warning: {text}" for text in result["warnings"]]
    missing, unreadable, cache = result["missing"], result["unreadable"], result["cache"]
    if missing["count"]:
        notes.append(_counted(missing["count"], "missing", missing["names"]))
    if unreadable["count"]:
        notes.append(_counted(unreadable["count"], "unreadable", list(unreadable["reasons"].values()), "; "))
    if cache["folder"] is not None:
        kept = cache["num_read"] + cache["num_written"]
        notes.append(
            f"features: {cache['num_read']:,} of {result['num_videos']:,} videos from the cache; {kept:,} kept, "
            f"{cache['size_bytes'] / 2**20:.1f} MiB, in {cache['folder']}"
        )
    if result["published"]:
        notes.append("Rows marked published are the papers' own figures; they were not measured here.")
    return notes


def _plain(text: str) -> Text:
    """What other people wrote, as it is: nothing in it is markup, and nothing moves a terminal's cursor."""
    return Text("".join(char if char.isprintable() else "\ufffd" for char in text))


_WAYS = {"text_to_video": "text to video", "video_to_text": "video to text"}


def _figures(row: Mapping[str, float]) -> list[str]:
    recalls = [f"{row[k]:.3f}" if k in row else "" for k in ("r1", "r5", "r10", "r50")]
    return recalls + [f"{row[k]:.1f}" if k in row else "" for k in ("mdr", "mnr")]


def _counted(count: int, what: str, names: Sequence[str], comma: str = ", ") -> str:
    rest = f"{comma}and {count - len(names)} more" if count > len(names) else ""
    return f"{count} {what}, left out: {comma.join(names)}{rest}"
