"""The page at / in a real browser, over the real app: search, seek, add, fail, remove, by mouse and by keyboard."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue import jobs, videos
from indexer.catalogue.database import Database
from indexer.records import JobProgress
from tests.support.catalogues import Clock
from tests.support.clips import solid_clip
from tests.support.fakes import COLOURS

pytestmark = pytest.mark.browser


def titles(page: Any) -> list[str]:
    page.wait_for_selector("#results .card")
    return list(page.locator("#results .title").all_inner_texts())


def watch_seeks(page: Any) -> None:
    page.evaluate(
        "() => { window.seeks = []; const video = document.querySelector('#video');"
        " video.addEventListener('seeked', () => window.seeks.push(video.currentTime)); }"
    )


def first_seek_s(page: Any) -> float:
    """Where the player stood after its first seek since `watch_seeks`."""
    page.wait_for_function("() => window.seeks.length > 0")
    return float(page.evaluate("() => window.seeks[0]"))


def test_a_sentence_finds_and_the_moment_plays_there(page: Any, site: str) -> None:
    page.goto(site)
    page.fill("#q", "yellow")
    page.press("#q", "Enter")
    assert titles(page)[0] == "blue then yellow"
    assert page.url.endswith("/?q=yellow")
    first = page.locator("#results .card").first
    assert first.locator(".grains i").count() == 4
    assert "video" in page.inner_text("#status") and "ms" in page.inner_text("#status")
    page.wait_for_function("() => document.querySelector('#results .thumb img').naturalWidth > 0")

    answer = page.evaluate(
        "async () => (await fetch('/search/text', {method: 'POST', headers: {'content-type': 'application/json'},"
        " body: JSON.stringify({query: 'yellow'})})).json()"
    )
    best_s = answer["results"][0]["moments"][0]["best_s"]
    assert best_s >= 4
    watch_seeks(page)
    first.locator(".chip").first.click()
    assert first_seek_s(page) == pytest.approx(best_s, abs=0.3)
    page.wait_for_function("() => document.querySelector('#video').readyState >= 2")
    assert page.inner_text("#player-title") == "blue then yellow"
    assert page.locator("video").count() == 1
    assert page.locator("#why-list li").count() == 4

    page.keyboard.press("Escape")
    assert page.locator("#player").is_hidden()


def test_an_address_is_a_search_and_back_returns(page: Any, site: str) -> None:
    page.goto(f"{site}/?q=red")
    assert titles(page)[0] == "all red"
    assert page.input_value("#q") == "red"
    page.fill("#q", "green")
    page.press("#q", "Enter")
    page.wait_for_function("() => document.querySelector('#results .title')?.textContent === 'all green'")
    page.go_back()
    page.wait_for_function("() => document.querySelector('#results .title')?.textContent === 'all red'")
    assert page.input_value("#q") == "red"


def test_a_link_to_a_second_opens_the_player_there(page: Any, site: str) -> None:
    page.goto(f"{site}/?q=yellow")
    titles(page)
    video_id = page.get_attribute("#results .card", "data-video-id")
    page.goto(f"{site}/?q=yellow&v={video_id}&t=6.00")
    page.wait_for_function("() => document.querySelector('#video').currentTime >= 5.7")
    assert page.inner_text("#player-title") == "blue then yellow"


def test_keys_alone_search_walk_and_play(page: Any, site: str) -> None:
    page.goto(f"{site}/?view=library")
    page.wait_for_selector("#video-list .row")
    page.keyboard.press("/")
    page.keyboard.type("green")
    page.keyboard.press("Enter")
    titles(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    focused = "() => document.activeElement.closest('.card')?.querySelector('.title').textContent"
    second = page.locator("#results .title").nth(1).inner_text()
    assert page.evaluate(focused) == second
    page.keyboard.press("Enter")
    assert page.inner_text("#player-title") == second
    page.keyboard.press("Escape")
    assert page.locator("#player").is_hidden()
    assert page.evaluate(focused) == second


def test_a_clip_is_a_query_and_so_is_a_stored_moment(page: Any, site: str, tmp_path: Path) -> None:
    clip = solid_clip(tmp_path / "my green.mp4", COLOURS["green"], 1, fps=8, size=(96, 64))
    page.goto(site)
    page.set_input_files("#clip-input", clip)
    assert titles(page)[0] == "all green"
    assert "my green.mp4" in page.inner_text("#result-title")
    page.locator("#results .similar").first.click()
    page.wait_for_url("**/?similar=*")
    page.wait_for_function("() => document.querySelector('#result-title').textContent.startsWith('Like all green')")
    assert "all green" not in titles(page)


def test_a_dropped_clip_is_a_query(page: Any, site: str, tmp_path: Path) -> None:
    clip = solid_clip(tmp_path / "dropped.mp4", COLOURS["red"], 1, fps=8, size=(96, 64))
    page.goto(site)
    page.wait_for_selector("#recent .card")
    data = page.evaluate_handle(
        "(bytes) => { const t = new DataTransfer();"
        " t.items.add(new File([new Uint8Array(bytes)], 'dropped.mp4', {type: 'video/mp4'})); return t; }",
        list(clip.read_bytes()),
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": data})
    page.dispatch_event("#drop-search", "drop", {"dataTransfer": data})
    assert titles(page)[0] == "all red"


def test_an_added_file_becomes_searchable_and_can_be_removed(page: Any, site: str, tmp_path: Path) -> None:
    purple = solid_clip(tmp_path / "new purple.mp4", COLOURS["purple"], 2, size=(160, 120))
    page.goto(f"{site}/?view=library")
    page.set_input_files("#add-input", purple)
    page.wait_for_selector("#job-list .job[data-state=done]")
    page.wait_for_selector("#video-list .row:has-text('new purple')")

    page.goto(f"{site}/?q=purple")
    assert titles(page)[0].startswith("new purple")

    page.goto(f"{site}/?view=library")
    row = page.locator("#video-list .row", has_text="new purple")
    row.locator(".delete").click()
    page.click("#confirm button[value=no]")
    assert row.count() == 1
    row.locator(".delete").click()
    page.click("#confirm button[value=yes]")
    row.wait_for(state="detached")
    page.goto(f"{site}/?q=purple")
    assert not any(title.startswith("new purple") for title in titles(page))


def test_a_junk_file_is_refused_with_its_reason(page: Any, site: str, tmp_path: Path) -> None:
    junk = tmp_path / "junk.mp4"
    junk.write_bytes(b"this is no video\n" * 500)
    page.goto(f"{site}/?view=library")
    page.set_input_files("#add-input", junk)
    page.wait_for_selector("#job-list .job[data-state=failed] .reason:not([hidden])")
    assert len(page.inner_text("#job-list .reason")) > 10

    page.goto(site)
    page.set_input_files("#clip-input", junk)
    page.wait_for_selector("#search-error:not([hidden])")
    assert len(page.inner_text("#search-error .what")) > 10
    assert page.locator("#results .card").count() == 0


def test_text_from_outside_stays_text(page: Any, site: str, tmp_path: Path) -> None:
    evil = solid_clip(tmp_path / "<img src=x onerror=alert(1)>.mp4", COLOURS["white"], 1, size=(160, 120))
    page.goto(f"{site}/?view=library")
    page.set_input_files("#add-input", evil)
    page.wait_for_selector("#job-list .job[data-state=done]")
    page.goto(f"{site}/?q=white")
    assert titles(page)[0].startswith("<img src=x")
    assert page.locator("img[src=x]").count() == 0


def test_a_newcomer_is_told_what_to_do(page: Any, empty_site: str, tmp_path: Path) -> None:
    page.goto(empty_site)
    page.wait_for_selector("#welcome:not([hidden])")
    assert "Add your first videos" in page.inner_text("#welcome")
    page.set_input_files("#add-input", solid_clip(tmp_path / "first.mp4", COLOURS["red"], 1, size=(160, 120)))
    page.wait_for_selector("#recent .card")
    assert page.locator("#welcome").is_hidden()
    assert page.inner_text("#nav-count") == "1"


def test_a_waiting_job_outlives_the_tab_and_can_be_cancelled(page: Any, idle_site: str, tmp_path: Path) -> None:
    page.goto(f"{idle_site}/?view=library")
    page.set_input_files("#add-input", solid_clip(tmp_path / "patient.mp4", COLOURS["red"], 1, size=(160, 120)))
    page.wait_for_selector("#job-list .job[data-job-id][data-state=waiting]")
    page.reload()
    row = page.locator("#job-list .job", has_text="patient")
    row.locator(".cancel").click()
    page.wait_for_selector("#job-list .job[data-state=cancelled]")
    assert row.locator(".facts").inner_text() == "Cancelled"


def test_an_answer_from_before_a_job_was_cancelled_does_not_bring_it_back(
    page: Any, idle_site: str, tmp_path: Path
) -> None:
    held: list[Any] = []

    def hold(route: Any) -> None:
        if held:
            route.continue_()
        else:
            held.append((route, route.fetch()))

    page.goto(f"{idle_site}/?view=library")
    page.set_input_files("#add-input", solid_clip(tmp_path / "late.mp4", COLOURS["blue"], 1, size=(160, 120)))
    row = page.locator("#job-list .job", has_text="late")
    page.wait_for_selector("#job-list .job[data-job-id][data-state=waiting]")
    page.route(re.compile(r"/jobs/[0-9a-f]{32}$"), hold)
    for _ in range(100):
        if held:
            break
        page.wait_for_timeout(50)
    row.locator(".cancel").click()
    page.wait_for_selector("#job-list .job[data-state=cancelled]")
    route, response = held[0]
    route.fulfill(response=response)
    page.wait_for_timeout(300)
    assert row.get_attribute("data-state") == "cancelled" and row.locator(".facts").inner_text() == "Cancelled"


def test_jobs_in_work_show_how_far_they_are_how_fast_and_when_they_end(
    page: Any, idle_site: str, tmp_path: Path
) -> None:
    """Two of three videos are in work, at 6 and 3 times real time."""
    page.goto(f"{idle_site}/?view=library")
    files = [
        solid_clip(tmp_path / f"{name}.mp4", COLOURS[name], 1, size=(160, 120)) for name in ("red", "green", "blue")
    ]
    page.set_input_files("#add-input", files)
    page.wait_for_function(
        "() => document.querySelectorAll('#job-list .job[data-job-id][data-state=waiting]').length === 3"
    )
    page.wait_for_function("() => document.querySelector('#queue').textContent === '0 of 3 videos'")

    clock = Clock(time.time())
    with Database(tmp_path / "data" / "catalogue.sqlite", clock=clock) as database:
        with database.write() as tx:
            claimed = [jobs.claim(tx, "somebody", 600), jobs.claim(tx, "somebody", 600)]
        clock.pass_s(10)
        with database.write() as tx:
            for job, done_s in zip(claimed, (60.0, 30.0), strict=True):
                assert job is not None
                jobs.heartbeat(tx, job, 600, "encode", JobProgress(4, 8, 48, done_s, 120.0), worked_s=10.0)
        with database.read() as tx:
            titles = [videos.get(tx, job.video_id).title for job in claimed if job is not None]
    rows = [page.locator("#job-list .job", has_text=title) for title in titles]
    page.wait_for_function("() => document.querySelectorAll('#job-list .job[data-state=running]').length === 2")
    assert [row.locator(".facts").inner_text() for row in rows] == [
        "Indexing, 50 %, 1:00 of 2:00, 6.0\u00a0× real time, about 10 s left",
        "Indexing, 25 %, 0:30 of 2:00, 3.0\u00a0× real time, about 30 s left",
    ]
    assert rows[1].locator(".bar").get_attribute("aria-valuenow") == "25"
    assert rows[1].locator(".what").inner_text() == "Indexing", "a screen reader does not read out each new number"
    page.wait_for_function("() => document.querySelector('#queue').textContent.includes('left')")
    line = page.inner_text("#queue")
    assert re.fullmatch(r"0 of 3 videos, 9\.0\u00a0× real time, about \d+ s left", line), line


def test_nothing_sticks_out_on_any_width(page: Any, site: str) -> None:
    def check() -> None:
        for width in (360, 768, 1280):
            page.set_viewport_size({"width": width, "height": 780})
            assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), (page.url, width)

    for path in ("/", "/?view=library", "/?q=red"):
        page.goto(site + path)
        page.wait_for_selector(".card:visible, .row:visible")
        check()
    page.locator("#results .thumb").first.click()
    page.wait_for_selector("#player:not([hidden])")
    check()
