"""The fingerprint: two models that have the same one give the same features.

It knows tensors and plain configuration values; it knows no file and no network class.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

FEATURES_VERSION = 1
"""Raise it when the code gives other features for the same weights: stored features then count as another model's."""

FINGERPRINT_HEX = 16


def fingerprint(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    """16 hex digits over every tensor (name, dtype, shape, bytes) and every configuration value that affects numbers.

    The order of names doesn't matter; config must be plain JSON values.
    """
    digest = hashlib.sha256()
    plain = {"features_version": FEATURES_VERSION, "config": config}
    digest.update(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:FINGERPRINT_HEX]
