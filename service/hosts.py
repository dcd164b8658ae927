"""Which host names the service answers to, and which pages may change something.

There is no login, so a browser on the same network must not become another site's tool: neither through a page of that
site, nor through a host name that suddenly resolves to our address (DNS rebinding). It knows headers, no application.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from service.errors import ForbiddenHost, ForbiddenOrigin

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOCAL_ENDINGS = (".localhost", ".local", ".lan", ".internal", ".home.arpa")
"""Names that can't be registered outside the local network."""


def check_host(headers: Headers, allowed: Collection[str]) -> None:
    """Accept addresses, names without a dot, local names, and the names in `allowed`.

    Raises: ForbiddenHost.
    """
    named = headers.get("host")
    if named is None:
        return  # browsers always send it
    host = _without_port(named)
    if "." not in host or host.endswith(_LOCAL_ENDINGS) or host in allowed or _is_address(host):
        return
    raise ForbiddenHost(
        f"this service does not answer to the host name {host[:200]!r}",
        "If the name is yours, add it to VIDGRAIN_ALLOWED_HOSTS.",
    )


def check_origin(method: str, headers: Headers) -> None:
    """Refuse changes that pages of other sites ask for.

    Over plain HTTP, browsers send Origin only, and no Sec-Fetch-Site.
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
        raise ForbiddenOrigin(
            "a page of another site may not send this request", "Call the API from your own server instead."
        )


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
