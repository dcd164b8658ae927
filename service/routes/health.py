"""/healthz, /readyz, /version, /index: how the service is doing."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter

from model.types import public_name
from service.responses.health import HealthResponse, IndexResponse, ReadyResponse, VersionResponse
from service.responses.parts import Reason
from service.routes.problems import problems
from service.state import ServiceState, State

router = APIRouter(tags=["service"])


@router.get("/index", responses=problems())
def index_counts(state: State) -> IndexResponse:
    """What the index holds."""
    return IndexResponse.from_stats(state.index.stats())


@router.get("/healthz")
async def healthz() -> HealthResponse:  # async: answered also while every thread is at work
    """The process answers. /readyz also checks the model."""
    return HealthResponse()


@router.get("/readyz", responses=problems())
async def readyz(state: State) -> ReadyResponse:  # async: answered whatever the shared threads do
    """A test search succeeded within the last 15 s, or just now. Otherwise 503 with the reason."""
    age_s = await run_sync(state.readiness.check, limiter=state.readiness_threads)
    worker = _worker(state)
    warnings = (
        [Reason(code="worker_stopped", message="Searches are answered; new videos wait until the worker is back.")]
        if worker == "stopped"
        else []
    )
    return ReadyResponse(worker=worker, last_inference_s_ago=round(age_s, 3), warnings=warnings)


@router.get("/version", responses=problems())
def version_(state: State) -> VersionResponse:
    """What runs here."""
    spec = state.index.model.spec
    return VersionResponse(
        name="vidgrain",
        version=installed_version(),
        api="v1",
        model=public_name(spec.name),
        fingerprint=spec.fingerprint,
    )


def installed_version() -> str:
    """The version of this distribution, "0+unknown" when it runs uninstalled."""
    try:
        return version("vidgrain")
    except PackageNotFoundError:
        return "0+unknown"


def _worker(state: ServiceState) -> Literal["running", "stopped", "external"]:
    if state.worker is None:
        return "external"
    return "running" if state.worker.pid is not None else "stopped"
