"""Copies of blocks on a device, here the CPU: made once, grown, dropped with their arrays and beyond the bound."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from model.kernels.block import FeatureBlock, quantize
from model.kernels.device_blocks import DeviceBlocks

CPU = torch.device("cpu")


def block_of(num_segments: int, seed: int = 0, width: int = 8) -> FeatureBlock:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, num_segments).astype(np.int32)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    frames, pooled = (rng.normal(size=(n, width)).astype(np.float16) for n in (counts.sum(), num_segments))
    return FeatureBlock(frames, pooled, first, counts)


def first_of(block: FeatureBlock, num_segments: int) -> FeatureBlock:
    """A view of the first segments, as an open shard gives one before it grew."""
    frames = int(block.num_frames[:num_segments].sum())
    segments = slice(num_segments)
    return FeatureBlock(
        block.frames[:frames], block.pooled[segments], block.first_frame[segments], block.num_frames[segments]
    )


def test_a_block_is_copied_once() -> None:
    blocks, block = DeviceBlocks(CPU, 2**20), block_of(5)
    made = blocks.get(block)
    np.testing.assert_array_equal(made.frames.numpy(), block.frames)
    np.testing.assert_array_equal(made.first_frame.numpy(), block.first_frame)
    again = blocks.get(replace(block))
    assert again.frames is made.frames and again.most_frames == block.num_frames.max()
    assert len(blocks) == 1 and blocks.size_bytes == block.size_bytes + 5 * 12


def test_of_a_block_that_grew_the_new_rows_are_copied() -> None:
    whole = block_of(9)
    blocks = DeviceBlocks(CPU, 2**20)
    early = blocks.get(first_of(whole, 4))
    early.frames.zero_()  # what is here already isn't copied again
    num_early = len(early.frames)
    grown = blocks.get(first_of(whole, 7))
    num_frames = int(whole.num_frames[:7].sum())
    assert not grown.frames[:num_early].any()
    np.testing.assert_array_equal(grown.frames[num_early:num_frames].numpy(), whole.frames[num_early:num_frames])
    np.testing.assert_array_equal(grown.pooled[:7].numpy(), whole.pooled[:7])
    assert grown.most_frames == whole.num_frames[:7].max()
    assert blocks.get(first_of(whole, 2)).frames is grown.frames  # an older view reads the same copy
    assert len(blocks) == 1


def test_a_mapped_file_is_copied(tmp_path: Path) -> None:
    block = block_of(4)
    path = tmp_path / "frames.npy"
    np.save(path, block.frames)
    mapped = replace(block, frames=np.load(path, mmap_mode="r"))
    np.testing.assert_array_equal(DeviceBlocks(CPU, 2**20).get(mapped).frames.numpy(), block.frames)


def test_a_copy_goes_with_its_arrays() -> None:
    blocks, block = DeviceBlocks(CPU, 2**20), block_of(5)
    view = first_of(block, 3)
    blocks.get(view)
    del block
    gc.collect()
    assert len(blocks) == 1  # the view holds the memory
    del view
    gc.collect()
    assert len(blocks) == 0


def test_beyond_the_bound_the_copy_unused_longest_is_dropped() -> None:
    made = [block_of(6, seed) for seed in range(3)]
    bound = sum(block.size_bytes + 6 * 12 for block in made) - 1
    blocks = DeviceBlocks(CPU, bound)
    first = blocks.get(made[0]).frames
    second = blocks.get(made[1]).frames
    assert blocks.get(made[0]).frames is first
    blocks.get(made[2])
    assert len(blocks) == 2 and blocks.size_bytes <= bound
    assert blocks.get(made[0]).frames is first
    assert blocks.get(made[1]).frames is not second


def test_a_block_larger_than_the_bound_is_copied_for_the_call() -> None:
    blocks, block = DeviceBlocks(CPU, 100), block_of(9)
    np.testing.assert_array_equal(blocks.get(block).pooled.numpy(), block.pooled)
    assert len(blocks) == 0


def test_raw_rows_get_scales_that_make_them_unit_vectors() -> None:
    whole = block_of(6)
    whole.frames[1] = 0
    for block in (first_of(whole, 3), whole):
        made = DeviceBlocks(CPU, 2**20).get(block, has_unit_frames=False)
        assert made.unit_scales is not None
        lengths = np.linalg.norm(block.frames.astype(np.float32) * made.unit_scales.numpy()[:, None], axis=1)
        np.testing.assert_allclose(lengths, np.arange(len(lengths)) != 1, atol=1e-5)


def test_int8_rows_become_unit_vectors_whatever_their_scale() -> None:
    block = block_of(4)
    (frames, frame_scales), (pooled, pooled_scales) = quantize(block.frames), quantize(block.pooled)
    block = FeatureBlock(frames, pooled, block.first_frame, block.num_frames, frame_scales, pooled_scales)
    made = DeviceBlocks(CPU, 2**20).get(block, has_unit_frames=False)
    assert made.is_int8 and made.unit_scales is not None
    lengths = np.linalg.norm(frames.astype(np.float32) * made.unit_scales.numpy()[:, None], axis=1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-5)
