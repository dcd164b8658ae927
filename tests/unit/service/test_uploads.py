"""A multipart body becomes one file on disk, or nothing at all."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from indexer.errors import StorageFull
from model.errors import VidgrainError
from service.errors import InvalidRequest, MalformedBody, PayloadTooLarge
from service.uploads import Form, receive, sweep

BOUNDARY = "b-o-u-n-d"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str, value: bytes, file_name: str | None = None) -> bytes:
    given_name = f'; filename="{file_name}"' if file_name is not None else ""
    return (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{given_name}\r\n\r\n'.encode() + value + b"\r\n"
    )


END = f"--{BOUNDARY}--\r\n".encode()


def run(
    folder: Path,
    chunks: Sequence[bytes],
    *,
    content_type: str = TYPE,
    limit: int = 10**7,
    headers: Sequence[tuple[bytes, bytes]] = (),
    is_cut: bool = False,
    use: Callable[[Form], Any] = lambda form: form,
) -> Any:
    """What `use` makes of the form that these chunks are received as; is_cut: the client leaves after them."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.disconnect"} if is_cut else {"type": "http.request", "body": b""})

    async def next_message() -> dict[str, Any]:
        return messages.pop(0)

    async def go() -> Any:
        all_headers = [(b"content-type", content_type.encode()), *headers]
        request = Request({"type": "http", "method": "POST", "headers": all_headers}, next_message)  # type: ignore[arg-type]
        allowed = frozenset({"title", "metadata"})
        async with receive(request, lambda: _made(folder), max_upload_bytes=limit, allowed=allowed) as form:
            return use(form)

    return asyncio.run(go())


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def is_empty(folder: Path) -> bool:
    return not folder.exists() or not list(folder.iterdir())


def test_a_file_is_whole_and_hashed(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    body = part("title", "ä title".encode()) + part("file", content, "My Film.MP4") + END

    def use(form: Form) -> None:
        assert form.fields == {"title": "ä title"}
        assert form.upload.file_name == "My Film.MP4"
        assert form.upload.size_bytes == len(content)
        assert form.upload.sha256 == hashlib.sha256(content).hexdigest()
        assert form.upload.path.read_bytes() == content

    run(tmp_path / "in", [body[i : i + 7001] for i in range(0, len(body), 7001)], use=use)
    assert is_empty(tmp_path / "in")


def test_what_is_moved_away_stays(tmp_path: Path) -> None:
    body = [part("file", b"abc", "a.mp4") + END]
    kept = run(tmp_path / "in", body, use=lambda form: form.upload.path.rename(tmp_path / "kept"))
    assert kept.read_bytes() == b"abc" and is_empty(tmp_path / "in")


def test_what_is_not_kept_is_gone(tmp_path: Path) -> None:
    path = run(tmp_path / "in", [part("file", b"abc", "a.mp4") + END], use=lambda form: form.upload.path)
    assert path.parent == tmp_path / "in" and is_empty(tmp_path / "in")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\films\\x.MOV", "x.MOV"),
        ("page.html", "page.html"),
        ("a.mp4.exe", "a.mp4.exe"),
        ("", "video"),
        ("..", "video"),
        ("a\u202e\u0007b.webm", "ab.webm"),
        ("x" * 400 + ".mkv", "x" * 196 + ".mkv"),
    ],
)
def test_a_clients_file_name_is_only_a_name(tmp_path: Path, given: str, kept: str) -> None:
    body = [part("file", b"abc", given.replace("\\", "\\\\")) + END]
    assert run(tmp_path / "in", body, use=lambda form: form.upload.file_name) == kept


@pytest.mark.parametrize(
    ("chunks", "error"),
    [
        ([part("file", b"x" * 1001, "a.mp4") + END], PayloadTooLarge),
        ([part("file", b"x" * 900, "a.mp4"), part("file", b"x" * 10, "b.mp4") + END], InvalidRequest),
        ([part("title", b"a") + part("title", b"b") + part("file", b"x", "a.mp4") + END], InvalidRequest),
        ([part("title", b"only") + END], InvalidRequest),
        ([part("other", b"x") + part("file", b"x", "a.mp4") + END], InvalidRequest),
        ([part("title", b"\xff\xfe") + part("file", b"x", "a.mp4") + END], InvalidRequest),
        ([part("title", b"x" * (2**20 + 1)) + END], PayloadTooLarge),
        ([part("file", b"x" * 100, "a.mp4")], MalformedBody),
        ([part("file", b"x" * 100, "a.mp4") + END[:5]], MalformedBody),
        ([b"no form at all"], MalformedBody),
        ([b""], MalformedBody),
        ([b"--" + BOUNDARY.encode() + b"\r\n" + b"h: " + b"x" * 100_000 + b"\r\n\r\n"], MalformedBody),
        ([b"--" + BOUNDARY.encode() + b"\r\n\r\nnameless\r\n" + END], InvalidRequest),
    ],
)
def test_a_wrong_body_is_an_error_and_leaves_nothing(
    tmp_path: Path, chunks: list[bytes], error: type[VidgrainError]
) -> None:
    with pytest.raises(error):
        run(tmp_path / "in", chunks, limit=1000)
    assert is_empty(tmp_path / "in")


def test_the_limit_holds_while_the_file_arrives(tmp_path: Path) -> None:
    """The receiver stops at the chunk that passes the limit: the rest of an endless upload is never asked for."""
    endless = [part("file", b"", "a.mp4")[:-2], *[b"x" * 400] * 3]
    with pytest.raises(PayloadTooLarge):
        run(tmp_path / "in", endless, limit=1000, is_cut=True)
    assert is_empty(tmp_path / "in")


def test_a_length_past_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(PayloadTooLarge):
        run(tmp_path / "in", [], limit=1000, headers=[(b"content-length", b"99999999999")])


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", "multipart/form-data; boundary=", f"{TYPE}{'x' * 300}"]
)
def test_a_boundary_that_is_none(tmp_path: Path, content_type: str) -> None:
    with pytest.raises(MalformedBody):
        run(tmp_path / "in", [part("file", b"x", "a.mp4") + END], content_type=content_type)


def test_a_client_that_leaves_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ClientDisconnect):
        run(tmp_path / "in", [part("file", b"x" * 3_000_000, "a.mp4")], is_cut=True)
    assert is_empty(tmp_path / "in")


def test_a_disk_without_room_is_said_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(StorageFull):
        run(tmp_path / "in", [], limit=10**18, headers=[(b"content-length", b"9" * 17)])


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """The kernel refuses to let files of this process grow larger: the nearest thing to a full disk without root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_disk_that_fills_up_on_the_way_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    body = part("file", b"x" * 3_000_000, "a.mp4") + END
    with largest_file(1_500_000), pytest.raises(StorageFull) as caught:
        run(tmp_path / "in", [body[i : i + 65536] for i in range(0, len(body), 65536)])
    assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == errno.EFBIG
    assert is_empty(tmp_path / "in")


def test_sweep_removes_what_nobody_is_receiving(tmp_path: Path) -> None:
    (tmp_path / "left-behind").write_bytes(b"x")
    with (tmp_path / "arriving").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert sweep(tmp_path) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["arriving"]
    assert sweep(tmp_path) == 1
    (tmp_path / "folder").mkdir()
    assert sweep(tmp_path) == 0
    assert sweep(tmp_path / "not-there") == 0


def test_sweep_spares_an_upload_under_way(tmp_path: Path) -> None:
    swept = run(tmp_path / "in", [part("file", b"abc", "a.mp4") + END], use=lambda form: sweep(tmp_path / "in"))
    assert swept == 0


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400), cuts=st.lists(st.integers(1, 40), max_size=12), cut_off=st.integers(0, 500))
def test_any_split_of_any_body_gives_the_file_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cuts: list[int], cut_off: int
) -> None:
    folder = tmp_path_factory.mktemp("in")
    body = part("file", data, "a.bin") + END
    sent = body[:cut_off] if cut_off < len(END) + 100 else body
    chunks, at = [], 0
    for size in [*cuts, len(sent)]:
        chunks.append(sent[at : at + size])
        at += size
    try:
        received = run(folder, chunks, use=lambda form: form.upload.path.read_bytes())
    except VidgrainError:
        assert sent != body or BOUNDARY.encode() in data
    else:
        assert received == data
    assert is_empty(folder)
