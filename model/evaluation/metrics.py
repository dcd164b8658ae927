"""Ranks of the right answers in a score matrix, and the figures made of them, as the three papers count them.

Letters: T texts, V videos, B a block of texts. Two protocols:
- single-caption (MSR-VTT 1k-A, LSMDC, DiDeMo, ActivityNet): text i belongs to video i; both ways rank among V;
- multi-caption (MSVD, VATEX, MSR-VTT full): many texts belong to a video, its group. Each text is a query among V
  videos; a video is a query among V groups, where the score of a group is the best of its texts. The text-to-video
  median is the lower of two middle ranks, as the official code has it; every other median is their mean.

Ties count against us unless a caller asks for "official": a right answer that shares its score with others ranks
behind them all, so that a model that scores everything alike gets nothing. The official ways are kinder: see `Ties`.
It knows arrays; it knows no model and no data set.
Source: the evaluation of CLIP4Clip (508ffa3), X-CLIP (6b5344f) and CLIP2Video (e941318).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

RECALLS = (1, 5, 10, 50)

Ties = Literal["against", "official"]
"""What a right answer's rank is among equals.

"against": the last of them. "official", wherever the right answers are a matrix's diagonal: every one of them, so k
equals give k ranks and there are more ranks than queries; for the texts of the multi-caption protocol: its place by
position, one rank.
"""
Median = Literal["mean", "lower"]
"""What stands for two middle ranks: their mean, or the lower one."""


class RetrievalRanks:
    """Ranks both ways from blocks of rows of a score matrix that is never held whole.

    Memory: V * V float32 for the groups (36 MB for 2,990 videos), plus a few times the block, whatever T is.
    """

    def __init__(
        self, num_videos: int, video_of_text: NDArray[np.int64] | None = None, *, ties: Ties = "against"
    ) -> None:
        """video_of_text (T,): the video that each text belongs to, for the multi-caption protocol; None: text i to i.

        Raises: ValueError without videos, for an index that is no video, or a video that has no text.
        """
        if num_videos < 1:
            raise ValueError(f"there must be a video, not {num_videos}")
        self._is_multi_caption = video_of_text is not None
        owners = np.arange(num_videos) if video_of_text is None else np.asarray(video_of_text)
        if owners.ndim != 1 or not np.issubdtype(owners.dtype, np.integer):
            raise ValueError(f"one whole number per text is needed, not {owners.dtype} of shape {owners.shape}")
        if outside := owners[(owners < 0) | (owners >= num_videos)].tolist():
            raise ValueError(f"texts belong to the videos {outside[:5]}, of {num_videos} videos")
        if silent := np.setdiff1d(np.arange(num_videos), owners).tolist():
            raise ValueError(f"{len(silent)} videos have no text, the first are {silent[:5]}")
        self._video_of_text = owners.astype(np.int64)
        self._ties = ties
        self._groups_GV = np.full((num_videos, num_videos), -np.inf, dtype=np.float32)
        self._ranks: list[NDArray[np.int64]] = []
        self.num_texts_seen = 0

    def add(self, scores_BV: NDArray[np.float32]) -> None:
        """The next B rows, in the order of the texts. Raises: ValueError for NaN, another V, or rows too many."""
        num_texts, num_videos = len(self._video_of_text), len(self._groups_GV)
        if scores_BV.ndim != 2 or scores_BV.shape[1] != num_videos:
            raise ValueError(f"a block has shape {scores_BV.shape}; (rows, {num_videos}) is needed")
        stop = self.num_texts_seen + len(scores_BV)
        if stop > num_texts:
            raise ValueError(f"{stop} rows were given for {num_texts} texts")
        _refuse_nan(scores_BV)
        scores_BV = scores_BV.astype(np.float32, copy=False)
        owners_B = self._video_of_text[self.num_texts_seen : stop]
        count = _by_position if self._is_multi_caption else _every_equal
        self._ranks.append((_behind_equals if self._ties == "against" else count)(scores_BV, owners_B))
        order = np.argsort(owners_B, kind="stable")
        groups, starts = np.unique(owners_B[order], return_index=True)
        if len(groups):
            best = np.maximum.reduceat(scores_BV[order], starts, axis=0)
            self._groups_GV[groups] = np.maximum(self._groups_GV[groups], best)
        self.num_texts_seen = stop

    def text_to_video(self) -> NDArray[np.int64]:
        """Ranks from 1 in the order of the texts. Raises: ValueError while rows are missing."""
        self._refuse_missing()
        return np.concatenate(self._ranks)

    def video_to_text(self) -> NDArray[np.int64]:
        """Ranks from 1, among groups, in the order of the videos. Raises: ValueError while rows are missing."""
        self._refuse_missing()
        return ranks_of_diagonal(self._groups_GV.T, self._ties)

    def figures(self) -> dict[str, Mapping[str, float]]:
        """{"text_to_video": figures, "video_to_text": figures}, each as `recall_figures` has them."""
        median: Median = "lower" if self._is_multi_caption else "mean"
        return {
            "text_to_video": recall_figures(self.text_to_video(), median),
            "video_to_text": recall_figures(self.video_to_text()),
        }

    def _refuse_missing(self) -> None:
        if self.num_texts_seen != len(self._video_of_text):
            raise ValueError(f"{self.num_texts_seen} rows were given for {len(self._video_of_text)} texts")


def ranks_of_diagonal(scores_TV: NDArray[np.float32], ties: Ties = "against") -> NDArray[np.int64]:
    """The rank (from 1) of score[i, i] in row i of a square matrix -> (T,), or longer with official ties.

    Raises: ValueError if not square or NaN.
    """
    if scores_TV.ndim != 2 or scores_TV.shape[0] != scores_TV.shape[1]:
        raise ValueError(f"a square matrix is needed, not {scores_TV.shape}")
    _refuse_nan(scores_TV)
    rank = _behind_equals if ties == "against" else _every_equal
    return rank(scores_TV, np.arange(len(scores_TV)))


def recall_figures(ranks: NDArray[np.int64], median: Median = "mean") -> Mapping[str, float]:
    """r1, r5, r10, r50 as fractions, mdr and mnr (median and mean rank, from 1), num (the number of ranks).

    Raises: ValueError without ranks.
    """
    if not len(ranks):
        raise ValueError("there are no ranks")
    figures = {f"r{k}": float((ranks <= k).mean()) for k in RECALLS}
    middle = np.median(ranks) if median == "mean" else np.sort(ranks)[(len(ranks) - 1) // 2]
    return figures | {"mdr": float(middle), "mnr": float(ranks.mean()), "num": float(len(ranks))}


def _behind_equals(scores_BV: NDArray[np.float32], right_B: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray((scores_BV >= _at(scores_BV, right_B)).sum(1), dtype=np.int64)


def _by_position(scores_BV: NDArray[np.float32], right_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """One rank per row: equals at an earlier position go first, as in a stable sort."""
    right = _at(scores_BV, right_B)
    is_earlier = np.arange(scores_BV.shape[1])[None, :] < right_B[:, None]
    return np.asarray(1 + ((scores_BV > right) | ((scores_BV == right) & is_earlier)).sum(1), dtype=np.int64)


def _every_equal(scores_BV: NDArray[np.float32], right_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """The ranks of all that equal the right answer, row after row: (B,) or longer."""
    right = _at(scores_BV, right_B)
    num_better_B, num_equal_B = (scores_BV > right).sum(1), (scores_BV == right).sum(1)
    place = np.arange(num_equal_B.sum()) - np.repeat(np.cumsum(num_equal_B) - num_equal_B, num_equal_B)
    return np.asarray(1 + np.repeat(num_better_B, num_equal_B) + place, dtype=np.int64)


def _at(scores_BV: NDArray[np.float32], right_B: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.take_along_axis(scores_BV, right_B[:, None], axis=1)


def _refuse_nan(scores: NDArray[np.float32]) -> None:
    if np.isnan(scores).any():
        raise ValueError("the scores hold NaN")
