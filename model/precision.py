"""A model in another precision: the same weights, with frames encoded in fewer bits, are another model to an index.

The fingerprint in float32 is that of the weights, so folders made before there was a choice keep theirs. It imports no
torch, and knows no tower: model/picture_tower.py encodes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from model.types import ModelSpec, Precision


def in_precision(spec: ModelSpec, precision: Precision) -> ModelSpec:
    """The spec of a model in float32 -> that of the model with frames encoded in a precision."""
    if precision == "fp32":
        return spec
    digest = hashlib.sha256(f"{spec.fingerprint} {precision}".encode()).hexdigest()
    return replace(spec, precision=precision, fingerprint=digest[: len(spec.fingerprint)])


def differ_in_precision(one: ModelSpec, other: ModelSpec) -> bool:
    """Whether these are one model in two precisions, one of them float32."""
    exact, fast = (one, other) if one.precision == "fp32" else (other, one)
    return exact.precision != fast.precision and in_precision(exact, fast.precision).fingerprint == fast.fingerprint
