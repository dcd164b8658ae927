"""`vidgrain`: the command line. Data goes to stdout, everything else to stderr.

The commands are grouped as `vidgrain --help` shows them: videos (library.py), running a service (server.py), models
(models.py), and here what concerns the installation. Each is thin: it builds Settings, opens the index and calls it.
Heavy libraries are imported inside the commands, so that `vidgrain --help` answers at once.
Exit status: 0 done, 1 done in part (a file failed, a check failed), 2 an error, reported in one or two lines.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer

from model.errors import VidgrainError
from service.cli import library, models, server
from service.cli.options import Data, Device, Json, Model, settings_of

PANEL = "This installation"

app = typer.Typer(
    name="vidgrain",
    help="Self-hosted video-text search: type a sentence or drop a clip, and land on the right second.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

library.register(app)
server.register(app)
models.register(app)


@app.command(rich_help_panel=PANEL)
def doctor(data: Data = None, model: Model = None, device: Device = None, as_json: Json = False) -> None:
    """Check what is installed and whether it works here. Exit status 1 if something required does not."""
    from service.cli.doctor import examine, report_table
    from service.cli.printing import print_json, stdout

    checks = examine(settings_of(data=data, model=model, device=device))
    if as_json:
        print_json({"is_ok": all(c.status != "fail" for c in checks), "checks": checks})
    else:
        stdout.print(report_table(checks))
    if any(c.status == "fail" for c in checks):
        raise typer.Exit(1)


@app.command(rich_help_panel=PANEL)
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(installed("vidgrain"))


def commands() -> dict[str, set[str]]:
    """Every command with its long options. Tests check the documentation and docker-compose.yml against it."""
    group: Any = typer.main.get_command(app)
    return {
        name: {o for p in command.params for o in [*p.opts, *p.secondary_opts] if o.startswith("--")}
        for name, command in group.commands.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: our own errors become one or two lines on stderr and exit status 2.

    arguments: those of the process if None.
    """
    try:
        app(arguments)
    except VidgrainError as error:
        typer.echo(f"error: {error.describe()}", err=True)
        if error.hint:
            typer.echo(error.hint, err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
