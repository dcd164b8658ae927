"""CLIP2Video's corrected form: a segment's vectors depend on its real frames alone, a text's on its real words."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.heads.clip2video import CORRECTED, OFFICIAL, BranchVectors, Clip2VideoConfig, Clip2VideoHead, MaskForm

WIDTH = 16
NUM_FRAMES = 7
ATOL = 2e-5


def head_of(global_branch: str, difference: str, alignment: str, masks: MaskForm = CORRECTED) -> Clip2VideoHead:
    torch.manual_seed(0)
    config = Clip2VideoConfig(
        WIDTH,
        global_branch=global_branch,  # type: ignore[arg-type]
        difference=difference,  # type: ignore[arg-type]
        alignment=alignment,  # type: ignore[arg-type]
        num_centres=3,
        layers=2,
        heads=2,
        num_positions=12,
        masks=masks,
    )
    return Clip2VideoHead(config).eval()


heads = st.builds(
    head_of,
    st.sampled_from(["mean", "seqTransf", "TDB"]),
    st.sampled_from(["plain", "sigmoid_mlp", "sigmoid_selfA"]),
    st.sampled_from(["none", "frames", "TAB", "TAB_TDB"]),
)
counts = st.lists(st.integers(1, NUM_FRAMES), min_size=1, max_size=4)
seeds = st.integers(0, 2**31 - 1)


def ragged(counts: list[int], num_slots: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random tokens, as many real ones as `counts` says, random padding after them."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(num_slots)[None, :] < torch.tensor(counts)[:, None]
    return torch.randn(len(counts), num_slots, WIDTH, generator=generator), mask


def assert_same(found: BranchVectors, wanted: BranchVectors) -> None:
    torch.testing.assert_close(found.whole_ND, wanted.whole_ND, atol=ATOL, rtol=0)
    assert (found.aligned_ND is None) == (wanted.aligned_ND is None)
    if found.aligned_ND is not None and wanted.aligned_ND is not None:
        torch.testing.assert_close(found.aligned_ND, wanted.aligned_ND, atol=ATOL, rtol=0)


def joined(parts: list[BranchVectors]) -> BranchVectors:
    aligned = [part.aligned_ND for part in parts if part.aligned_ND is not None]
    return BranchVectors(torch.cat([part.whole_ND for part in parts]), torch.cat(aligned) if aligned else None)


@settings(deadline=None, max_examples=40)
@given(head=heads, counts=counts, seed=seeds, other=st.floats(-50, 50, width=32))
@torch.no_grad()
def test_padding_has_no_say(head: Clip2VideoHead, counts: list[int], seed: int, other: float) -> None:
    frames, mask = ragged(counts, NUM_FRAMES, seed)
    before = head.video(frames, mask)
    assert_same(head.video(frames.masked_fill(~mask[..., None], other), mask), before)
    longer = torch.cat([frames, torch.full((len(counts), 3, WIDTH), other)], dim=1)
    assert_same(head.video(longer, torch.nn.functional.pad(mask, (0, 3))), before)


@settings(deadline=None, max_examples=40)
@given(head=heads, counts=counts, seed=seeds)
@torch.no_grad()
def test_a_batch_is_its_segments_one_by_one(head: Clip2VideoHead, counts: list[int], seed: int) -> None:
    frames, mask = ragged(counts, NUM_FRAMES, seed)
    alone = [head.video(frames[[v], :count], mask[[v], :count]) for v, count in enumerate(counts)]
    assert_same(head.video(frames, mask), joined(alone))


@settings(deadline=None, max_examples=40)
@given(counts=st.lists(st.integers(2, 6), min_size=1, max_size=4), seed=seeds, other=st.floats(-50, 50, width=32))
@torch.no_grad()
def test_of_a_text_only_its_words_count(counts: list[int], seed: int, other: float) -> None:
    """Neither padding nor the start token, whatever the mask says of that."""
    head = head_of("mean", "plain", "frames")
    words, mask = ragged(counts, 6, seed)
    sentence = words[:, 0]
    before = head.text(sentence, words, mask)
    unheard = ~mask
    unheard[:, 0] = True
    assert_same(head.text(sentence, words.masked_fill(unheard[..., None], other), ~unheard), before)


@settings(deadline=None, max_examples=25)
@given(head=heads, counts=st.lists(st.integers(0, 2), min_size=1, max_size=3), seed=seeds)
def test_one_frame_or_none_gives_finite_vectors_and_gradients(
    head: Clip2VideoHead, counts: list[int], seed: int
) -> None:
    frames, mask = ragged(counts, NUM_FRAMES, seed)
    head.zero_grad()
    found = head.video(frames.requires_grad_(), mask)
    vectors = [v for v in found if v is not None]
    for vector in vectors:
        torch.testing.assert_close(vector.norm(dim=-1), (torch.tensor(counts) > 0).float(), atol=1e-5, rtol=0)
    torch.stack([v.sum() for v in vectors]).sum().backward()
    assert frames.grad is not None and bool(torch.isfinite(frames.grad).all())
    # in exact zeros, or padding would be trained on
    assert not bool(frames.grad[~mask].any())
    assert all(math.isfinite(float(p.grad.sum())) for p in head.parameters() if p.grad is not None)


@torch.no_grad()
def test_half_precision_holds_the_masks() -> None:
    """-1e6 is no float16 number, and a row of nothing but minus infinity is NaN."""
    head = head_of("TDB", "sigmoid_selfA", "TAB_TDB")
    frames, mask = ragged([1, 2, 7], NUM_FRAMES, 1)
    single, half = head.video(frames, mask), head.half().video(frames.half(), mask)
    torch.testing.assert_close(half.whole_ND.float(), single.whole_ND, atol=2e-2, rtol=0)


@torch.no_grad()
def test_the_official_form_has_neither_property() -> None:
    """Else the tests above would not show what the correction is for."""
    head = head_of("TDB", "sigmoid_selfA", "TAB_TDB", OFFICIAL)
    frames, mask = ragged([3, 7, 5], NUM_FRAMES, 1)
    before = head.video(frames, mask).whole_ND
    other = head.video(frames.masked_fill(~mask[..., None], 0.5), mask).whole_ND
    alone = torch.cat([head.video(frames[[v]], mask[[v]]).whole_ND for v in range(3)])
    assert float((other - before).abs().max()) > 1e-3
    assert float((alone - before).abs().max()) > 1e-3
