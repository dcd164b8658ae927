"""`vidgrain doctor` reports what frames are encoded in, and where this machine can't do it."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.errors import ModelMismatch
from indexer.storage import CATALOGUE_FILE
from service.cli.doctor import _model
from service.opening import open_index
from service.settings import Settings


def test_the_model_is_tried_in_the_precision_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(data=tmp_path / "data", device="cpu")
    assert "frames in fp32" in _model(settings).found
    assert not (settings.data / CATALOGUE_FILE).exists(), "a check makes no index"
    with open_index(settings.model_copy(update={"precision": "bf16"})) as index:
        bound = index.model.spec
    found = _model(settings).found
    assert "frames in bf16" in found and bound.fingerprint[:12] in found

    monkeypatch.setattr("model.picture_tower.has_bfloat16", lambda device: False)
    check = _model(settings)
    assert check.status == "warn" and "computes frames in fp32" in check.found and "VIDGRAIN_PRECISION" in check.hint


def test_a_precision_that_contradicts_the_folder_is_refused_with_the_setting(tmp_path: Path) -> None:

    settings = Settings(data=tmp_path / "data", device="cpu")
    with open_index(settings) as index:
        assert index.model.spec.precision == "fp32", "the bundled model is small"
    with (
        open_index(settings.model_copy(update={"precision": "bf16"})) as index,
        pytest.raises(ModelMismatch, match=r"tiny in fp32, not in bf16.*VIDGRAIN_PRECISION=auto or fp32"),
    ):
        _ = index.model
    with open_index(settings.model_copy(update={"precision": "fp32"})) as index:
        assert index.model.spec.precision == "fp32"
