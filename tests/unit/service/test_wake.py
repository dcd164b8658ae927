"""Redis wakes workers where it is there, and nobody misses it where it isn't."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing

import pytest

from service.wake import Wake
from tests.support.server import free_port


def test_a_waiting_worker_is_woken(redis_url: str) -> None:
    with closing(Wake(redis_url)) as worker, closing(Wake(redis_url)) as server:
        woken = threading.Event()

        def work() -> None:
            worker.wait(15.0)
            woken.set()

        thread = threading.Thread(target=work)
        thread.start()
        server.notify()
        assert woken.wait(10.0)
        thread.join()


def test_a_wake_up_that_came_before_the_wait_is_not_lost(redis_url: str) -> None:
    with closing(Wake(redis_url)) as wake:
        wake.notify()
        began_s = time.monotonic()
        wake.wait(15.0)
        first_s = time.monotonic() - began_s
        wake.wait(0.3)
        second_s = time.monotonic() - began_s - first_s
    assert first_s < 14.0  # it returned for the wake-up, not for the time
    assert second_s >= 0.25  # and the wake-up was taken


def test_wake_ups_that_nobody_takes_do_not_pile_up(redis_url: str) -> None:
    import redis

    with closing(Wake(redis_url)) as wake, closing(redis.Redis.from_url(redis_url)) as client:
        for _ in range(200):
            wake.notify()
        assert client.llen("vidgrain:wake") <= 64
        assert 0 < client.ttl("vidgrain:wake") <= 60


def test_a_redis_that_is_away_costs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with closing(Wake(f"redis://127.0.0.1:{free_port()}/0")) as wake, caplog.at_level(logging.INFO):
        for _ in range(3):
            wake.notify()
            wake.wait(0.02)
    assert [record.getMessage() for record in caplog.records] == ["redis_unavailable"]


def test_without_redis_wait_waits_and_close_ends_it() -> None:
    wake = Wake(None)
    wake.notify()
    began_s = time.monotonic()
    wake.wait(0.2)
    assert time.monotonic() - began_s >= 0.19
    threading.Timer(0.1, wake.close).start()
    wake.wait(60.0)
    assert time.monotonic() - began_s < 50


def test_servers_learn_of_what_a_worker_publishes(redis_url: str) -> None:
    heard = threading.Semaphore(0)
    with closing(Wake(redis_url)) as worker, closing(Wake(redis_url)) as one, closing(Wake(redis_url)) as other:
        for server in (one, other):
            server.on_published(heard.release)
        for _ in range(2):
            assert heard.acquire(timeout=10), "each looks once when it begins to listen"
        worker.published()
        for _ in range(2):
            assert heard.acquire(timeout=10), "every server hears of it"
        assert not heard.acquire(blocking=False)


def test_without_redis_nobody_is_woken_and_nothing_fails() -> None:
    heard: list[str] = []
    for url in (None, f"redis://127.0.0.1:{free_port()}/0"):
        with closing(Wake(url)) as wake:
            wake.on_published(lambda: heard.append("something"))
            wake.published()
            wake.wait(0.05)
    assert heard == []
