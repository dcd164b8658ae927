"""The encoder's benchmark runs, and reports each precision beside the roof."""

from __future__ import annotations

import pytest
import torch

from benchmarks.encoder import measure
from model.packed_blocks import is_supported
from tests.unit.model.small import small_config


@pytest.mark.skipif(not is_supported(), reason="this torch packs no bfloat16 weights")
def test_every_way_to_encode_is_reported_beside_the_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.threads._limit", None)
    monkeypatch.setattr("benchmarks.encoder._runtimes", lambda *_: {})
    config = small_config()
    config["text_cfg"] |= {"vocab_size": 49408}
    before = torch.get_num_threads()
    rows = {row.name: row for row in measure(config, [3], rounds=1)}
    torch.set_num_threads(before)
    for name in ("float32", "cast", "packed"):
        assert rows[f"{name}, 1 - cosine with float32"].holds is True
        assert set(rows[f"{name}, 1 thread, 3 frames"].against) == {"fp32 roof", "bf16 roof"}
    assert rows["packed, 1 thread, 3 frames"].target is not None
