"""What runs on the GPU, in Triton: a tile of segments against the words of some queries, summed up where it is made.

A program takes S segments and B queries. The frames of a segment lie in a slab of FS slots (a power of two that holds
the longest), the columns of a query in WS slots: its words, and last the sentence. So one product of S x FS rows with
B x WS columns has all that these pairs need, the frames' softmax runs down a slab and the words' along it, and nothing
but scores is written. Padded slots are never read from memory.

Mixing over words is in the panel: `weights @ mix . sim` is `weights . (mix sim)`, and mix times the similarities of the
words is the similarity of mixed words. A column and its mixed twin lie side by side (IS_MIXED). Those over frames are
applied here, as their difference from the identity. int8 queries are two bytes a number, q = scale (high + low / 254),
side by side too, so that only the store rounds.

The file is triton's only door; device_scorers.py launches what is here.
Source: X-CLIP, arXiv:2207.07285, section 3.4; the referees are aosm_reference.py and model/shared_scorers.py.
"""

import triton
import triton.language as tl

from model.kernels.query_columns import LOW_STEPS

_LOW: tl.constexpr = tl.constexpr(1.0 / LOW_STEPS)
_LEAST: tl.constexpr = tl.constexpr(1e-26)
"""A sum of shared exponentials below this has lost digits: the tile is done again, each softmax by itself."""


def is_interpreted() -> bool:
    """Whether programs run under Triton's interpreter: TRITON_INTERPRET=1 was set when this file was imported."""
    return not isinstance(pooled_grains, triton.JITFunction)


@triton.jit
def _similarities(
    features,
    scales,
    at_M,
    is_row_M,
    panel,
    panel_scales,
    first_column,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    N: tl.constexpr,
    IS_INT8: tl.constexpr,
    HAS_SCALES: tl.constexpr,
):
    """(M, N) inner products of feature rows with columns of a panel, 0 in rows that aren't there."""
    M: tl.constexpr = at_M.shape[0]
    WIDE: tl.constexpr = 2 * N if IS_INT8 else N
    column = first_column * (WIDE // N) + tl.arange(0, WIDE)
    depth = tl.arange(0, BLOCK_D)
    sums = tl.zeros((M, WIDE), tl.int32 if IS_INT8 else tl.float32)
    for start in range(0, D, BLOCK_D):
        row_at = features + at_M[:, None] * D + (start + depth)[None, :]
        column_at = panel + column[None, :] * D + (start + depth)[:, None]
        if D % BLOCK_D == 0:
            rows = tl.load(row_at, mask=is_row_M[:, None], other=0)
            columns = tl.load(column_at)
        else:
            is_there = start + depth < D
            rows = tl.load(row_at, mask=is_row_M[:, None] & is_there[None, :], other=0)
            columns = tl.load(column_at, mask=is_there[:, None], other=0)
        sums = tl.dot(rows, columns, sums, out_dtype=tl.int32 if IS_INT8 else tl.float32)
    if IS_INT8:
        high, low = tl.split(tl.reshape(sums, (M, N, 2)))
        found = high.to(tl.float32) + low.to(tl.float32) * _LOW
    else:
        found = sums
    found *= tl.load(panel_scales + first_column + tl.arange(0, N))[None, :]
    if HAS_SCALES:
        found *= tl.load(scales + at_M, mask=is_row_M, other=0.0)[:, None]
    return found


@triton.jit
def _rows_of_tile(
    tile, rows, first_frame, num_frames, num_segments, S: tl.constexpr, FS: tl.constexpr, HAS_ROWS: tl.constexpr
):
    """Where the S x FS frames of a tile lie, and which slots hold one."""
    slot = tl.arange(0, S * FS)
    segment = tile * S + slot // FS
    is_segment = segment < num_segments
    if HAS_ROWS:
        segment = tl.load(rows + segment, mask=is_segment, other=0)
    count = tl.load(num_frames + segment, mask=is_segment, other=0)
    first = tl.load(first_frame + segment, mask=is_segment, other=0)
    return first + slot % FS, slot % FS < count


@triton.jit
def _ratio(upper, lower):
    """A quotient, 0 / 0 (where nothing is real) being 0."""
    return upper / tl.where(lower == 0.0, 1.0, lower)


@triton.jit
def _attended(sim, value, is_real, sharpness, AXIS: tl.constexpr):
    """Sum an axis out of `value` by the softmax of `sim` over what is real."""
    highest = tl.max(tl.where(is_real, sim, float("-inf")), AXIS, keep_dims=True)
    highest = tl.where(highest > float("-inf"), highest, 0.0)
    weights = tl.exp2(tl.where(is_real, (sim - highest) * sharpness, float("-inf")))
    return _ratio(tl.sum(weights * value, AXIS), tl.sum(weights, AXIS))


@triton.jit
def _mixed(sim, matrix, SIZE: tl.constexpr, AXIS: tl.constexpr):
    """matrix (SIZE, SIZE) times one axis of a tensor of three."""
    lane = tl.arange(0, SIZE)
    shaped = lane[None, :, None] if AXIS == 1 else lane[None, None, :]
    found = tl.zeros_like(sim)
    for taken in range(SIZE):
        one = tl.sum(tl.where(shaped == taken, sim, 0.0), AXIS, keep_dims=True)
        found += tl.load(matrix + shaped * SIZE + taken) * one
    return found


@triton.jit(do_not_specialize=["num_segments", "num_queries", "num_query_blocks"])
def pooled_grains(
    out,
    pooled,
    scales,
    rows,
    panel,
    panel_scales,
    is_word,
    num_segments,
    num_queries,
    num_query_blocks,
    sharpness,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    M: tl.constexpr,
    B: tl.constexpr,
    WS: tl.constexpr,
    IS_MIXED: tl.constexpr,
    IS_INT8: tl.constexpr,
    HAS_ROWS: tl.constexpr,
    AS_GRAINS: tl.constexpr,
):
    """video_sentence and video_word: both to out (4, Q, n), or their sum to out (Q, n)."""
    tile, block = tl.program_id(0) // num_query_blocks, tl.program_id(0) % num_query_blocks
    segment = tile * M + tl.arange(0, M)
    is_segment = segment < num_segments
    at_M = tl.load(rows + segment, mask=is_segment, other=0) if HAS_ROWS else segment.to(tl.int64)
    N: tl.constexpr = B * WS * (2 if IS_MIXED else 1)
    sim = _similarities(
        pooled, scales, at_M, is_segment, panel, panel_scales, block * N, D, BLOCK_D, N, IS_INT8, IS_INT8
    )
    if IS_MIXED:
        sim, value = tl.split(tl.reshape(sim, (M, B * WS, 2)))
        value = tl.reshape(value, (M, B, WS))
        sim = tl.reshape(sim, (M, B, WS))
    else:
        sim = tl.reshape(sim, (M, B, WS))
        value = sim
    is_real = tl.reshape(tl.load(is_word + block * B * WS + tl.arange(0, B * WS)), (1, B, WS)) != 0
    is_whole = (tl.arange(0, WS) == WS - 1)[None, None, :]
    video_sentence = tl.sum(tl.where(is_whole, sim, 0.0), 2)
    video_word = _attended(sim, value, is_real, sharpness, 2)
    query = (block * B + tl.arange(0, B))[None, :]
    at = out + query.to(tl.int64) * num_segments + segment[:, None]
    is_stored = is_segment[:, None] & (query < num_queries)
    if AS_GRAINS:
        plane = tl.cast(num_segments, tl.int64) * num_queries
        tl.store(at, video_sentence, mask=is_stored)
        tl.store(at + plane, video_word, mask=is_stored)
    else:
        tl.store(at, video_sentence + video_word, mask=is_stored)


@triton.jit(do_not_specialize=["num_segments", "num_queries", "num_query_blocks"])
def frame_grains(
    out,
    frames,
    scales,
    first_frame,
    num_frames,
    rows,
    panel,
    panel_scales,
    is_word,
    words_second,
    frames_first,
    frames_coarse,
    frames_second,
    num_segments,
    num_queries,
    num_query_blocks,
    sharpness,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    S: tl.constexpr,
    FS: tl.constexpr,
    B: tl.constexpr,
    WS: tl.constexpr,
    IS_MIXED: tl.constexpr,
    HAS_FRAME_MIXING: tl.constexpr,
    IS_INT8: tl.constexpr,
    HAS_SCALES: tl.constexpr,
    HAS_ROWS: tl.constexpr,
    AS_GRAINS: tl.constexpr,
):
    """frame_sentence and frame_word: both to out (4, Q, n), or the mean of all four to out (Q, n), which holds the sum
    of the other two."""
    tile, block = tl.program_id(0) // num_query_blocks, tl.program_id(0) % num_query_blocks
    M: tl.constexpr = S * FS
    N: tl.constexpr = B * WS * (2 if IS_MIXED else 1)
    at_M, is_row_M = _rows_of_tile(tile, rows, first_frame, num_frames, num_segments, S, FS, HAS_ROWS)
    sim = _similarities(
        frames, scales, at_M, is_row_M, panel, panel_scales, block * N, D, BLOCK_D, N, IS_INT8, HAS_SCALES
    )
    if IS_MIXED:
        sim, of_words = tl.split(tl.reshape(sim, (M, B * WS, 2)))
    else:
        of_words = sim
    if HAS_FRAME_MIXING:
        # (M, M) with a block for each segment; a segment of NaN must not reach its neighbours through zeros
        one, two = tl.arange(0, M)[:, None], tl.arange(0, M)[None, :]
        mix = tl.load(frames_first + (one % FS) * FS + two % FS, mask=one // FS == two // FS, other=0.0)
        finite = tl.where(tl.abs(sim) < 60000.0, sim, 0.0)
        of_frames = sim + tl.dot(mix, finite.to(tl.float16))
    else:
        of_frames = sim
    sim = tl.reshape(sim, (S, FS, B, WS))
    of_words = tl.reshape(of_words, (S, FS, B, WS))
    of_frames = tl.reshape(of_frames, (S, FS, B, WS))
    is_frame = tl.reshape(is_row_M, (S, FS))[:, :, None]
    is_real_word = tl.reshape(tl.load(is_word + block * B * WS + tl.arange(0, B * WS)), (1, B, WS)) != 0
    is_real = is_frame[:, :, :, None] & is_real_word[:, None, :, :]
    is_whole = (tl.arange(0, WS) == WS - 1)[None, None, None, :]
    sentence = tl.sum(tl.where(is_whole, sim, 0.0), 3)

    highest = tl.max(tl.max(tl.where(is_real, sim, float("-inf")), 3), 1)
    highest = tl.where(highest > float("-inf"), highest, 0.0)
    weights = tl.exp2(tl.where(is_real, (sim - highest[:, None, :, None]) * sharpness, float("-inf")))
    over_words, over_frames = tl.sum(weights, 3), tl.sum(weights, 1)
    by_frame = _ratio(tl.sum(weights * of_words, 3), over_words)
    by_word = _ratio(tl.sum(weights * of_frames, 1), over_frames)
    is_asked = tl.max(is_real_word.to(tl.int32), 2)[:, None, :] != 0
    least = tl.minimum(
        tl.min(tl.where(is_frame & is_asked, over_words, 1.0)),
        tl.min(tl.where(is_real_word & (tl.max(is_frame.to(tl.int32), 1)[:, :, None] != 0), over_frames, 1.0)),
    )
    if least < _LEAST:
        by_frame = _attended(sim, of_words, is_real, sharpness, 3)
        by_word = _attended(sim, of_frames, is_real, sharpness, 1)

    of_sentence, of_frame, of_word = sentence, by_frame, by_word
    if HAS_FRAME_MIXING:
        of_sentence = _mixed(sentence, frames_coarse, FS, 1)
        of_frame = _mixed(by_frame, frames_second, FS, 1)
    if IS_MIXED:
        of_word = _mixed(by_word, words_second, WS, 2)
    frame_sentence = _attended(sentence, of_sentence, is_frame, sharpness, 1)
    frame_word = 0.5 * (
        _attended(by_frame, of_frame, is_frame, sharpness, 1) + _attended(by_word, of_word, is_real_word, sharpness, 2)
    )

    query = (block * B + tl.arange(0, B))[None, :]
    segment = (tile * S + tl.arange(0, S))[:, None]
    at = out + query.to(tl.int64) * num_segments + segment
    is_stored = (segment < num_segments) & (query < num_queries)
    if AS_GRAINS:
        plane = tl.cast(num_segments, tl.int64) * num_queries
        tl.store(at + 2 * plane, frame_sentence, mask=is_stored)
        tl.store(at + 3 * plane, frame_word, mask=is_stored)
    else:
        of_pooled = tl.load(at, mask=is_stored, other=0.0)
        tl.store(at, 0.25 * (of_pooled + frame_sentence + frame_word), mask=is_stored)


@triton.jit(do_not_specialize=["num_segments", "num_queries", "num_query_blocks"])
def best_or_mean(
    out,
    frames,
    scales,
    first_frame,
    num_frames,
    rows,
    panel,
    panel_scales,
    word_shares,
    num_segments,
    num_queries,
    num_query_blocks,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    S: tl.constexpr,
    FS: tl.constexpr,
    B: tl.constexpr,
    WS: tl.constexpr,
    IS_BEST: tl.constexpr,
    IS_INT8: tl.constexpr,
    HAS_SCALES: tl.constexpr,
    HAS_ROWS: tl.constexpr,
):
    """Each word with its best frame (IS_BEST) or with the mean frame, summed by the words' shares -> out (Q, n).

    maxsim is this; so is max_frame, for which the sentence is the only word, and mean, for which the pooled vector is
    the only frame as well.
    """
    tile, block = tl.program_id(0) // num_query_blocks, tl.program_id(0) % num_query_blocks
    N: tl.constexpr = B * WS
    at_M, is_row_M = _rows_of_tile(tile, rows, first_frame, num_frames, num_segments, S, FS, HAS_ROWS)
    sim = _similarities(
        frames, scales, at_M, is_row_M, panel, panel_scales, block * N, D, BLOCK_D, N, IS_INT8, HAS_SCALES
    )
    sim = tl.reshape(sim, (S, FS, N))
    is_frame = tl.reshape(is_row_M, (S, FS))[:, :, None]
    if IS_BEST:
        by_word = tl.max(tl.where(is_frame, sim, float("-inf")), 1)
        # a maximum passes over NaN, a sum doesn't
        by_word += tl.sum(tl.where(sim == sim, 0.0, sim), 1)
    else:
        by_word = _ratio(tl.sum(sim, 1), tl.sum(is_frame.to(tl.float32), 1))
    share = tl.load(word_shares + block * N + tl.arange(0, N))[None, :]
    total = tl.sum(tl.reshape(tl.where(share > 0.0, by_word, 0.0) * share, (S, B, WS)), 2)
    query = (block * B + tl.arange(0, B))[None, :]
    segment = (tile * S + tl.arange(0, S))[:, None]
    at = out + query.to(tl.int64) * num_segments + segment
    tl.store(at, total, mask=(segment < num_segments) & (query < num_queries))
