"""The commands about videos: `vidgrain index`, `search`, `videos`, `jobs`, `remove`. main.py registers them.

Each opens the index in one place. What it doesn't use is not loaded: lists need neither the model nor the vectors.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.options import Data, Device, Json, Model, settings_of

PANEL = "Videos"


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    for command in (index, search, videos, jobs, remove):
        app.command(rich_help_panel=PANEL)(command)


def index(
    paths: Annotated[list[Path], typer.Argument(help="Video files, and folders to search for them.", exists=True)],
    data: Data = None,
    model: Model = None,
    device: Device = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also try files again that failed before.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Index files and folders; each file that fails is reported with its reason. Exit status 1 if any failed."""
    from service.cli.indexing import find_videos, index_files
    from service.cli.printing import print_json, stderr
    from service.opening import open_index

    files = list(find_videos(paths))
    if not files:
        raise typer.BadParameter(f"no video files in {', '.join(str(p) for p in paths)}")
    settings = settings_of(data=data, model=model, device=device)
    with open_index(settings, default_threads=None) as opened:
        report = index_files(opened, files, retry_failed=retry_failed)
    for failure in report.failed:
        stderr.print(f"failed: {failure}", markup=False, soft_wrap=True)
    if as_json:
        print_json(report)
    else:
        typer.echo(
            f"{report.indexed} indexed, {report.already_there} already there, {len(report.failed)} failed"
            + (f", {report.waiting} waiting" if report.waiting else "")
            + f" in {report.took_s:.1f} s"
        )
    if report.waiting:
        raise typer.Exit(130)
    if report.failed:
        raise typer.Exit(1)


def search(
    query: Annotated[str | None, typer.Argument(help="A sentence that describes what to find.")] = None,
    video: Annotated[
        Path | None, typer.Option("--video", help="Find what looks like this clip.", exists=True, dir_okay=False)
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, max=1000, help="How many videos to show.")] = 10,
    exact: Annotated[bool, typer.Option("--exact", help="Score every segment, however many there are.")] = False,
    filter_json: Annotated[
        str | None, typer.Option("--filter", help='Conditions as JSON, e.g. \'{"duration_s": {"lte": 60}}\'.')
    ] = None,
    scorer: Annotated[
        str | None, typer.Option("--scorer", help="How to score, see docs/models.md; default: the model's own.")
    ] = None,
    data: Data = None,
    model: Model = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Search with a sentence, or with a clip: --video FILE."""
    from indexer.records import SearchOptions
    from service.cli.printing import answer_table, print_json, stderr, stdout
    from service.opening import open_index

    if (query is None) == (video is None):
        raise typer.BadParameter('give either a sentence or --video FILE, e.g. vidgrain search "a dog runs"')
    settings = settings_of(data=data, model=model, device=device)
    options = SearchOptions(
        top_k=top_k,
        recall="exact" if exact else "auto",
        candidates=settings.candidates,
        filter=_filter(filter_json),
        scorer=scorer,
    )
    with open_index(settings) as opened:
        answer = opened.search_video(video, options) if video else opened.search_text(query or "", options)
    for code, message in answer.warnings:
        stderr.print(f"warning: {message} ({code})", markup=False, soft_wrap=True)
    if as_json:
        from service.cli.local import LocalSearchResponse

        print_json(LocalSearchResponse.from_answer(answer, uuid.uuid4().hex))
    else:
        stdout.print(answer_table(answer, str(video or query)))


def videos(
    data: Data = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most, newest first.")] = 1000,
    as_json: Json = False,
) -> None:
    """List the videos of the index, and why some of them failed."""
    from service.cli.printing import print_json, stdout, videos_table
    from service.opening import open_index

    with open_index(settings_of(data=data)) as opened:
        found, next_cursor = _pages(lambda size, cursor: opened.list(limit=size, cursor=cursor), limit)
    if as_json:
        from service.cli.local import LocalVideoPage

        print_json(LocalVideoPage.from_records(found, next_cursor))
    else:
        stdout.print(videos_table(found))


def jobs(
    data: Data = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most, newest first.")] = 100,
    as_json: Json = False,
) -> None:
    """List indexing jobs: their progress, and why some of them failed."""
    from service.cli.printing import jobs_table, print_json, stdout
    from service.opening import open_index

    with open_index(settings_of(data=data)) as opened:
        found, next_cursor = _pages(lambda size, cursor: opened.jobs(limit=size, cursor=cursor), limit)
    if as_json:
        from service.responses.jobs import JobPage, JobResponse

        print_json(JobPage(jobs=[JobResponse.from_record(j, "") for j in found], next_cursor=next_cursor))
    else:
        stdout.print(jobs_table(found))


def remove(
    video_ids: Annotated[list[str], typer.Argument(help="Ids, as `vidgrain videos` prints them.")],
    data: Data = None,
) -> None:
    """Remove videos from the index. Uploaded files are deleted; files indexed from a folder stay where they are."""
    from service.opening import open_index

    with open_index(settings_of(data=data)) as opened:
        for video_id in video_ids:
            opened.remove(video_id)
            typer.echo(video_id)


def _filter(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"--filter is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise typer.BadParameter("--filter must be a JSON object")
    return value


def _pages(read: Any, limit: int) -> tuple[list[Any], str | None]:
    """Read a listing page by page until `limit` items or the end; the items, and the cursor after them."""
    found: list[Any] = []
    cursor: str | None = None
    while len(found) < limit:
        page, cursor = read(min(limit - len(found), 200), cursor)
        found += page
        if cursor is None:
            break
    return found, cursor
