"""From a query's features to the panel that kernels score by. Letters as in model/kernels/panel.py."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from model.kernels.aosm_reference import Mixing
from model.kernels.panel import Array, MixingArrays, Panel
from model.types import Query, ScorerName, VideoFeatures


@torch.inference_mode()
def panel_of(
    query: Query, scorer: ScorerName, mixing: Mixing, temperature: float | Tensor, *, has_unit_frames: bool = True
) -> Panel:
    """The panel of a query for one of the shared scorers, untrimmed. Matrices that are the identity are left out.

    Shapes: a query of Q rows; mixing of W words and F frame slots. has_unit_frames: see Panel.
    """
    is_clip = isinstance(query, VideoFeatures)
    whole, parts = (query.pooled, query.frames) if isinstance(query, VideoFeatures) else (query.sentence, query.words)
    whole, parts = normalize(whole.float(), dim=-1), normalize(parts.float(), dim=-1)
    return Panel(
        scorer=scorer,
        whole=_array(whole),
        whole_mixed=_array(_through(whole, mixing.sentence_DD)),
        parts=_array(parts),
        parts_local=_array(_through(parts, mixing.local_DD)),
        mask=query.mask.cpu().numpy(),
        mixing=MixingArrays(
            words_coarse=_matrix(mixing.words_coarse_WW),
            words_first=_matrix(mixing.words_first_WW),
            words_second=_matrix(mixing.words_second_WW),
            frames_coarse=_matrix(mixing.frames_coarse_FF),
            frames_first=_matrix(mixing.frames_first_FF),
            frames_second=_matrix(mixing.frames_second_FF),
        ),
        temperature=float(temperature),
        parts_are_frames=is_clip,
        has_unit_frames=has_unit_frames,
    )


def _through(x: Tensor, matrix_DD: Tensor | None) -> Tensor:
    return x if matrix_DD is None else x @ matrix_DD


def _matrix(matrix: Tensor | None) -> Array | None:
    if matrix is None or torch.equal(matrix, torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)):
        return None
    return _array(matrix)


def _array(x: Tensor) -> Array:
    found: Array = x.float().cpu().contiguous().numpy()
    return found
