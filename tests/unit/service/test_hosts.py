"""Who may call the service by which name, and which pages may change something."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from service.errors import ForbiddenHost, ForbiddenOrigin
from service.hosts import check_host, check_origin
from service.settings import Settings


@pytest.mark.parametrize(
    "host",
    [
        *("localhost:8000", "127.0.0.1:8000", "192.168.1.5", "[::1]:8000", "nas:8000", "nas.local", "a.localhost:1"),
        *("search.example.com", "Search.Example.com.:443"),
    ],
)
def test_addresses_local_names_and_listed_ones_are_ours(host: str) -> None:
    check_host(Headers({"host": host}), {"search.example.com"})


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "x.search.example.com", "local.evil", "1.2.3"],
)
def test_a_name_that_anybody_may_own_is_not_ours(host: str) -> None:
    with pytest.raises(ForbiddenHost):
        check_host(Headers({"host": host}), {"search.example.com"})


def test_a_request_without_a_host_is_no_browsers() -> None:
    check_host(Headers({}), ())


HERE = {"host": "192.168.1.5:8000"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://192.168.1.5:8000"},
        {"origin": "HTTP://192.168.1.5:8000", "x-forwarded-host": "other"},
        {"origin": "https://search.example.com", "x-forwarded-host": "search.example.com"},
        {"origin": "http://evil.example", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ],
)
def test_our_own_pages_and_programs_may_write(headers: dict[str, str]) -> None:
    check_origin("POST", Headers(HERE | headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://192.168.1.5"},
        {"origin": "http://192.168.1.5:8000.evil.example"},
        {"origin": "null"},
        {"origin": "http://[broken"},
        {"origin": ""},
        {"origin": "http://192.168.1.5:8000", "sec-fetch-site": "cross-site"},
    ],
)
def test_other_pages_may_read_and_not_write(headers: dict[str, str]) -> None:
    """Over plain HTTP to an address a browser sends no Sec-Fetch-Site: Origin alone tells."""
    check_origin("GET", Headers(HERE | headers))
    for method in ("POST", "PATCH", "DELETE"):
        with pytest.raises(ForbiddenOrigin):
            check_origin(method, Headers(HERE | headers))


def test_the_setting_is_a_list_and_reaches_a_child_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDGRAIN_ALLOWED_HOSTS", "Search.example.com, other.example ,")
    chosen = Settings()
    assert chosen.allowed_hosts == ("search.example.com", "other.example")
    monkeypatch.setenv("VIDGRAIN_ALLOWED_HOSTS", chosen.environment()["VIDGRAIN_ALLOWED_HOSTS"])
    assert Settings().allowed_hosts == chosen.allowed_hosts
