"""benchmarks.gpu runs from end to end: on a GPU, or in small under Triton's interpreter (see test_triton_kernel.py)."""

from __future__ import annotations

import os

import pytest
import torch

from benchmarks.gpu import measure

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.skipif(not (IS_INTERPRETED or torch.cuda.is_available()), reason="no GPU here")


def test_every_row_is_measured_and_the_scores_are_right() -> None:
    device, size = torch.device("cpu" if IS_INTERPRETED else "cuda"), 7 if IS_INTERPRETED else 5000
    rows = measure(device, [size], rounds=1, batch=2)
    assert len({row.name for row in rows}) == len(rows) == 2 * (2 + 3 + 7) + 1
    (error,) = [row for row in rows if row.name.startswith("largest difference")]
    assert error.holds
