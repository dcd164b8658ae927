"""The choice of how results are scored: offered by the model, kept in the address, carried on; bars follow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoints.folder import save_checkpoint
from model.registry import load_model
from model.types import HeadKind
from tests.support.clips import solid_clip
from tests.support.fakes import COLOURS
from tests.unit.model.small import small_network_of

pytestmark = pytest.mark.browser

KINDS: tuple[HeadKind, ...] = ("tight", "clip2video")


@pytest.fixture(scope="module", params=KINDS)
def paper_site(
    request: pytest.FixtureRequest, chromium: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """(kind, address) of a service with two clips over a small network of a paper's kind."""
    from tests.browser.site import running_site

    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(5)
    save_checkpoint(folder / "model", small_network_of(request.param, folder))
    videos = [solid_clip(folder / f"{colour}.mp4", COLOURS[colour], 2, size=(160, 120)) for colour in ("red", "blue")]
    with running_site(folder / "data", videos, model=load_model(str(folder / "model"), device="cpu")) as address:
        yield request.param, address


def offered(page: Any) -> list[str]:
    return [str(value) for value in page.eval_on_selector_all("#scorer option", "all => all.map(one => one.value)")]


def bars_of_first(page: Any, count: int) -> None:
    page.wait_for_function(
        f"() => document.querySelectorAll('#results .card:first-child .grains i').length === {count}"
    )


def test_another_scorer_is_chosen_and_stays_chosen(page: Any, site: str) -> None:
    page.goto(f"{site}/?q=yellow")
    page.wait_for_selector("#scorer-choice:not([hidden])")
    assert offered(page) == ["aosm", "mean"] and page.input_value("#scorer") == "aosm"
    assert page.locator("#scorer option").first.inner_text() == "Four ways, weighed (default)"
    bars_of_first(page, 4)

    page.select_option("#scorer", "mean")
    bars_of_first(page, 1)
    assert page.url.endswith("/?q=yellow&scorer=mean")
    page.locator("#results .thumb").first.click()
    page.wait_for_selector("#player:not([hidden])")
    assert page.locator("#why-list li").count() == 1
    assert page.inner_text("#why-note").startswith("Similarity of what you asked to the best stretch.")

    page.select_option("#scorer", "aosm")
    bars_of_first(page, 4)
    assert page.locator("#player").is_hidden(), "what it told of the score is no longer so"
    page.select_option("#scorer", "mean")
    bars_of_first(page, 1)
    page.fill("#q", "red")
    page.press("#q", "Enter")
    page.wait_for_function("() => document.querySelector('#result-title').textContent.includes('red')")
    assert page.url.endswith("/?q=red&scorer=mean")
    page.locator("#results .similar").first.click()
    page.wait_for_url("**/?similar=*&scorer=mean")
    bars_of_first(page, 1)

    page.select_option("#scorer", "aosm")
    bars_of_first(page, 4)
    assert "scorer" not in page.url, "the default needs no word in the address"
    page.go_back()
    page.wait_for_function("() => document.querySelector('#scorer').value === 'mean'")
    bars_of_first(page, 1)


def test_a_scorer_in_the_address_that_is_none_is_said_with_the_way_out(page: Any, site: str) -> None:
    page.goto(f"{site}/?q=yellow&scorer=nonsense")
    page.wait_for_selector("#search-error:not([hidden])")
    assert "nonsense" in page.inner_text("#search-error .what")
    assert "aosm" in page.inner_text("#search-error .hint")


def test_the_keyboard_chooses_and_does_not_leave_the_list(page: Any, site: str) -> None:
    page.goto(f"{site}/?q=yellow")
    page.wait_for_selector("#scorer-choice:not([hidden])")
    page.focus("#scorer")
    page.keyboard.press("ArrowDown")
    bars_of_first(page, 1)
    page.keyboard.press("/")
    assert page.evaluate("() => document.activeElement.id") == "scorer"
    page.keyboard.press("ArrowUp")
    bars_of_first(page, 4)


def test_parts_of_other_papers_are_drawn_and_named(page: Any, paper_site: Any) -> None:
    kind, address = paper_site
    page.goto(f"{address}/?q=red")
    bars_of_first(page, {"tight": 1, "clip2video": 2}[kind])
    page.locator("#results .thumb").first.click()
    page.wait_for_selector("#why:not([hidden])")
    names = page.locator("#why-list .name").all_inner_texts()
    note = page.inner_text("#why-note")
    if kind == "clip2video":
        assert names == ["Whole stretch, whole sentence", "Topics of the stretch, topics of the sentence"]
        assert "two ways; the score mixes them" in note
        assert page.locator("#scorer-choice").is_hidden(), "one scorer is no choice"
        return
    assert names == ["Sentence and frames, read together"] and "no scale" in note
    page.click("#player-close")
    assert offered(page)[0] == page.input_value("#scorer") == "tight"
    page.locator("#results .similar").first.click()
    page.wait_for_function("() => document.querySelector('#scorer').value === 'maxsim'")
    assert "tight" not in offered(page), "a clip can't be read as a sentence"


def test_a_choice_fits_on_a_phone(page: Any, site: str, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 780})
    page.goto(f"{site}/?q=yellow")
    page.wait_for_selector("#scorer-choice:not([hidden])")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
