"""The commands about models: `vidgrain convert`. service/cli.py registers them on its app.

Thin as those: heavy libraries are imported inside. Data goes to stdout, everything else to stderr.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(convert)


def convert(
    source: Annotated[str, typer.Argument(help="A model's name, a file of any layout, or a folder.")],
    target: Annotated[Path, typer.Argument(help="A folder, or a file ending in .safetensors (official: also .pt).")],
    to: Annotated[
        str | None,
        typer.Option("--to", help="vidgrain (a folder), official, openai, open_clip, hugging_face (folder or file)."),
    ] = None,
    arch: Annotated[
        str | None, typer.Option("--arch", help="The open_clip architecture, where the file can't tell it.")
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="fp32 or fp16.")] = "fp32",
    towers_only: Annotated[bool, typer.Option("--towers-only", help="Leave temporal encoder and head behind.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Write a model in another layout: ours, the papers' official one, OpenAI's, open_clip's or Hugging Face's."""
    from service.convert import DTYPES, TARGETS
    from service.convert import convert as run
    from service.printing import print_json, stderr

    if to is not None and to not in TARGETS:
        raise typer.BadParameter(f"{to!r} is none of {', '.join(TARGETS)}", param_hint="--to")
    if dtype not in DTYPES:
        raise typer.BadParameter(f"{dtype!r} is none of {', '.join(DTYPES)}", param_hint="--dtype")
    done = run(
        source,
        target,
        to=to,
        architecture=arch,
        dtype=dtype,
        is_towers_only=towers_only,
    )
    for note in done.notes:
        stderr.print(f"note: {note}", markup=False, soft_wrap=True)
    if as_json:
        print_json(done.as_dict())
    else:
        typer.echo(f"{done.target}: {done.layout}, {done.num_tensors} tensors, {done.size_bytes / 2**20:.1f} MiB")
