"""The door to TorchScript archives, which OpenAI released CLIP as: their tensors by name, nothing of their programs.

An archive is a zip. data.pkl is a pickle of one record per module, with tensors that lie in data/0, data/1, ...;
code/ and constants.pkl are the program. Loading one the usual way builds that program, and unpickling can run anything,
so neither torch.jit nor an unpickler is used: the pickle's instructions are read one by one, the few that make records,
tensors and plain values are followed, and the first other one is an error that names it. What a file claims about its
sizes is held against its own size before memory is taken. It knows no layout of names.
Source: the format as torch/csrc/jit/serialization/pickler.cpp and export_module.cpp of PyTorch write it.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from model.errors import WeightsUnavailable, reason_of

MAX_PICKLE_BYTES = 4 << 20
MAX_DIRECTORY_BYTES = 8 << 20
MAX_ENTRIES = 50_000
MAX_NAMES = 50_000
MAX_DEPTH = 64
MAX_DIMENSIONS = 8
MAX_SHARING = 4
"""All tensors together may be this many times as large as the file: storages that modules share count each time."""

_HINT = "OpenAI's files of CLIP are read, and archives with tensors as they have; convert others to .safetensors first."
_CHUNK_BYTES = 1 << 20
_MODULES = "__torch__"
_DTYPES = {
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch FloatStorage": torch.float32,
    "torch DoubleStorage": torch.float64,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}
_TYPED = ("restore_type_tag", "build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
_MAKERS = {
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "collections OrderedDict",
    *(f"torch.jit._pickle {name}" for name in _TYPED),
}
_INSTRUCTIONS = {instruction.code: instruction for instruction in pickletools.opcodes}
_MARK = object()
_T = TypeVar("_T")


def is_torchscript(file: Path) -> bool:
    """Whether a file is a TorchScript archive. Raises: WeightsUnavailable for a zip that lists too much."""
    try:
        with _opened(file) as archive:
            return _root(archive) is not None
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):
        return False


def read_torchscript(file: Path) -> dict[str, Tensor]:
    """The tensors of an archive under their dotted names, in the type they have there.

    Raises: WeightsUnavailable if it is damaged, holds more than records and tensors, or claims more than it holds.
    """
    try:
        with _opened(file) as archive:
            return _Archive(archive, file.stat().st_size).tensors()
    except (zipfile.BadZipFile, OSError, ValueError, IndexError, KeyError, TypeError, RuntimeError) as error:
        why = reason_of(error, file)
        raise WeightsUnavailable(f"The TorchScript archive can't be used: {why}.", _HINT, path=file) from error


@dataclass
class _Record:
    """One object of the program, of any class."""

    fields: dict[Any, Any] | None = None


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    num: int


@dataclass(frozen=True)
class _View:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.size) * self.storage.dtype.itemsize


class _Archive:
    """An open archive whose directory has been checked."""

    def __init__(self, archive: zipfile.ZipFile, file_bytes: int) -> None:
        self._archive, self._file_bytes = archive, file_bytes
        self._root = _root(archive) or _refuse("it has no constants.pkl")
        infos = archive.infolist()
        self._infos = {info.filename: info for info in infos}
        if len(infos) > MAX_ENTRIES or len(self._infos) < len(infos):
            _refuse(f"it lists {len(infos)} entries, {len(infos) - len(self._infos)} of them twice")
        stored = [info.file_size for info in infos if info.filename.startswith(f"{self._root}/data/")]
        if sum(stored) > file_bytes:
            _refuse(f"its storages claim {sum(stored)} bytes and the file has {file_bytes}")

    def tensors(self) -> dict[str, Tensor]:
        order = f"{self._root}/byteorder"
        if order in self._infos and self._bytes("byteorder", 16) != b"little":
            _refuse("its numbers aren't little-endian")
        record = _Pickle().follow(bytes(self._bytes("data.pkl", MAX_PICKLE_BYTES)))
        if not isinstance(record, _Record):
            _refuse("data.pkl holds no module")
        views: dict[str, _View] = {}
        _flatten(record, "", 0, views, [0])
        total = sum(view.size_bytes for view in views.values())
        if total > MAX_SHARING * self._file_bytes:
            _refuse(f"its tensors claim {total} bytes and the file has {self._file_bytes}")
        read: dict[str, bytearray] = {}
        return {name: self._tensor(view, read) for name, view in views.items()}

    def _tensor(self, view: _View, read: dict[str, bytearray]) -> Tensor:
        storage = view.storage
        wanted = storage.num * storage.dtype.itemsize
        if storage.key not in read:
            read[storage.key] = self._bytes(f"data/{storage.key}", self._file_bytes)
        data = read[storage.key]
        if len(data) < wanted:
            _refuse(f"data/{storage.key} has {len(data)} bytes and {wanted} are needed")
        flat = torch.frombuffer(data, dtype=storage.dtype, count=storage.num) if storage.num else torch.empty(0)
        return flat.to(storage.dtype).as_strided(view.size, view.stride, view.offset)

    def _bytes(self, name: str, limit: int) -> bytearray:
        """An entry's content: stored as it is, so that it can't be larger than the file."""
        info = self._infos.get(f"{self._root}/{name}")
        if info is None:
            _refuse(f"{name} isn't in it")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            _refuse(f"{name} is compressed or locked; PyTorch stores it as it is")
        if info.file_size != info.compress_size or info.file_size > min(limit, self._file_bytes):
            _refuse(f"{name} claims {info.file_size} bytes, {info.compress_size} in a file of {self._file_bytes}")
        content = bytearray(info.file_size)
        with self._archive.open(info) as entry:
            for start in range(0, len(content), _CHUNK_BYTES):
                wanted = min(_CHUNK_BYTES, len(content) - start)
                part = entry.read(wanted)  # the last one holds the checksum against what was read
                if len(part) < wanted:
                    _refuse(f"{name} is cut short")
                content[start : start + wanted] = part
        return content


def _instructions(data: bytes) -> Iterator[tuple[str, Any, int]]:
    """Name, argument and byte position of one instruction after another.

    pickletools.genops would decode the escapes of any text on its way, and warn of those that Python doesn't know.
    """
    content = io.BytesIO(data)
    while code := content.read(1):
        position = content.tell() - 1
        instruction = _INSTRUCTIONS.get(code.decode("latin-1"))
        if instruction is None:
            raise ValueError(f"data.pkl has no instruction at byte {position}")
        argument = instruction.arg
        if instruction.name == "GLOBAL":
            module, name = (content.readline().removesuffix(b"\n").decode() for _ in range(2))
            yield "GLOBAL", f"{module} {name}", position
        elif argument is None:
            yield instruction.name, None, position
        elif argument.n == pickletools.UP_TO_NEWLINE:
            _refuse(f"data.pkl has the instruction {instruction.name} at byte {position}, which no weights need")
        else:
            yield instruction.name, argument.reader(content), position


class _Pickle:
    """The stack and the memo of the pickle machine, for the instructions that PyTorch writes."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def follow(self, data: bytes) -> Any:
        try:
            for name, argument, position in _instructions(data):
                if name == "STOP":
                    (value,) = self._stack
                    return value
                self._follow_one(name, argument, position)
        except (struct.error, AttributeError, OverflowError, UnicodeError) as error:
            raise ValueError(f"data.pkl isn't a pickle of PyTorch's: {error}") from error
        raise ValueError("data.pkl ends early")

    def _follow_one(self, name: str, argument: Any, position: int) -> None:
        stack = self._stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({} if name == "EMPTY_DICT" else [] if name == "EMPTY_LIST" else ())
            case "MARK":
                stack.append(_MARK)
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack[-int(name[-1]) :] = [tuple(stack[-int(name[-1]) :])]
            case "APPEND" | "APPENDS":
                values = [stack.pop()] if name == "APPEND" else self._since_mark()
                _as(list, stack[-1]).extend(values)
            case "SETITEM" | "SETITEMS":
                values = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._since_mark()
                _as(dict, stack[-1]).update(_paired(values))
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self._memo[len(self._memo) if argument is None else argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(_global(argument))
            case "STACK_GLOBAL":
                stack[-2:] = [_global(f"{_as(str, stack[-2])} {_as(str, stack[-1])}")]
            case "BINPERSID":
                stack.append(_storage(_as(tuple, stack.pop())))
            case "NEWOBJ":
                made, arguments = _as(_Global, stack.pop(-2)), stack.pop()
                if not _is_module(made.name) or arguments != ():
                    _refuse(f"data.pkl makes an object of {made.name.replace(' ', '.')} at byte {position}")
                stack.append(_Record())
            case "BUILD":
                record, fields = _as(_Record, stack[-2]), _as(dict, stack.pop())
                record.fields = fields
            case "REDUCE":
                made, arguments = _as(_Global, stack.pop(-2)), _as(tuple, stack.pop())
                stack.append(_made(made.name, arguments))
            case _:
                _refuse(f"data.pkl has the instruction {name} at byte {position}, which no weights need")

    def _since_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]


class _Measured(io.FileIO):
    """A file that gives little at once: zipfile would read a whole directory, however long it claims to be."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise WeightsUnavailable(f"The zip claims a directory of {size} bytes.", _HINT, path=Path(str(self.name)))
        return super().read(size) or b""


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    with _Measured(file) as measured, zipfile.ZipFile(measured) as archive:
        yield archive


def _root(archive: zipfile.ZipFile) -> str | None:
    """The folder that everything in a TorchScript archive lies in; None if it isn't one."""
    roots = [name.split("/")[0] for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    return next((root for root in roots if f"{root}/constants.pkl" in archive.NameToInfo), None)


def _global(name: str) -> _Global:
    if not (name in _MAKERS or name in _DTYPES or _is_module(name)):
        _refuse(f"data.pkl asks for {name.replace(' ', '.')[:100]}, which no weights need")
    return _Global(name)


def _is_module(name: str) -> bool:
    return name.startswith((f"{_MODULES}.", f"{_MODULES} "))


def _made(name: str, arguments: tuple[Any, ...]) -> Any:
    """What calling one of the makers gives; none of them is called."""
    if name == "torch._utils _rebuild_tensor_v2":
        storage, offset, size, stride = arguments[:4]
        return _view(_as(_Storage, storage), offset, _as(tuple, size), _as(tuple, stride))
    if name == "torch._utils _rebuild_parameter":
        return _as(_View, arguments[0])
    if name == "collections OrderedDict" and not arguments:
        return {}
    if name.startswith("torch.jit._pickle "):  # a typed list or dict: the value stands first
        return arguments[0]
    return _refuse(f"data.pkl calls {name.replace(' ', '.')} with {len(arguments)} arguments")


def _storage(reference: tuple[Any, ...]) -> _Storage:
    """('storage', type, key, device, number of elements); where it once lay doesn't matter."""
    kind, made, key, _, num = reference
    dtype = _DTYPES.get(_as(_Global, made).name)
    if kind != "storage" or dtype is None or not isinstance(key, str) or not _is_size(num):
        _refuse("data.pkl refers to a storage in a way that PyTorch doesn't")
    return _Storage(key, dtype, num)


def _view(storage: _Storage, offset: Any, size: tuple[Any, ...], stride: tuple[Any, ...]) -> _View:
    """A tensor that stays within its storage and has no more elements than that."""
    if not all(map(_is_size, (offset, *size, *stride))) or len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        _refuse("data.pkl has a tensor with impossible sizes")
    num = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if num and (last >= storage.num or num > storage.num):
        _refuse(f"data.pkl has a tensor of shape {size} over {storage.num} numbers of data/{storage.key}")
    return _View(storage, offset if num else 0, size, stride)


def _flatten(record: _Record, prefix: str, depth: int, views: dict[str, _View], num_seen: list[int]) -> None:
    """Records within records -> dotted names, tensors only; a module that is used twice is there twice."""
    for name, value in (record.fields or {}).items():
        num_seen[0] += 1
        if depth > MAX_DEPTH or num_seen[0] > MAX_NAMES:
            _refuse(f"its modules lie more than {MAX_DEPTH} deep or have more than {MAX_NAMES} fields")
        if not isinstance(name, str) or not name or "." in name:
            _refuse(f"a module has a field {name!r:.50}")
        if isinstance(value, _View):
            views[prefix + name] = value
        elif isinstance(value, _Record):
            _flatten(value, f"{prefix}{name}.", depth + 1, views, num_seen)


def _as(kind: type[_T], value: Any) -> _T:
    if not isinstance(value, kind):
        raise TypeError(f"data.pkl has a {type(value).__name__.strip('_')} where a {kind.__name__.strip('_')} belongs")
    return value


def _paired(values: list[Any]) -> dict[str | int, Any]:
    keys = values[::2]
    if not all(isinstance(key, str | int) for key in keys):
        raise TypeError("data.pkl has a key that is neither text nor number")
    return dict(zip(keys, values[1::2], strict=True))


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40


def _refuse(why: str) -> NoReturn:
    raise ValueError(why)
