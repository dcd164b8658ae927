"""Two or three centres of each segment's frames: what finds the one frame that pooling hides, without all frames.

Letters: n segments at once, F frame slots, C centres, D width of frames.
Spherical k-means, started from the frames that lie farthest apart, so that a frame unlike all others becomes a centre
of its own. It runs on the inner products between a segment's frames, F x F numbers in place of F x D, for many
segments at once. It knows numpy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.kernels.block import FeatureBlock, Rows, gather

SEGMENTS_AT_ONCE = 512
"""Bounds the float32 copies: some 13 MB for 12 frames of 512."""
ROUNDS = 3
"""Of k-means: a dozen frames settle in two or three."""

Array = NDArray[np.float32]


def frame_centres(block: FeatureBlock, rows: Rows, num_centres: int) -> tuple[Array, Rows]:
    """The centres of some segments' frames -> (X, D) float32 and (X,), the row of the block that each belongs to.

    A segment with no more than `num_centres` frames is described by the frames themselves. A centre is as long as its
    frames are on average. Numbers that aren't finite count as 0.
    """
    found: list[Array] = [np.empty((0, block.frames.shape[1]), np.float32)]
    owners: list[Rows] = [np.empty(0, np.int64)]
    for at in range(0, len(rows), SEGMENTS_AT_ONCE):
        some = rows[at : at + SEGMENTS_AT_ONCE]
        slots = max(1, int(block.num_frames[some].max(initial=1)))
        features = gather(block, some, slots)
        frames = finite(features.frames)
        share = _shares(frames, features.mask, num_centres)
        centres = np.matmul(share.transpose(0, 2, 1), frames)
        segment, centre = np.nonzero(share.any(axis=1))
        found.append(centres[segment, centre])
        owners.append(some[segment])
    return np.concatenate(found), np.concatenate(owners)


def finite(vectors: Array) -> Array:
    """The vectors themselves, or a copy with 0 in place of numbers that aren't finite."""
    if np.isfinite(vectors).all():
        return vectors
    return np.nan_to_num(vectors, nan=0.0, posinf=0.0, neginf=0.0)


def _shares(frames_nFD: Array, mask_nF: NDArray[np.bool_], num_centres: int) -> Array:
    """(n, F, C): how much of each frame is in each centre, scaled for the centre's length; zeros for unused centres."""
    gram = np.matmul(frames_nFD, frames_nFD.transpose(0, 2, 1))
    lengths = np.sqrt(np.maximum(np.einsum("nff->nf", gram), 1e-12))
    gram /= lengths[:, :, None]
    gram /= lengths[:, None, :]
    num_centres = min(num_centres, frames_nFD.shape[1])
    owner = _start(gram, mask_nF, num_centres)
    for _ in range(ROUNDS):
        member = _one_hot(owner, mask_nF, num_centres)
        owner = _similarity(gram, member).argmax(axis=2)
    member = _one_hot(owner, mask_nF, num_centres)
    # of unit frames u, the centre is sum(u) / |sum(u)| x the mean length of its frames
    unit_norm = np.sqrt(np.maximum(np.einsum("nfc,nfg,ngc->nc", member, gram, member, optimize=True), 1e-12))
    counts = np.maximum(member.sum(axis=1), 1.0)
    mean_length = np.einsum("nfc,nf->nc", member, lengths, optimize=True) / counts
    share: Array = member / lengths[:, :, None] * (mean_length / unit_norm)[:, None, :]
    return share


def _start(gram: Array, mask: NDArray[np.bool_], num_centres: int) -> NDArray[np.intp]:
    """(n, F): the nearest of C frames that lie far apart; the first is the one most like all others."""
    num, slots = mask.shape
    every = np.arange(num)
    popularity = np.where(mask, np.einsum("nfg,ng->nf", gram, mask.astype(np.float32), optimize=True), -np.inf)
    chosen = popularity.argmax(axis=1)
    nearest = np.where(mask, gram[every, chosen], np.inf)
    owner = np.zeros((num, slots), np.intp)
    for centre in range(1, num_centres):
        chosen = nearest.argmin(axis=1)
        similarity = gram[every, chosen]
        is_closer = mask & (similarity > nearest)
        is_closer[every, chosen] |= mask[every, chosen]
        owner[is_closer] = centre
        nearest = np.where(is_closer, similarity, nearest)
    return owner


def _one_hot(owner: NDArray[np.intp], mask: NDArray[np.bool_], num_centres: int) -> Array:
    member: Array = ((owner[:, :, None] == np.arange(num_centres)) & mask[:, :, None]).astype(np.float32)
    return member


def _similarity(gram: Array, member: Array) -> Array:
    """(n, F, C): cosine of each frame and each centre; -inf for a centre without frames."""
    towards = np.matmul(gram, member)
    squared = np.einsum("nfc,nfc->nc", member, towards, optimize=True)
    towards /= np.sqrt(np.maximum(squared, 1e-12))[:, None, :]
    is_used = member.max(axis=1, keepdims=True) > 0
    cosine: Array = np.where(is_used, towards, np.float32(-np.inf))
    return cosine
