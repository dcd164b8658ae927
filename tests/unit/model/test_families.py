"""A kind of model declares itself: its file and a line in a list are all that a new one takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from model.checked import BadValue
from model.families import FAMILIES, KINDS, family_of
from model.network import NetworkConfig
from model.scorers import SCORERS
from model.shared_scorers import SHARED_SCORERS

ROOT = Path(__file__).parents[3]


def test_a_new_kind_is_one_file_and_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.one_more_kind", str(tmp_path / "model")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kind"] == found["of_state"] == "last_frame"
    assert found["described"] == ["last_frame", ["last", "mean", "max_frame"], "mean"]
    assert found["scorers"] == ["last", "The sentence with the last frame."]
    assert found["stored"] == {"kind": "last_frame", "sharpness": 3.0}
    assert "last_frame head of" in found["start"] and "r1" in found["figures"]


def test_every_kind_declares_scorers_that_there_are() -> None:
    assert len(set(KINDS)) == len(FAMILIES)
    for family in FAMILIES:
        assert family_of(family.kind) is family
        assert set(family.scorers) <= set(SCORERS) and len(set(family.scorers)) == len(family.scorers)
        own = set(family.scorers) - set(SHARED_SCORERS)
        assert own == ({family.own_scorer.name} if family.own_scorer else set())


def test_switches_survive_their_values() -> None:
    for family in FAMILIES:
        settled = family.settled(NetworkConfig(family.kind, 8, 4), 64)
        values = json.loads(json.dumps(family.head_values(settled.head)))
        given = {name: value for name, value in values.items() if value is not None}
        assert family.read_switches(given, "head", 64) == settled.head


def test_a_kind_that_is_unknown_and_switches_of_another_are_refused() -> None:
    with pytest.raises(BadValue, match="the kind 'clip5clip' is unknown"):
        family_of("clip5clip")
    head = family_of("tight").settled(NetworkConfig("tight", 8, 4), 64).head
    for kind in ("xclip", "clip4clip", "clip2video"):
        with pytest.raises(BadValue, match=f"TightConfig isn't a configuration of {kind}'s head"):
            family_of(kind).settled(NetworkConfig(kind, 8, 4, head=head), 64)
