"""Which model a catalogue's data belong to. Every function takes an open transaction."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

from indexer.catalogue.rows import Transaction
from indexer.errors import ModelMismatch
from model.precision import differ_in_precision
from model.types import ModelSpec, public_name


def bound(tx: Transaction) -> ModelSpec | None:
    """The model that made the features; None before the first `bind`."""
    row = tx.row("SELECT value FROM state WHERE key = 'model'")
    return None if row is None else _spec_of(json.loads(row["value"]))


def require_bound(tx: Transaction) -> ModelSpec:
    """The bound model. Raises: ModelMismatch before the first `bind`."""
    spec = bound(tx)
    if spec is None:
        raise ModelMismatch("This data folder isn't bound to a model yet.", "Open it with a model first.")
    return spec


def bind(tx: Transaction, spec: ModelSpec) -> None:
    """Bind the data to this model, the first time. Raises: ModelMismatch if they are bound to another."""
    known = bound(tx)
    if known is None:
        tx.change("INSERT INTO state (key, value) VALUES ('model', ?)", json.dumps(asdict(spec)))
    elif known.fingerprint != spec.fingerprint:
        raise _mismatch(tx, known, spec)


def _mismatch(tx: Transaction, known: ModelSpec, spec: ModelSpec) -> ModelMismatch:
    theirs, ours = public_name(known.name), public_name(spec.name)
    if differ_in_precision(known, spec):
        return ModelMismatch(
            f"The data were made by the model {theirs} in {known.precision}, not in {spec.precision}.",
            f"Set VIDGRAIN_PRECISION=auto or {known.precision}, or choose another data folder.",
            path=tx.folder,
        )
    return ModelMismatch(
        f"The data were made by the model {theirs} ({known.fingerprint[:12]}), "
        f"not by {ours} ({spec.fingerprint[:12]}).",
        f"Start with the model {theirs}, or choose another data folder for {ours}.",
        path=tx.folder,
    )


def _spec_of(values: dict[str, Any]) -> ModelSpec:
    """The stored spec. Newer fields get their defaults; fields that this version doesn't know are dropped.

    That is safe because the fingerprint decides whether a model fits.
    """
    known = {field.name for field in fields(ModelSpec)}
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
    return ModelSpec(**given)
