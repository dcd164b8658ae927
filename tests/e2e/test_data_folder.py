"""A data folder that is moved away or replaced under a running service: nothing is acknowledged into nothing."""

from __future__ import annotations

import shutil

import pytest

from indexer.index import VideoIndex
from tests.e2e.conftest import Clip, Service
from tests.support.fakes import FakeModel


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_folder_that_is_gone_takes_nothing_and_one_put_back_goes_on(
    service: Service, clip: Clip, is_replaced: bool
) -> None:
    red = service.add(clip("red"))
    data, away = service.settings.data, service.settings.data.with_name("away")
    data.rename(away)
    if is_replaced:
        VideoIndex.open(data, FakeModel()).close()
    refused = service.upload(clip("green"), expect=500)
    assert refused["code"] == "catalogue_unreadable" and str(data) not in str(refused)
    for path in ("/videos", f"/videos/{red}", "/index"):
        assert service.client.get(path).json()["code"] == "catalogue_unreadable", path
    assert service.client.delete(f"/videos/{red}").status_code == 500
    assert service.client.post("/search/text", json={"query": "red"}).json()["code"] == "catalogue_unreadable"
    if is_replaced:
        with VideoIndex.open(data, FakeModel()) as other:
            assert other.list() == ((), None), "and nothing got into the other folder"
        assert not list((data / "media").glob("*"))
        shutil.rmtree(data)
    assert not data.exists(), "no empty one is made in its place"
    away.rename(data)
    assert service.client.get(f"/videos/{red}").json()["status"] == "ready"
    service.add(clip("green"))
