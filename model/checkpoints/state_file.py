"""The tensors of a file of weights: .safetensors, a pickled state dict, or a TorchScript archive, whose code isn't run.

Such a file may come from anywhere: nothing of it is executed, and it takes no memory beyond what it holds.
It knows no network and no layout of names.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.checkpoints.torchscript import MAX_SHARING, is_torchscript, read_torchscript
from model.errors import WeightsUnavailable, reason_of

# how PyTorch's reader fails on a damaged pickle
DAMAGED = (
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
)


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, a pickled state dict or a TorchScript archive, whose code isn't run; float32.

    Raises: WeightsUnavailable if the file is absent, damaged, or of a kind that can't be read safely.
    """
    if not file.is_file():
        raise WeightsUnavailable("There is no such file.", "Check the path, or set VIDGRAIN_MODEL=tiny.", path=file)
    try:
        if file.suffix == ".safetensors":
            state: Any = load_file(file)
        elif is_torchscript(file):
            state = read_torchscript(file)
        else:
            state = _unpickled(file)
    except (SafetensorError, *DAMAGED) as error:
        raise WeightsUnavailable(
            f"The weights can't be read: {load_failure(error, file)}.",
            "A .safetensors file, a plain state dict or a TorchScript archive is needed.",
            path=file,
        ) from error
    for wrapper in ("state_dict", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsUnavailable("It doesn't hold a state dict (names to tensors).", path=file)
    plain = {str(key).removeprefix("module."): value for key, value in state.items()}
    _refuse_swollen(plain, file)
    return {key: value.float() if value.is_floating_point() else value for key, value in plain.items()}


def _unpickled(file: Path) -> Any:
    """By PyTorch's reader that runs no code. Raises: ValueError for packed entries, which could be of any size."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError("it is compressed, and PyTorch stores tensors as they are")
    return torch.load(file, map_location="cpu", weights_only=True)


def _refuse_swollen(state: Mapping[str, Tensor], file: Path) -> None:
    """Raises: WeightsUnavailable for tensors that aren't plain numbers of the file, or many times its size."""
    odd = [key for key, value in state.items() if value.layout is not torch.strided or value.device.type != "cpu"]
    if odd:
        raise WeightsUnavailable(
            f"These aren't plain tensors: {', '.join(odd[:6])}.", "Convert them to .safetensors first.", path=file
        )
    claimed, stored = sum(value.numel() * value.itemsize for value in state.values()), file.stat().st_size
    if claimed > MAX_SHARING * stored:
        raise WeightsUnavailable(f"Its tensors claim {claimed} bytes, in a file of {stored}.", path=file)


def load_failure(error: Exception, file: Path) -> str:
    """The line with the reason, without the path and the full stop; PyTorch's advice to let pickles run is left out."""
    if not isinstance(error, (SafetensorError, pickle.UnpicklingError, OSError, RuntimeError, ValueError)):
        return f"it is damaged, or something else ({type(error).__name__})"
    text = reason_of(error, file)
    _, _, unpickler = text.partition("WeightsUnpickler error:")
    lines = [line.strip() for line in (*unpickler.split("\n"), *text.split("\n"))]
    return next(line for line in lines if line).rstrip(".")
