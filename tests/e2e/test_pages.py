"""The page, the docs page and the OpenAPI document: all from this server, nothing from another."""

from __future__ import annotations

import re

import pytest

from tests.e2e.conftest import Service


def test_the_page_and_its_files(filled: Service) -> None:
    page = filled.client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    names = re.findall(r'(?:href|src)="(/web/[^"]+)"', page.text)
    assert names
    for name in names:
        assert filled.client.get(name).status_code == 200, name


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
        "/videos/{video_id}/stream", "/jobs", "/jobs/{job_id}", "/jobs/{job_id}/cancel", "/jobs/{job_id}/retry",
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
