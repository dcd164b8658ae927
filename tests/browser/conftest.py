"""A headless Chromium and two sites for it: one with three clips, one empty. Skipped where there is no browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.clips import Picture, solid_clip, write_clip
from tests.support.fakes import COLOURS

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 15_000


def _plain(colour: str, num: int) -> list[Picture]:
    return [np.full((120, 160, 3), COLOURS[colour], dtype=np.uint8)] * num


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A running browser (playwright's Browser)."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service with the clips "all red", "all green" and "blue then yellow" (yellow from 4 s on)."""
    from tests.browser.site import running_site

    clips = tmp_path_factory.mktemp("clips")
    videos = [
        solid_clip(clips / "all red.mp4", COLOURS["red"], 2, size=(160, 120)),
        solid_clip(clips / "all green.mp4", COLOURS["green"], 2, size=(160, 120)),
        write_clip(clips / "blue then yellow.mp4", _plain("blue", 40) + _plain("yellow", 40), fps=10, gop=10),
    ]
    with running_site(tmp_path_factory.mktemp("site"), videos) as address:
        yield address


@pytest.fixture
def empty_site(chromium: Any, tmp_path: Path) -> Iterator[str]:
    """The address of a service with nothing in it."""
    from tests.browser.site import running_site

    with running_site(tmp_path / "data") as address:
        yield address


@pytest.fixture
def idle_site(chromium: Any, tmp_path: Path) -> Iterator[str]:
    """The address of a service with nothing in it and no worker."""
    from tests.browser.site import running_site

    with running_site(tmp_path / "data", has_worker=False) as address:
        yield address


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A fresh tab. The test fails if the page threw an error or broke its own content policy."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE_MS)
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda message: wrong.append(message.text) if "Content Security Policy" in message.text else None)
    yield tab
    context.close()
    assert wrong == []
