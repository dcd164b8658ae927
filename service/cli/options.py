"""What the commands share: options that mean the same everywhere, and the settings that they override."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.settings import Settings

Data = Annotated[Path | None, typer.Option("--data", help="Data folder.  [VIDGRAIN_DATA]")]
Model = Annotated[
    str | None,
    typer.Option("--model", help="tiny, ARCH/PRETRAINED, ARCH/path/to/weights or a folder.  [VIDGRAIN_MODEL]"),
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1.  [VIDGRAIN_DEVICE]")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def settings_of(**given: object) -> Settings:
    """The settings of environment and defaults, overridden by the options that were given."""
    from service.settings import load_settings

    return load_settings(**given)


def made_folder(folder: Path) -> Path:
    """The folder, made if it is not there. Raises: InvalidSettings."""
    from service.settings import InvalidSettings

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSettings(f"The folder can't be made: {error.strerror}.", "Name another.", path=folder) from error
    return folder
