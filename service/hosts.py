"""By which names the service may be called, and which pages may change something.

There is no login, so a browser on the same network must not be made a tool: neither by a page of another site, nor by
one whose own name suddenly leads to our address (DNS rebinding). This file knows headers and no application.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from service.errors import ForbiddenHost, ForbiddenOrigin

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOCAL_ENDINGS = (".localhost", ".local", ".lan", ".internal", ".home.arpa")
"""Names that nobody outside of the network can have an address for."""


def check_host(headers: Headers, allowed: Collection[str]) -> None:
    """Addresses, names without a dot and local names may always be used, others if they are among `allowed`.

    Raises: ForbiddenHost.
    """
    named = headers.get("host")
    if named is None:
        return  # no browser leaves it out
    host = _without_port(named)
    if "." not in host or host.endswith(_LOCAL_ENDINGS) or host in allowed or _is_address(host):
        return
    raise ForbiddenHost(
        f"this service is not known by the name {host[:200]!r}", "List it in VIDGRAIN_ALLOWED_HOSTS if it is yours."
    )


def check_origin(method: str, headers: Headers) -> None:
    """Pages of other sites may only read. Browsers say where a request was made, over plain HTTP by Origin alone.

    Raises: ForbiddenOrigin.
    """
    if method in _SAFE_METHODS:
        return
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    is_foreign = site in {"cross-site", "same-site"}
    if site is None and origin is not None:
        ours = {headers.get(name, "").strip().lower() for name in ("host", "x-forwarded-host")}
        is_foreign = _place(origin) not in ours
    if is_foreign:
        raise ForbiddenOrigin("a page of another site may not send this", "Call the API from your own server instead.")


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin.strip().lower()).netloc or None
    except ValueError:
        return None


def _without_port(named: str) -> str:
    named = named.strip().lower()
    if named.startswith("["):
        return named[1:].partition("]")[0]
    return named.rpartition(":")[0].rstrip(".") if ":" in named else named.rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
