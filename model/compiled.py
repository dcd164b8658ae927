"""Opens a compiled file that was built with the package, by ctypes. It knows no functions but the version's."""

from __future__ import annotations

import ctypes
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

BUILD_COMMAND: Final = "pip install --no-deps -e ."
"""Builds the files in a source tree; elsewhere the package is installed again."""


def open_compiled(folder: Path, version: int) -> tuple[ctypes.CDLL | None, str]:
    """The compiled file of a folder, or None and why not; version: what it must have been built from."""
    again = f"`{BUILD_COMMAND}` in a source tree, or install the package again."
    found = [path for suffix in EXTENSION_SUFFIXES if (path := folder / f"_native{suffix}").is_file()]
    if not found:
        return None, f"The native code isn't built: install a C++ compiler, then {again}"
    try:
        library = ctypes.CDLL(str(found[0]))
        built = library.vidgrain_abi_version()
    except (OSError, AttributeError) as error:
        return None, f"{found[0].name} can't be loaded ({error}): {again}"
    if built != version:
        text = f"{found[0].name} was built from other sources (version {built}, expected {version})"
        return None, f"{text}: {again}"
    return library, ""
