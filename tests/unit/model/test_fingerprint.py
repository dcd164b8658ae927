"""A fingerprint changes with anything that changes numbers, and with nothing else."""

from __future__ import annotations

import torch

from model.fingerprint import fingerprint

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1.5)}
CONFIG = {"num_words": 8, "temporal": {"kind": "mean"}}


def test_order_and_copies_do_not_matter() -> None:
    again = {key: TENSORS[key].clone() for key in reversed(TENSORS)}
    assert fingerprint(TENSORS, CONFIG) == fingerprint(again, dict(reversed(CONFIG.items())))
    assert len(fingerprint(TENSORS, CONFIG)) == 16


def test_every_change_shows() -> None:
    a, b = TENSORS["a"], TENSORS["b"]
    flipped = a.clone()
    flipped[1, 2] += 1e-6
    variants = [
        fingerprint(TENSORS, CONFIG),
        fingerprint({"a": flipped, "b": b}, CONFIG),
        fingerprint({"a": a.reshape(3, 2), "b": b}, CONFIG),
        fingerprint({"a": a.half(), "b": b}, CONFIG),
        fingerprint({"c": a, "b": b}, CONFIG),
        fingerprint({"a": a}, CONFIG),
        fingerprint(TENSORS, CONFIG | {"num_words": 9}),
    ]
    assert len(set(variants)) == len(variants)


def test_a_view_counts_by_its_values() -> None:
    a = TENSORS["a"]
    assert fingerprint({"a": a.T}, {}) == fingerprint({"a": a.T.contiguous()}, {})
