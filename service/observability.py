"""Logs: one line per event to stderr, with the request's id. stdout is for data.

Every layer logs through `logging`: the message is the event's past-tense name, the fields go in `extra`:
`log.info("job_failed", extra={"job_id": ...})`. This file knows no HTTP.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from contextvars import ContextVar
from typing import Any, Literal, TextIO

request_id_var: ContextVar[str | None] = ContextVar("vidgrain_request_id", default=None)
"""The id of the request being answered; None outside a request. It is also set in the threads of the pool."""

log = logging.getLogger("vidgrain.service")

_OWN_LOGGERS = ("vidgrain", "service", "indexer", "model", "uvicorn")
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}


def new_request_id(proposed: str | None) -> str:
    """The caller's X-Request-ID if it is harmless (1 to 64 of letters, digits and ._-), else a new one."""
    if proposed is not None and re.fullmatch(r"[A-Za-z0-9._-]{1,64}", proposed):
        return proposed
    return uuid.uuid4().hex


def configure_logging(level: str, log_format: Literal["json", "text"], stream: TextIO | None = None) -> None:
    """Send the logs of Vidgrain and uvicorn to stderr. May be called again; the last call wins."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    for name in _OWN_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
    access = logging.getLogger("uvicorn.access")  # request_served reports the same, with the id
    access.handlers[:] = []
    access.propagate = False
    errors = logging.getLogger("uvicorn.error")
    errors.handlers[:] = []
    errors.setLevel(logging.NOTSET)
    errors.propagate = True


class JsonLines(logging.Formatter):
    """{"at", "level", "event", "logger", "request_id"?, ...fields, "error"?} on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object; a value that JSON can't hold is written as its repr."""
        return json.dumps(_event(self, record), ensure_ascii=False, default=repr).encode(errors="replace").decode()


class TextLines(logging.Formatter):
    """time level event key=value ... for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, then the traceback if there is one."""
        event = _event(self, record)
        traceback = event.pop("error", None)
        head = f"{event.pop('at')} {event.pop('level'):<7} {event.pop('event')}"
        event.pop("logger")
        line = " ".join([head, *(f"{key}={value}" for key, value in event.items())])
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)  # one event is one line
        return f"{line}\n{traceback}" if traceback else line


def _event(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, Any]:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    event: dict[str, Any] = {
        "at": f"{stamp}.{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "event": record.getMessage(),
        "logger": record.name,
    }
    if (request_id := request_id_var.get()) is not None:
        event["request_id"] = request_id
    event.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
    if record.exc_info and record.exc_info[0] is not None:
        event["error"] = formatter.formatException(record.exc_info)
    return event
