"""Ranks of the right answers in a score matrix, and the figures made of them.

Letters: T texts, V videos. One right answer per query: text i belongs to video i.
Ties count against us: a right answer that shares its score with others ranks behind them all, so that a model that
scores everything alike gets nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

RECALLS = (1, 5, 10)


def ranks_of_diagonal(scores_TV: NDArray[np.float32]) -> NDArray[np.int64]:
    """The rank (from 1) of score[i, i] in row i of a square matrix -> (T,). Raises: ValueError if not square or NaN."""
    if scores_TV.ndim != 2 or scores_TV.shape[0] != scores_TV.shape[1]:
        raise ValueError(f"a square matrix is needed, not {scores_TV.shape}")
    if np.isnan(scores_TV).any():
        raise ValueError("the scores hold NaN")
    right = np.diagonal(scores_TV)[:, None]
    return np.asarray((scores_TV >= right).sum(1), dtype=np.int64)


def recall_figures(ranks: NDArray[np.int64]) -> Mapping[str, float]:
    """r1, r5, r10 as fractions, mdr and mnr (median and mean rank, from 1), num (the number of queries)."""
    figures = {f"r{k}": float((ranks <= k).mean()) for k in RECALLS}
    return figures | {"mdr": float(np.median(ranks)), "mnr": float(ranks.mean()), "num": float(len(ranks))}
