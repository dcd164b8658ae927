"""The service against its own OpenAPI document: whatever schemathesis makes up, the answer is documented."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from service.app import create_app
from service.settings import Settings
from tests.e2e.conftest import Clip, Service, make_service

CHECKS: list[CheckFunction] = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


REFUSED_IS_REFUSED = schemathesis.Config.from_dict(
    {"checks": {"negative_data_rejection": {"expected-statuses": ["4xx"]}}}  # also a body that is too large (413)
)


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory, clip: Clip) -> Iterator[Service]:
    """Two videos; the tests of this file may do to them what they like."""
    for made in make_service(tmp_path_factory.mktemp("contract")):
        made.add(clip("red"))
        made.add(clip("blue"))
        yield made


GOOD, BAD = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
OPERATIONS = [
    pytest.param(path, method.upper(), mode, id=f"{method.upper()} {path} {mode.value}")
    for path, methods in create_app(Settings(data=Path("unused"))).openapi()["paths"].items()
    for method, operation in methods.items()
    for mode in (GOOD, BAD)
    if mode is GOOD or "requestBody" in operation or any(p["in"] == "query" for p in operation.get("parameters", []))
]


@pytest.mark.parametrize(("path", "method", "mode"), OPERATIONS)
def test_every_operation_keeps_its_word(contract: Service, path: str, method: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", contract.client.app, config=REFUSED_IS_REFUSED)
    operation = schema[path][method]
    known = {
        "video_id": contract.client.get("/videos").json()["videos"][0]["video_id"],
        "job_id": contract.client.get("/jobs").json()["jobs"][0]["job_id"],
    }

    @settings(max_examples=20, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode), is_known=st.booleans())
    def keeps_its_word(case: schemathesis.Case, is_known: bool) -> None:
        if is_known and method != "DELETE" and mode is GOOD:
            case.path_parameters = {name: known[name] for name in case.path_parameters or {}}
        wait = (case.query or {}).get("wait")
        if isinstance(wait, int | float) and 0.01 < wait <= 60:
            case.query["wait"] = 0.01
        case.call_and_validate(checks=CHECKS)

    keeps_its_word()
