"""The HTTP application over an index (opening.py): its routes, its page and its documents."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, JSONResponse
from starlette.staticfiles import StaticFiles

from indexer.errors import BackendMissing
from indexer.index import VideoIndex
from indexer.records import SearchOptions
from model.threads import SERVING_THREADS, limit_threads
from service import bodies, edge
from service.opening import open_index
from service.readiness import Readiness
from service.responses.parts import Problem
from service.routes import health, indexing, jobs, models, search, videos
from service.settings import Settings
from service.state import ServiceState, WatchedWorker
from service.uploads import sweep
from service.wake import Wake

log = logging.getLogger("vidgrain.app")

WEB = Path(__file__).parent / "web"

PROBES = ("a video", "a clip")
"""Encoded to see that the model works: two at once, which no cache answers."""

# Swagger UI sets styles on elements, which the rule for our own page forbids.
_DOCS_HEADERS = {
    "content-security-policy": f"{edge.SAFE_HEADERS['content-security-policy']}; style-src 'self' 'unsafe-inline'"
}

_DESCRIPTION = """Video-text search: type a sentence or drop a clip, and land on the right second.

Every path is here at the root and under `/v1`. Times are seconds. Every failure is `application/problem+json` with a
stable `code`, and every answer carries an `X-Request-ID`."""


def create_app(settings: Settings, index: VideoIndex | None = None, *, worker: WatchedWorker | None = None) -> FastAPI:
    """The application. index: one that is open already and that its owner closes; else it is opened at the start.

    worker: the worker process that the caller runs beside it, watched by /readyz.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        limit_threads(settings.torch_threads or SERVING_THREADS)
        opened = index if index is not None else await run_in_threadpool(open_index, settings)
        await run_in_threadpool(opened.warm_up)
        app.state.service = state = _state_of(settings, opened, worker)
        num_swept = await run_in_threadpool(sweep, opened.storage.incoming())
        log.info("service_started", extra={"model": opened.model.spec.name, "uploads_swept": num_swept})
        try:
            yield
        finally:
            state.wake.close()
            if index is None:
                await run_in_threadpool(opened.close)
            log.info("service_stopped")

    app = FastAPI(
        title="Vidgrain",
        version=health.installed_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
        root_path_in_servers=False,
        servers=[{"url": "."}],  # relative to the document: right under /v1, and under whatever path a proxy adds
    )
    for router in (search.router, indexing.router, videos.router, jobs.router, models.router, health.router):
        app.include_router(router)
        app.include_router(router, prefix="/v1", include_in_schema=False)
    edge.install(app, settings.allowed_hosts, settings.root_path)
    _add_pages(app)
    _complete_document(app)
    return app


def _state_of(settings: Settings, index: VideoIndex, worker: WatchedWorker | None) -> ServiceState:
    def probe() -> None:
        index.model.encode_text(PROBES)
        index.search_text("a video", SearchOptions(top_k=1, candidates=1))

    wake = Wake(settings.redis_url)
    wake.on_published(index.catch_up_soon)
    return ServiceState(settings, index, wake, Readiness(probe), worker)


def _complete_document(app: FastAPI) -> None:
    """Give the OpenAPI document the bodies that our own readers take, and the problems that every route may answer."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = bodies.with_bodies(plain(), Problem)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_pages(app: FastAPI) -> None:
    """The page at /, its files at /web, and /docs with Swagger UI out of an installed package: no other host.

    /v1/docs and /v1/openapi.json are the same; the page's links are relative, so its files lie there as well.
    """
    app.mount("/web", StaticFiles(directory=WEB), name="web")
    app.mount("/v1/web", StaticFiles(directory=WEB), name="v1-web")

    @app.get("/v1/openapi.json", include_in_schema=False)
    def openapi_document() -> JSONResponse:
        return JSONResponse(app.openapi())

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(WEB / "index.html", media_type="text/html")

    assets = _swagger_assets()
    if assets is not None:
        app.mount("/docs/assets", StaticFiles(directory=assets), name="docs-assets")
        app.mount("/v1/docs/assets", StaticFiles(directory=assets), name="v1-docs-assets")

    @app.get("/docs", include_in_schema=False)
    @app.get("/v1/docs", include_in_schema=False)
    def docs() -> FileResponse:
        if assets is None:
            raise BackendMissing("The docs page needs Swagger UI's files.", "Install the package fastapi-offline.")
        return FileResponse(WEB / "docs.html", media_type="text/html", headers=_DOCS_HEADERS)


def _swagger_assets() -> Path | None:
    """The folder with Swagger UI's files, None where the package that carries them is not installed."""
    found = find_spec("fastapi_offline")
    places = found.submodule_search_locations if found is not None else None
    folder = Path(places[0]) / "static" if places else None
    return folder if folder is not None and (folder / "swagger-ui-bundle.js").is_file() else None
