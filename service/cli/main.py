"""`vidgrain`: the command line. Data goes to stdout, everything else to stderr.

Each command is thin: it builds Settings, opens the index and calls it. Heavy libraries are imported inside the
commands, so that `vidgrain --help` answers at once.
Exit status: 0 done, 1 done in part (a file failed, a check failed), 2 an error said in words.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model.errors import VidgrainError
from service.cli import models as cli_models
from service.cli.options import Data, Device, Json, Model
from service.cli.options import made_folder as _made
from service.cli.options import settings_of as _settings

if TYPE_CHECKING:
    from service.settings import Settings

app = typer.Typer(
    name="vidgrain",
    help="Self-hosted video-text search: type a sentence or drop a clip, and land on the right second.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

cli_models.register(app)

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on.  [VIDGRAIN_HOST]")]
Port = Annotated[int | None, typer.Option("--port", help="Port to listen on.  [VIDGRAIN_PORT]")]


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    data: Data = None,
    model: Model = None,
    device: Device = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Only answer; another process indexes.")] = False,
) -> None:
    """Serve the API, its docs and the page, with a worker beside it, until Ctrl-C."""
    from service.serving import bind
    from service.serving import serve as run

    settings = _settings(host=host, port=port, data=data, model=model, device=device)
    listener = bind(settings.host, settings.port)
    _log(settings)
    typer.echo(f"vidgrain: http://{settings.host}:{settings.port}  (docs at /docs, Ctrl-C ends)", err=True)
    run(settings, listener, with_worker=settings.worker and not no_worker)


@app.command()
def worker(
    data: Data = None,
    model: Model = None,
    device: Device = None,
    parent_pid: Annotated[int | None, typer.Option("--parent-pid", hidden=True)] = None,
) -> None:
    """Index what is queued, until SIGTERM or Ctrl-C. Several may run on one data folder."""
    from service.worker_process import end_with_parent

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if parent_pid is None:
        signal.signal(signal.SIGINT, lambda *_: stop.set())
    else:
        # Ctrl-C reaches the whole terminal group; the server that started us says when to end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_with_parent(parent_pid, stop.set)
    settings = _settings(data=data, model=model, device=device)
    _log(settings)
    from service.app import open_index
    from service.wake import Wake

    index = open_index(settings)
    wake = Wake(settings.redis_url)

    def give_back_the_job() -> None:
        stop.wait()
        index.stop_decoding()

    threading.Thread(target=give_back_the_job, daemon=True).start()
    try:
        index.worker(wait=wake.wait if settings.redis_url else None, on_published=wake.published).run(stop)
    finally:
        wake.close()
        index.close()


@app.command()
def index(
    paths: Annotated[list[Path], typer.Argument(help="Video files, and folders to look through.", exists=True)],
    data: Data = None,
    model: Model = None,
    device: Device = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")] = False,
    as_json: Json = False,
) -> None:
    """Index files and folders, with a progress bar and the reason of every failure. Exit status 1 if any failed."""
    from service.app import open_index
    from service.cli.indexing import find_videos, index_files
    from service.cli.printing import print_json, stderr

    files = list(find_videos(paths))
    if not files:
        raise typer.BadParameter(f"no video files in {', '.join(str(p) for p in paths)}")
    opened = open_index(_settings(data=data, model=model, device=device))
    try:
        report = index_files(opened, files, retry_failed=retry_failed)
    finally:
        opened.close()
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


@app.command()
def search(
    query: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    video: Annotated[
        Path | None, typer.Option("--video", help="Look for what this clip shows.", exists=True, dir_okay=False)
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, max=1000, help="How many videos.")] = 10,
    exact: Annotated[bool, typer.Option("--exact", help="Score everything instead of the candidates.")] = False,
    filter_json: Annotated[
        str | None, typer.Option("--filter", help='JSON, e.g. \'{"duration_s": {"lte": 60}}\'.')
    ] = None,
    scorer: Annotated[
        str | None, typer.Option("--scorer", help="How to score: docs/models.md; the model's own if not given.")
    ] = None,
    data: Data = None,
    model: Model = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Search with a sentence, or with --video FILE."""
    from indexer.records import SearchOptions
    from service.app import open_index
    from service.cli.local import LocalSearchResponse
    from service.cli.printing import answer_table, print_json, stderr, stdout

    if (query is None) == (video is None):
        raise typer.BadParameter('give either a sentence or --video FILE, e.g. vidgrain search "a dog runs"')
    wanted = _filter(filter_json)
    settings = _settings(data=data, model=model, device=device)
    opened = open_index(settings)
    try:
        options = SearchOptions(
            top_k=top_k,
            recall="exact" if exact else "ann",
            candidates=settings.candidates,
            filter=wanted,
            scorer=scorer,
        )
        answer = opened.search_video(video, options) if video else opened.search_text(query or "", options)
    finally:
        opened.close()
    for code, message in answer.warnings:
        stderr.print(f"warning: {message} ({code})", markup=False, soft_wrap=True)
    if as_json:
        print_json(LocalSearchResponse.from_answer(answer, uuid.uuid4().hex))
    else:
        stdout.print(answer_table(answer, str(video or query)))


@app.command()
def videos(
    data: Data = None,
    model: Model = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, newest first.")] = 1000,
    as_json: Json = False,
) -> None:
    """List what is indexed."""
    from service.app import open_index
    from service.cli.local import LocalVideoPage
    from service.cli.printing import print_json, stdout, videos_table

    opened = open_index(_settings(data=data, model=model))
    try:
        found, next_cursor = _pages(lambda size, cursor: opened.list(limit=size, cursor=cursor), limit)
    finally:
        opened.close()
    if as_json:
        print_json(LocalVideoPage.from_records(found, next_cursor))
    else:
        stdout.print(videos_table(found))


@app.command()
def remove(
    video_ids: Annotated[list[str], typer.Argument(help="Ids as `vidgrain videos` prints them.")],
    data: Data = None,
    model: Model = None,
) -> None:
    """Take videos out of the index. Files outside the data folder are left where they are."""
    from service.app import open_index

    opened = open_index(_settings(data=data, model=model))
    try:
        for video_id in video_ids:
            opened.remove(video_id)
            typer.echo(video_id)
    finally:
        opened.close()


@app.command()
def jobs(
    data: Data = None,
    model: Model = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, newest first.")] = 100,
    as_json: Json = False,
) -> None:
    """List indexing jobs, with the reason of each failure."""
    from service.app import open_index
    from service.cli.printing import jobs_table, print_json, stdout
    from service.responses.jobs import JobPage, JobResponse

    opened = open_index(_settings(data=data, model=model))
    try:
        found, next_cursor = _pages(lambda size, cursor: opened.jobs(limit=size, cursor=cursor), limit)
    finally:
        opened.close()
    if as_json:
        print_json(JobPage(jobs=[JobResponse.from_record(j, "") for j in found], next_cursor=next_cursor))
    else:
        stdout.print(jobs_table(found))


@app.command("train-tiny")
def train_tiny(
    out: Annotated[Path, typer.Option("--out", help="Folder for config.json, model.safetensors and the rest.")] = Path(
        "tiny-model"
    ),
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Training steps at most.")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", min=0.1, help="Minutes at most.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Same seed and device, same weights.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Train the bundled tiny model on drawn clips; the defaults are its recipe."""
    from dataclasses import asdict

    from model.tiny.recipe import StepReport, TinyTraining, train
    from service.cli.printing import print_json, stderr

    def show(step: StepReport) -> None:
        stderr.print(
            f"step {step.step}/{step.total_steps}  loss {step.loss:.3f}  accuracy in batch {step.accuracy:.3f}  "
            f"{step.elapsed_s / 60:.1f} min"
        )

    _made(out)
    given = {"steps": steps, "max_minutes": minutes, "seed": seed, "device": _settings(device=device).device}
    known = {name: value for name, value in given.items() if value is not None}
    report = train(out, TinyTraining(**known), show)  # type: ignore[arg-type]
    if as_json:
        print_json({"folder": out, **asdict(report)})
    else:
        typer.echo(f"{out}: measure it with  vidgrain evaluate --model {out}")


@app.command()
def doctor(data: Data = None, model: Model = None, device: Device = None, as_json: Json = False) -> None:
    """Say what is installed and what works here. Exit status 1 if something that is needed does not."""
    from service.cli.doctor import examine, report_table
    from service.cli.printing import print_json, stdout

    checks = examine(_settings(data=data, model=model, device=device))
    if as_json:
        print_json({"is_ok": all(c.status != "fail" for c in checks), "checks": checks})
    else:
        stdout.print(report_table(checks))
    if any(c.status == "fail" for c in checks):
        raise typer.Exit(1)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where the clips and their index go.")] = Path("demo"),
    host: Host = None,
    port: Port = None,
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Serve the page afterwards.")] = True,
    clips: Annotated[int, typer.Option("--clips", min=12, max=500, help="How many clips to draw.")] = 40,
) -> None:
    """Draw sample clips, index them with the bundled model, search them, and serve the page."""
    from service.cli.demo import run

    settings = _settings(host=host, port=port, data=_made(folder) / "data", model="tiny")
    run(settings, folder, num_clips=clips, with_server=serve)


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(installed("vidgrain"))


def commands() -> dict[str, set[str]]:
    """Every command with its long options; the documentation and docker-compose.yml are held to it by tests."""
    group: Any = typer.main.get_command(app)
    return {
        name: {o for p in command.params for o in [*p.opts, *p.secondary_opts] if o.startswith("--")}
        for name, command in group.commands.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: errors made on purpose become two lines on stderr and exit status 2. None: of the process."""
    try:
        app(arguments)
    except VidgrainError as error:
        typer.echo(f"error: {error.describe()}", err=True)
        if error.hint:
            typer.echo(error.hint, err=True)
        sys.exit(2)


def _log(settings: Settings) -> None:
    from service.observability import configure_logging

    configure_logging(settings.log_level, settings.log_format)


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


if __name__ == "__main__":
    main()
