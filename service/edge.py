"""The outermost layer: each request gets an id, safe headers and one log line, and any error becomes a problem.

Plain ASGI, so that streams stay streams. It knows no route.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indexer.catalogue.rows import storable
from model.errors import VidgrainError
from service.bodies import from_validation
from service.errors import (
    PROBLEM_TYPE,
    Internal,
    InvalidRequest,
    MalformedBody,
    MethodNotAllowed,
    NoSuchPage,
    headers,
    problem,
    status_and_title,
)
from service.hosts import check_host, check_origin
from service.incoming_body import IncomingBody
from service.observability import new_request_id, request_id_var

log = logging.getLogger("vidgrain.edge")

SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}


class Edge:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str] = (), root_path: str = "") -> None:
        self._app = app
        self._allowed_hosts = frozenset(allowed_hosts)
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; other kinds of connection are passed on untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = _with_root_path(scope, self._root_path)
        received = Headers(scope=scope)
        request_id = new_request_id(received.get("x-request-id"))
        token = request_id_var.set(request_id)
        began_s, status = time.monotonic(), 0
        body, closes = IncomingBody(receive, received), False

        async def send_safely(message: Message) -> None:
            nonlocal status, closes
            if message["type"] == "http.response.start":
                status = message["status"]
                await body.finish_if_small()
                closes = body.is_unread
                _complete_headers(message, request_id, closes)
            elif closes and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.run_out()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            check_host(received, self._allowed_hosts)
            check_origin(scope["method"], received)
            await self._app(scope, body.receive, send_safely)
        except Exception as error:  # the top: any error becomes an answer, or ends a body that has begun
            if status:
                log.exception("answer_broke_off")
                raise
            await answer(error)(scope, body.receive, send_safely)
        finally:
            fields = {"method": scope["method"], "path": scope["path"][:500], "status": status}
            log.info("request_served", extra=fields | {"took_ms": round((time.monotonic() - began_s) * 1000, 1)})
            request_id_var.reset(token)


def install(app: FastAPI, allowed_hosts: Collection[str] = (), root_path: str = "") -> None:
    """Answer every error of the application here. allowed_hosts: as in hosts.py. root_path: the proxy's."""

    async def handle(_: Request, error: Exception) -> Response:
        return answer(error)

    for kind in (VidgrainError, HTTPException, RequestValidationError, ClientDisconnect):
        app.add_exception_handler(kind, handle)
    app.add_middleware(Edge, allowed_hosts=allowed_hosts, root_path=root_path)


def answer(error: Exception) -> Response:
    """The problem response for an error. An unforeseen one is logged with its traceback and reported as `internal`."""
    ours = _translate(error)
    status, _ = status_and_title(ours)
    if status >= 500:
        log.error("request_failed", extra={"code": ours.code, "detail": str(ours)}, exc_info=error)
    body = problem(ours, request_id_var.get() or "")
    for name in ("detail", "hint"):
        if name in body:
            body[name] = storable(body[name])  # the name of a file need not be Unicode
    return JSONResponse(body, status, headers=headers(ours), media_type=PROBLEM_TYPE)


def _translate(error: Exception) -> VidgrainError:
    if isinstance(error, VidgrainError):
        return error
    if isinstance(error, RequestValidationError):
        return from_validation([e | {"loc": e["loc"][1:]} for e in error.errors()], "request")
    if isinstance(error, ClientDisconnect):
        return MalformedBody("the client left before its request was complete")
    if isinstance(error, HTTPException):
        if error.status_code == 404:
            return NoSuchPage("there is nothing at this path", "The paths are listed at /docs.")
        if error.status_code == 405:
            return MethodNotAllowed("this path does not take that method", headers=error.headers)
        if error.status_code < 500:
            return InvalidRequest(str(error.detail), headers=error.headers)
    return Internal("something failed on our side", "The server's log has the reason under this request_id.")


def _with_root_path(scope: Scope, configured: str) -> Scope:
    """The scope with a path that begins with its root path, as ASGI requires, whether or not a proxy stripped that."""
    root: str = scope.get("root_path", "") or configured
    path: str = scope["path"]
    is_whole = path == root or path.startswith(f"{root}/")
    return {**scope, "root_path": root, "path": path if is_whole else f"{root}{path}"}


def _complete_headers(start: Message, request_id: str, closes: bool) -> None:
    sent = MutableHeaders(raw=start.setdefault("headers", []))
    sent["x-request-id"] = request_id
    for name, value in SAFE_HEADERS.items():
        sent.setdefault(name, value)
    if closes:
        sent["connection"] = "close"
