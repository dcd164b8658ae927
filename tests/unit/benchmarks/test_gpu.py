"""benchmarks.gpu without a GPU: one clear line and an exit status, no rows."""

from __future__ import annotations

import pytest

from benchmarks.gpu import main


def test_without_a_gpu_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "--device", "meta"]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith("benchmarks.gpu needs a GPU: ") and printed.err.count("\n") == 1
