"""The commands that run a service: `vidgrain serve`, `worker`, `demo`. main.py registers them."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.options import Data, Device, Model, made_folder, settings_of

if TYPE_CHECKING:
    from service.settings import Settings

PANEL = "Run"

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on.  [VIDGRAIN_HOST]")]
Port = Annotated[int | None, typer.Option("--port", help="Port to listen on.  [VIDGRAIN_PORT]")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    for command in (serve, worker, demo):
        app.command(rich_help_panel=PANEL)(command)


def serve(
    host: Host = None,
    port: Port = None,
    data: Data = None,
    model: Model = None,
    device: Device = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Only answer requests; index in another process.")
    ] = False,
) -> None:
    """Serve the page, the HTTP API and its docs, and index what is uploaded, until Ctrl-C."""
    from service.serving import bind
    from service.serving import serve as run

    settings = settings_of(host=host, port=port, data=data, model=model, device=device)
    listener = bind(settings.host, settings.port)
    log_to_stderr(settings)
    typer.echo(f"vidgrain: http://{settings.host}:{settings.port}  (API docs at /docs; Ctrl-C stops)", err=True)
    run(settings, listener, with_worker=settings.worker and not no_worker)


def worker(
    data: Data = None,
    model: Model = None,
    device: Device = None,
    parent_pid: Annotated[int | None, typer.Option("--parent-pid", hidden=True)] = None,
) -> None:
    """Index queued videos until SIGTERM or Ctrl-C. Several workers may share one data folder."""
    from service.worker_process import end_with_parent, yield_to_searches

    yield_to_searches()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if parent_pid is None:
        signal.signal(signal.SIGINT, lambda *_: stop.set())
    else:
        # Ctrl-C reaches the whole terminal group; the server that started this worker decides when it ends.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_with_parent(parent_pid, stop.set)
    settings = settings_of(data=data, model=model, device=device)
    log_to_stderr(settings)
    from service.opening import open_index
    from service.wake import Wake

    index = open_index(settings, default_threads=None)
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


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Folder for the clips and their index.")] = Path("demo"),
    host: Host = None,
    port: Port = None,
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Serve the page afterwards.")] = True,
    clips: Annotated[int, typer.Option("--clips", min=12, max=500, help="How many clips to draw.")] = 40,
) -> None:
    """Draw sample clips, index them with the bundled model, search them, and serve the page."""
    from service.cli.demo import run

    settings = settings_of(host=host, port=port, data=made_folder(folder) / "data", model="tiny")
    run(settings, folder, num_clips=clips, with_server=serve)


def log_to_stderr(settings: Settings) -> None:
    """Log as the settings say; stdout is for data."""
    from service.observability import configure_logging

    configure_logging(settings.log_level, settings.log_format)
