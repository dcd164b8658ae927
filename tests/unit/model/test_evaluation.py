"""Ranks and recalls; the run over a set is test_evaluation_run.py's."""

from __future__ import annotations

import numpy as np
import pytest

from model.evaluation.metrics import RetrievalRanks, ranks_of_diagonal, recall_figures


def test_ranks_count_what_is_better() -> None:
    scores = np.array([[3.0, 1.0, 2.0], [9.0, 5.0, 7.0], [1.0, 2.0, 0.0]], dtype=np.float32)
    assert ranks_of_diagonal(scores).tolist() == [1, 3, 3]
    assert ranks_of_diagonal(scores.T).tolist() == [2, 1, 3]


def test_a_constant_model_gets_nothing() -> None:
    assert recall_figures(ranks_of_diagonal(np.zeros((20, 20), dtype=np.float32)))["r10"] == 0.0


def test_nan_and_odd_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        ranks_of_diagonal(np.zeros((2, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="NaN"):
        ranks_of_diagonal(np.full((2, 2), np.nan, dtype=np.float32))


def test_figures() -> None:
    figures = recall_figures(np.array([1, 2, 6, 40]))
    assert figures == {"r1": 0.25, "r5": 0.5, "r10": 0.75, "r50": 1.0, "mdr": 4.0, "mnr": 12.25, "num": 4.0}


def test_blocks_that_do_not_fit_are_refused() -> None:
    found = RetrievalRanks(3, np.array([0, 1, 1, 2]))
    with pytest.raises(ValueError, match="shape"):
        found.add(np.zeros((2, 4), dtype=np.float32))
    with pytest.raises(ValueError, match="NaN"):
        found.add(np.full((1, 3), np.nan, dtype=np.float32))
    found.add(np.zeros((3, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="3 rows were given for 4"):
        found.figures()
    with pytest.raises(ValueError, match="5 rows"):
        found.add(np.zeros((2, 3), dtype=np.float32))


def test_texts_and_videos_must_belong_together() -> None:
    with pytest.raises(ValueError, match=r"no text.*1"):
        RetrievalRanks(3, np.array([0, 2]))
    with pytest.raises(ValueError, match="7"):
        RetrievalRanks(3, np.array([0, 1, 2, 7]))
    with pytest.raises(ValueError, match="float64"):
        RetrievalRanks(2, np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="no ranks"):
        recall_figures(np.array([], dtype=np.int64))


def test_official_ties_of_many_captions_go_by_position() -> None:
    """One rank per text, as of a stable sort; a video has one per equal group."""
    found = RetrievalRanks(3, np.array([0, 1, 1, 2]), ties="official")
    found.add(np.zeros((4, 3), dtype=np.float32))
    assert found.text_to_video().tolist() == [1, 2, 2, 3]
    assert found.video_to_text().tolist() == [1, 2, 3] * 3
