"""Which paths of the server a request may name: those inside the media roots once every symbolic link is resolved.

This file knows no route and no index.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from indexer.errors import NotFound
from service.errors import InvalidRequest, PathNotAllowed


def allowed_file(named: str, roots: Sequence[Path]) -> Path:
    """The real file that `named` (absolute, or relative to a root) leads to.

    The answer doesn't reveal whether a file outside the roots exists.
    Raises: PathNotAllowed, NotFound, InvalidRequest (a folder).
    """
    if not roots:
        raise PathNotAllowed(
            "this server does not index files by path",
            "Upload the file, or set VIDGRAIN_MEDIA_ROOTS to the folders that may be read.",
        )
    inside = [real for root in roots if (real := _inside(root, named)) is not None]
    if not inside:
        raise PathNotAllowed(f"{named!r} is not inside the media roots", "VIDGRAIN_MEDIA_ROOTS lists them.")
    found = next((real for real in inside if real.is_file()), None)
    if found is not None:
        return found
    if any(real.exists() for real in inside):
        raise InvalidRequest(f"path: {named!r} is not a file", fields=[("path", "not a file")])
    raise NotFound(f"there is no file {named!r}")


def _inside(root: Path, named: str) -> Path | None:
    """Where the name leads from this root, None if that is outside it or can't be resolved."""
    try:
        real_root = root.resolve()
        real = (real_root / named).resolve()
        real.exists()  # fails here rather than later: a name too long, a folder without permission
    except (OSError, ValueError, RuntimeError):  # also a NUL, or a loop of links
        return None
    return real if real.is_relative_to(real_root) and real != real_root else None
