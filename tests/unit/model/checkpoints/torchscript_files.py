"""TorchScript archives for tests: small CLIPs as PyTorch itself writes them, and what hostile ones would hold."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
from torch import Tensor, nn

SIZES = ("input_resolution", "context_length", "vocab_size")


def small_clip(config: Mapping[str, Any], *, has_sizes: bool = True, seed: int = 0) -> nn.Module:
    """open_clip's CLIP in half precision; has_sizes: with the three tensors that OpenAI's own class carries."""
    torch.manual_seed(seed)
    clip: nn.Module = open_clip.CLIP(**config).eval()
    for parameter in clip.parameters():
        parameter.data += torch.randn_like(parameter) * 0.02
    sizes = (
        config["vision_cfg"]["image_size"],
        config["text_cfg"]["context_length"],
        config["text_cfg"]["vocab_size"],
    )
    for name, size in zip(SIZES if has_sizes else (), sizes, strict=False):
        if hasattr(clip, name):
            delattr(clip, name)
        clip.register_buffer(name, torch.tensor(size))
    return clip


def save_archive(
    module: nn.Module, file: Path, how: Literal["script", "trace"] = "script", *inputs: Tensor
) -> dict[str, Tensor]:
    """Write an archive with PyTorch's own writer; the tensors that PyTorch's own reader finds in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is on its way out; the files that it wrote are not
        program = torch.jit.script(module) if how == "script" else torch.jit.trace(module, inputs, check_trace=False)
        program.save(str(file))  # type: ignore[no-untyped-call]
        state: dict[str, Tensor] = torch.jit.load(str(file)).state_dict()  # type: ignore[no-untyped-call]
    return state


def rewritten(
    source: Path, target: Path, changes: Mapping[str, bytes | None], *, method: int = zipfile.ZIP_STORED
) -> Path:
    """A copy with entries replaced, added or (None) left out; method: how the changed ones are packed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].split("/")[0]
        wanted = {f"{root}/{name}": content for name, content in changes.items()}
        for info in old.infolist():
            if info.filename not in wanted:
                new.writestr(info.filename, old.read(info))
        for name, content in wanted.items():
            if content is not None:
                new.writestr(name, content, compress_type=method)
    return target


def archive_of(target: Path, data_pkl: bytes, *storages: bytes) -> Path:
    """An archive with these parts."""
    with zipfile.ZipFile(target, "w") as new:
        new.writestr("m/data.pkl", data_pkl)
        new.writestr("m/constants.pkl", pickle.dumps((), protocol=2))
        for key, content in enumerate(storages):
            new.writestr(f"m/data/{key}", content)
    return target


def text(value: str) -> bytes:
    """The pickle instruction for a text."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    """The pickle instruction for a number of up to 255 bytes."""
    content = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def named(name: str) -> bytes:
    """The pickle instruction that asks for 'module.name'."""
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def tensor(
    *, offset: int = 0, size: tuple[int, ...], stride: tuple[int, ...], num: int, key: str = "0", kind: str = "Float"
) -> bytes:
    """The pickle instructions for a tensor over storage `key` of `num` elements."""
    storage = b"(" + text("storage") + named(f"torch.{kind}Storage") + text(key) + text("cpu") + number(num) + b"tQ"
    sizes, strides = (b"(" + b"".join(map(number, values)) + b"t" for values in (size, stride))
    hooks = named("collections.OrderedDict") + b")R"
    return (
        named("torch._utils._rebuild_tensor_v2")
        + b"("
        + storage
        + number(offset)
        + sizes
        + strides
        + b"\x89"
        + (hooks + b"tR")
    )


def module(**fields: bytes) -> bytes:
    """The pickle instructions for a module with these fields."""
    content = b"".join(text(name) + value for name, value in fields.items())
    return named("__torch__.foreign.Module") + b")\x81}(" + content + b"ub"


def whole(value: bytes) -> bytes:
    """A complete pickle."""
    return b"\x80\x02" + value + b"."
