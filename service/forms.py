"""Parses a multipart form as it arrives: small fields go into memory, the bytes of its one file to the caller.

The number of parts, the bytes of the fields and the bytes of the file are limited. python-multipart parses the syntax;
this file knows no disk and no HTTP framework.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import InvalidRequest, MalformedBody, PayloadTooLarge

MAX_FIELDS_BYTES = 2**20
_MAX_PARTS = 16


class FormParts:
    """Parses a multipart body: `fields` hold its text, `waiting` the bytes of the file until the caller takes them."""

    def __init__(self, content_type: str, max_upload_bytes: int, allowed: frozenset[str]) -> None:
        self.fields: dict[str, str] = {}
        self.file_name: str | None = None
        self.waiting = bytearray()
        self._limit = max_upload_bytes
        self._allowed = allowed
        self._num_parts = 0
        self._num_file_bytes = 0
        self._num_field_bytes = 0
        self._part = _Part()
        self._is_complete = False
        try:
            self._parser = MultipartParser(
                _boundary(content_type),
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                    "on_end": self._complete,
                },
            )
        except FormParserError as error:
            raise MalformedBody(f"the form can't be read: {error}") from error

    def feed(self, chunk: bytes) -> None:
        """Parse more of the body. Raises: MalformedBody, PayloadTooLarge, InvalidRequest."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise MalformedBody(f"the form can't be read: {error}") from error

    def take(self) -> bytes:
        """Remove and return the bytes of the file that are waiting to be written."""
        taken = bytes(self.waiting)
        self.waiting.clear()
        return taken

    def finish(self) -> None:
        """End the body. Raises: MalformedBody if its closing boundary is missing."""
        if not self._is_complete:
            raise MalformedBody("the form ends before its closing boundary", "The upload was cut short; send it again.")

    def _begin(self) -> None:
        self._part = _Part()
        self._num_parts += 1
        if self._num_parts > _MAX_PARTS:
            raise MalformedBody(f"the form has more than {_MAX_PARTS} parts")

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def _header_end(self) -> None:
        if self._part.header_name.lower() == b"content-disposition":
            self._part.disposition = self._part.header_value
        self._part.header_name = self._part.header_value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._part.disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self._part.name = name
        self._part.is_file = name == "file"
        if name != "file" and name not in self._allowed:
            raise InvalidRequest(f"{name[:100]!r}: no such field", fields=[(name[:100], "no such field")])
        if name in self.fields or (self._part.is_file and self.file_name is not None):
            raise InvalidRequest(f"{name}: given twice", fields=[(name, "given twice")])
        if self._part.is_file:
            self.file_name = options.get(b"filename", b"").decode("utf-8", "replace")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.is_file:
            self._num_file_bytes += end - start
            if self._num_file_bytes > self._limit:
                raise PayloadTooLarge(*too_large(self._limit))
            self.waiting += data[start:end]
            return
        self._num_field_bytes += end - start
        if self._num_field_bytes > MAX_FIELDS_BYTES:
            raise PayloadTooLarge(f"the fields besides the file may have at most {MAX_FIELDS_BYTES} bytes together")
        self._part.value += data[start:end]

    def _end(self) -> None:
        if not self._part.is_file:
            try:
                self.fields[self._part.name] = self._part.value.decode("utf-8")
            except UnicodeDecodeError as error:
                name = self._part.name
                raise InvalidRequest(f"{name}: not UTF-8", fields=[(name, "not UTF-8")]) from error

    def _complete(self) -> None:
        self._is_complete = True


def too_large(limit_bytes: int) -> tuple[str, str]:
    """Message and hint for a file over the limit."""
    return (f"the file is larger than {limit_bytes} bytes", "The limit is VIDGRAIN_MAX_UPLOAD_BYTES.")


def _boundary(content_type: str) -> bytes:
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise MalformedBody("the Content-Type has no multipart boundary")
    return boundary


@dataclass
class _Part:
    name: str = ""
    is_file: bool = False
    header_name: bytes = b""
    header_value: bytes = b""
    disposition: bytes = b""
    value: bytearray = field(default_factory=bytearray)
