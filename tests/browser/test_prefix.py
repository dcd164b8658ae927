"""The page and the API's docs behind a proxy that offers the service under a path, next to other services."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.site import Proxy, running_site
from tests.support.clips import solid_clip
from tests.support.fakes import COLOURS

pytestmark = pytest.mark.browser


STRIPS, STRIPS_KNOWN, KEEPS = "strips", "strips, and the service knows", "keeps"


@pytest.fixture(scope="module")
def proxied(request: pytest.FixtureRequest, chromium: Any, tmp_path_factory: Any) -> Iterator[tuple[str, Proxy]]:
    """The address of a service with the clip "all red", and the proxy before it."""
    folder = tmp_path_factory.mktemp("prefix")
    clip = solid_clip(folder / "all red.mp4", COLOURS["red"], 2, size=(160, 120))
    proxy = Proxy("/tools/vidgrain", strips=request.param != KEEPS)
    root_path = "" if request.param == STRIPS else proxy.prefix
    with running_site(folder / "data", [clip], proxy=proxy, root_path=root_path) as address:
        yield address, proxy


@pytest.mark.parametrize("proxied", [STRIPS, STRIPS_KNOWN, KEEPS], indirect=True)
def test_the_page_works_under_a_prefix(page: Any, proxied: tuple[str, Proxy], tmp_path: Path) -> None:
    address, proxy = proxied
    page.goto(f"{address}/")
    page.wait_for_selector("#recent .card")
    page.fill("#q", "red")
    page.press("#q", "Enter")
    page.wait_for_selector("#results .card")
    assert page.url == f"{address}/?q=red"
    page.wait_for_function("() => document.querySelector('#results .thumb img').naturalWidth > 0")
    page.locator("#results .thumb").first.click()
    page.wait_for_function("() => document.querySelector('#video').readyState >= 2")
    assert page.url.startswith(f"{address}/?q=red&v=")

    page.click("#nav-library")
    assert page.url == f"{address}/?view=library"
    page.set_input_files("#add-input", solid_clip(tmp_path / "blue.mp4", COLOURS["blue"], 1, size=(160, 120)))
    page.wait_for_selector("#job-list .job[data-state=done]")
    page.locator("#video-list .row", has_text="blue").locator(".delete").click()
    page.click("#confirm button[value=yes]")
    page.locator("#video-list .row", has_text="blue").wait_for(state="detached")
    page.click("#brand")
    assert page.url == f"{address}/"
    for link in page.locator("a[href]").all():
        assert link.evaluate("(a) => a.href").startswith(f"{address}/"), link
    assert proxy.elsewhere == []


@pytest.mark.parametrize("proxied", [STRIPS], indirect=True)
def test_the_docs_can_be_tried_under_a_prefix(page: Any, proxied: tuple[str, Proxy]) -> None:
    address, proxy = proxied
    for root in ("", "/v1"):
        page.goto(f"{address}{root}/docs")
        page.locator("#operations-service-version__version_get .opblock-summary-control").click()
        page.click("button.try-out__btn")
        with page.expect_response("**/version") as answered:
            page.click("button.execute")
        assert answered.value.url == f"{address}{root}/version" and answered.value.status == 200
    assert proxy.elsewhere == []
