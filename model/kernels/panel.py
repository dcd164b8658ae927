"""What queries are scored by, settled once per search: vectors through the head's matrices, masks, mixing, temperature.

Letters: Q query rows, W words (for a clip: its frames), F frame slots, D embedding width, G parts of a score.
It knows numpy arrays only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.kernels.block import FeatureBlock, Rows

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MixingArrays:
    """The head's matrices over attention weights, `weights @ matrix`; None each for the identity."""

    words_coarse: Array | None = None
    """(W, W): words against the pooled vector."""
    words_first: Array | None = None
    """(W, W): the words of each frame."""
    words_second: Array | None = None
    """(W, W): the words, once frames are summed out."""
    frames_coarse: Array | None = None
    """(F, F): frames against the sentence."""
    frames_first: Array | None = None
    """(F, F): the frames of each word."""
    frames_second: Array | None = None
    """(F, F): the frames, once words are summed out."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Q query rows for one of the shared scorers (model/shared_scorers.py). Queries are L2-normalised before the
    matrices over embeddings are applied, and not after them."""

    scorer: str
    """aosm, multi_grained, maxsim, max_frame or mean."""
    whole: Array
    """(Q, D): the sentence, compared with frames."""
    whole_mixed: Array
    """(Q, D): the sentence through the head, compared with pooled vectors."""
    parts: Array
    """(Q, W, D): words, compared with pooled vectors."""
    parts_local: Array
    """(Q, W, D): words through the head, compared with frames."""
    mask: NDArray[np.bool_]
    """(Q, W), True = real; at least one word of each row."""
    mixing: MixingArrays
    temperature: float
    """AOSM's, dimensionless."""
    parts_are_frames: bool = False
    """Whether the query is a clip."""
    has_unit_frames: bool = True
    """Whether stored frames are unit vectors; a joint transformer's are raw and are normalised while scored."""

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def num_words(self) -> int:
        """Real words of the row that has most."""
        return int(self.mask.sum(1).max(initial=0))

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal for panels that `joined` takes together: one scorer, and one model's matrices (by their memory)."""
        matrices = tuple(
            None if (matrix := getattr(self.mixing, part.name)) is None else matrix.ctypes.data
            for part in fields(self.mixing)
        )
        widths = self.whole.shape[1], self.whole_mixed.shape[1], None if matrices == (None,) * 6 else self.mask.shape[1]
        return self.scorer, widths, self.temperature, self.parts_are_frames, self.has_unit_frames, matrices

    @staticmethod
    def joined(panels: Sequence[Panel]) -> Panel:
        """The rows of several panels of one kind under one another, untrimmed; shorter ones are padded."""
        if len(panels) == 1:
            return panels[0]
        num_slots = max(panel.mask.shape[1] for panel in panels)

        def padded(rows: NDArray[Any]) -> NDArray[Any]:
            more = num_slots - rows.shape[1]
            return np.pad(rows, [(0, 0), (0, more), *[(0, 0)] * (rows.ndim - 2)]) if more else rows

        return replace(
            panels[0],
            whole=np.concatenate([panel.whole for panel in panels]),
            whole_mixed=np.concatenate([panel.whole_mixed for panel in panels]),
            parts=np.concatenate([padded(panel.parts) for panel in panels]),
            parts_local=np.concatenate([padded(panel.parts_local) for panel in panels]),
            mask=np.concatenate([padded(panel.mask) for panel in panels]),
        )

    def trimmed(self) -> Panel:
        """The same without the slots that are padding in every row, matrices over words cut to match."""
        kept = np.flatnonzero(self.mask.any(0))
        if len(kept) == self.mask.shape[1]:
            return self
        mixing = self.mixing
        words = {
            name: None
            if (matrix := getattr(mixing, name)) is None
            else np.ascontiguousarray(matrix[np.ix_(kept, kept)])
            for name in ("words_coarse", "words_first", "words_second")
        }
        return replace(
            self,
            parts=np.ascontiguousarray(self.parts[:, kept]),
            parts_local=np.ascontiguousarray(self.parts_local[:, kept]),
            mask=np.ascontiguousarray(self.mask[:, kept]),
            mixing=replace(mixing, **words),
        )


class PreparedQuery(Protocol):
    """A panel in the form that a kernel reads. Safe to share by threads; rows None means all of the block.

    Raises: nothing for values; a score that isn't finite (a segment of NaN) is returned as it is.
    """

    def totals(self, block: FeatureBlock, rows: Rows | None = None) -> Array:
        """(Q, n) float32: what ranks."""
        ...

    def grains(self, block: FeatureBlock, rows: Rows) -> Array:
        """(Q, n, G) float32: the parts of the score, in the order of the scorer's names; their mean is the total."""
        ...

    def relevance(self, block: FeatureBlock, rows: Rows, num_slots: int) -> Array:
        """(Q, n, F) float32, F = num_slots: how much each frame supports the query, -inf in padded slots; as
        model.shared_scorers.frame_relevance."""
        ...


class Kernel(Protocol):
    """Scores segments where they lie. One thread per call; callers split the rows among threads."""

    @property
    def name(self) -> str:
        """What it is and what it runs on, for `effective` and doctor: "torch", "native avx512"."""
        ...

    @property
    def takes_whole_blocks(self) -> bool:
        """Whether one call should score a whole block, as a GPU does it, and not a part of it per core."""
        ...

    def prepare(self, panel: Panel) -> PreparedQuery:
        """The panel, ready to be scored."""
        ...
