"""The instants that are served."""

from __future__ import annotations

import pytest

from model.sampling import clip4clip_frames, served_instants


def test_instants_are_midpoints_of_equal_parts() -> None:
    assert served_instants(2.0, 6.0, 4) == (2.5, 3.5, 4.5, 5.5)
    assert served_instants(0.0, 1.0, 1) == (0.5,)


def test_instants_rise_within_the_stretch() -> None:
    instants = served_instants(10.0, 10.001, 64)
    assert list(instants) == sorted(set(instants))
    assert instants[0] > 10.0 and instants[-1] < 10.001


@pytest.mark.parametrize(("start_s", "end_s", "num_frames"), [(1.0, 1.0, 4), (2.0, 1.0, 4), (0.0, 1.0, 0)])
def test_an_empty_stretch_is_refused(start_s: float, end_s: float, num_frames: int) -> None:
    with pytest.raises(ValueError, match="can't be chosen"):
        served_instants(start_s, end_s, num_frames)


def test_the_official_choice_refuses_what_the_official_code_asserts_against() -> None:
    with pytest.raises(ValueError, match="can't give"):
        clip4clip_frames(10, 0.5, 4)
    with pytest.raises(ValueError, match="empty"):
        clip4clip_frames(100, 25.0, 4, start_s=3, end_s=3)
