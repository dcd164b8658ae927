"""Where the real videos are: the folder VIDGRAIN_TEST_VIDEOS names, else ../shared/videos; tests skip without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("VIDGRAIN_TEST_VIDEOS", ROOT.parent / "shared" / "videos"))
SUFFIXES = {".mp4", ".mkv", ".mov", ".gif"}
NAMES = sorted(p.name for p in FOLDER.iterdir() if p.suffix in SUFFIXES) if FOLDER.is_dir() else []


def shared_video(name: str) -> Path:
    """The real video of that name; skips the test where it isn't there."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"no {name} in the folder VIDGRAIN_TEST_VIDEOS names")
    return path
