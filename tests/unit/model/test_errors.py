"""Errors and names of models that show no folder of the machine."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from model.errors import reason_of
from model.types import public_name


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EACCES, "Permission denied", "/srv/my models/x"), "Permission denied"),
        (OSError("Can't load '/srv/my models/x', see /srv/my models/x/a."), "Can't load 'x', see x/a."),
        (ValueError("no path"), "no path"),
        (ValueError(), "ValueError"),
    ],
)
def test_a_reason_names_no_folder(error: Exception, reason: str) -> None:
    assert reason_of(error, Path("/srv/my models/x")) == reason


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("tiny", "tiny"),
        ("ViT-B-32-quickgelu/openai", "ViT-B-32-quickgelu/openai"),
        ("/srv/models/mine", "mine"),
        ("/srv/models/mine/", "mine"),
        ("ViT-B-32//srv/weights.pt", "ViT-B-32/weights.pt"),
    ],
)
def test_a_model_is_shown_without_the_folders_of_the_server(name: str, shown: str) -> None:
    assert public_name(name) == shown
