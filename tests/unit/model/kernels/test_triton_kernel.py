"""The Triton kernel without a GPU: held to the referee under Triton's interpreter, and absent where it can't run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.kernels.device_scorers import choose_tile
from model.kernels.triton_kernel import load, unavailable

ROOT = Path(__file__).resolve().parents[4]
INTERPRETED = ("tests/gpu/test_triton_kernel.py", "tests/gpu/test_gpu_benchmark.py")
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.mark.slow
def test_the_kernel_agrees_with_the_referee_under_the_interpreter() -> None:
    """In a process of its own: the interpreter must be asked for before triton is imported."""
    pytest.importorskip("triton", exc_type=ImportError)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *INTERPRETED],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
    assert " passed" in run.stdout and "skipped" not in run.stdout


@pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter runs on the CPU")
def test_a_cpu_has_no_triton_kernel_and_the_reason_is_given() -> None:
    cpu = torch.device("cpu")
    assert load(cpu) is None
    assert "cpu is not a GPU" in str(unavailable(cpu)) or "Triton can't be imported" in str(unavailable(cpu))


@pytest.mark.skipif(IS_INTERPRETED, reason="triton is imported already")
def test_triton_is_imported_late_and_need_not_be_there() -> None:
    code = (
        "import sys, torch; from model.kernels.triton_kernel import load, unavailable\n"
        "assert 'triton' not in sys.modules; sys.modules['triton'] = None\n"
        "device = torch.device('cuda')\n"
        "assert load(device) is None; print(unavailable(device))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("Triton can't be imported")


@pytest.mark.parametrize("is_int8", [False, True])
@pytest.mark.parametrize("twins", [1, 2])
@pytest.mark.parametrize("word_slots", [1, 4, 16, 32, 64, 128])
@pytest.mark.parametrize("frame_slots", [1, 8, 16, 64, 256])
def test_tiles_suit_the_tensor_cores_and_their_registers(
    frame_slots: int, word_slots: int, twins: int, is_int8: bool
) -> None:
    for num_queries in (1, 3, 32, 1000):
        tile = choose_tile(frame_slots, word_slots, num_queries, 512, 64, twins=twins, is_int8=is_int8)
        rows, columns = tile.segments * frame_slots, tile.queries * word_slots
        assert rows >= 64 and columns >= 16
        assert columns <= max(64, word_slots)
        if frame_slots <= 64:
            assert rows * columns <= 128 * 64
        assert tile.queries & (tile.queries - 1) == 0 and 2 <= tile.stages <= 4
