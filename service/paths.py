"""Which paths of the server a request may name: those inside of the media roots, after every symbolic link.

This file knows no route and no index.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from indexer.errors import NotFound
from service.errors import InvalidRequest, PathNotAllowed


def allowed_file(named: str, roots: Sequence[Path]) -> Path:
    """The real file that `named` (absolute, or relative to a root) leads to.

    Whether a file outside of the roots exists is not told. Raises: PathNotAllowed, NotFound, InvalidRequest (a folder).
    """
    if not roots:
        raise PathNotAllowed(
            "paths of the server may not be named here",
            "Upload the file, or set VIDGRAIN_MEDIA_ROOTS to the folders that may be read.",
        )
    inside = [real for root in roots if (real := _inside(root, named)) is not None]
    if not inside:
        raise PathNotAllowed(f"{named!r} is not inside of the media roots", "VIDGRAIN_MEDIA_ROOTS lists them.")
    found = next((real for real in inside if real.is_file()), None)
    if found is not None:
        return found
    if any(real.exists() for real in inside):
        raise InvalidRequest(f"path: {named!r} is not a file", fields=[("path", "not a file")])
    raise NotFound(f"there is no file {named!r}")


def _inside(root: Path, named: str) -> Path | None:
    """Where the name leads to from this root, None if that is outside or can't be followed."""
    try:
        real_root = root.resolve()
        real = (real_root / named).resolve()
        real.exists()  # says now what can't be asked of it later: a name too long, a folder that may not be entered
    except (OSError, ValueError, RuntimeError):  # or a NUL, or a loop of links: it leads nowhere
        return None
    return real if real.is_relative_to(real_root) and real != real_root else None
