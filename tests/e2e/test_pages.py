"""The page, the docs page and the OpenAPI document: all from this server, nothing from another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.conftest import Clip, Service, make_service


def test_the_page_and_its_files(filled: Service) -> None:
    page = filled.client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    names = re.findall(r'(?:href|src)="(web/[^"]+)"', page.text)
    assert names
    for name in names:
        assert filled.client.get(f"/{name}").status_code == 200, name


@pytest.mark.parametrize("named", ["", "/tools/vidgrain"])
def test_links_carry_the_path_of_a_proxy_whether_it_strips_it_or_not(tmp_path: Path, clip: Clip, named: str) -> None:
    for service in make_service(tmp_path, root_path="/tools/vidgrain"):
        service.add(clip("red"))
        for prefix in (named, f"{named}/v1"):
            shown = f"/tools/vidgrain{prefix.removeprefix(named)}"
            (result,) = service.client.post(f"{prefix}/search/text", json={"query": "red"}).json()["results"]
            assert result["moments"][0]["thumbnail_url"].startswith(f"{shown}/videos/")
            (video,) = service.client.get(f"{prefix}/videos").json()["videos"]
            assert video["links"]["self"] == f"{shown}/videos/{video['video_id']}"
            with clip("red").open("rb") as file:
                added = service.client.post(f"{prefix}/index/video", files={"file": ("red.mp4", file)})
            assert added.headers["location"].startswith(f"{shown}/jobs/")
            assert service.client.get(added.headers["location"]).json()["status"] == "succeeded"
        assert service.client.get(f"{named}/web/app.js").status_code == 200


@pytest.mark.parametrize("root", ["/", "/v1/"])
def test_the_docs_page_has_local_assets(filled: Service, root: str) -> None:
    page = filled.client.get(f"{root}docs")
    assert page.status_code == 200
    names = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert "docs/assets/swagger-ui-bundle.js" in names
    for name in names:
        assert not name.startswith(("http:", "https:", "//"))
        assert filled.client.get(f"{root}{name}").status_code == 200, name
    assert filled.client.get(f"{root}openapi.json").json()["paths"]


def test_the_document_has_every_path_with_both_bodies_and_examples(filled: Service) -> None:
    document = filled.client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/search/text", "/search/video", "/index/video", "/videos", "/videos/{video_id}",
        "/videos/{video_id}/thumbnail",
        "/videos/{video_id}/stream", "/jobs", "/jobs/summary", "/jobs/{job_id}",
        "/jobs/{job_id}/cancel", "/jobs/{job_id}/retry",
        "/index", "/scorers", "/models", "/healthz", "/readyz", "/version",
    }  # fmt: skip
    for path in ("/index/video", "/search/video"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert set(content) == {"application/json", "multipart/form-data"}
        assert content["application/json"]["examples"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', filled.client.get("/openapi.json").text))
    assert references <= set(document["components"]["schemas"])
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"] and operation["description"], (method, path)
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], (method, path, status)
