"""Ready means: a real inference came back, lately."""

from __future__ import annotations

import threading

import pytest

from indexer.errors import CatalogueBusy
from service.errors import NotReady
from service.readiness import Readiness


def test_a_fresh_success_is_not_made_again() -> None:
    calls = []
    readiness = Readiness(lambda: calls.append(1), fresh_s=100)
    assert readiness.check() < 100
    readiness.check()
    assert len(calls) == 1


def test_a_failure_is_a_reason_and_the_next_success_forgets_it() -> None:
    outcomes = [CatalogueBusy("held"), None]

    def probe() -> None:
        if (error := outcomes.pop(0)) is not None:
            raise error

    readiness = Readiness(probe)
    with pytest.raises(NotReady, match="catalogue_busy"):
        readiness.check()
    assert readiness.check() >= 0


def test_a_model_that_hangs_is_not_ready_and_gets_no_second_probe() -> None:
    hanging, calls = threading.Event(), []

    def probe() -> None:
        calls.append(1)
        hanging.wait()

    readiness = Readiness(probe, patience_s=0.05)
    for _ in range(3):
        with pytest.raises(NotReady, match="has not returned"):
            readiness.check()
    assert len(calls) == 1
    hanging.set()
    for _ in range(100):
        try:
            readiness.check()
            return
        except NotReady:
            continue
    pytest.fail("never ready again")
