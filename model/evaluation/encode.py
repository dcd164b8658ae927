"""The clips of a set through the image tower, and from there to what is compared.

Letters: V clips, F frame slots, n real frames of a clip, D embedding width. What the tower makes of a frame depends on
that frame alone, so it is what is kept on disk; temporal encoder and head run again, in whatever batches the protocol
wants. Reading runs ahead in threads. Memory: V * F * D numbers of the stored type, and some clips on their way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.errors import ClipUnreadable, ShapeError
from model.evaluation.cache import FeatureCache, Key
from model.evaluation.sets import EvaluationSet, MeasuredClip
from model.network import FRAMES_PER_BATCH, MaskReading, Network
from model.read_ahead import read_ahead
from model.types import Pixels, VideoFeatures

CLIPS_PER_BATCH = 64
"""Clips through the head at once; the papers' runs of CLIP2Video, where neighbours matter, have the same number."""
OFFICIAL_TEXTS_PER_BATCH = 64

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class EncodedClips:
    """raw (V, F, D) float16 or float32 as the tower gave them, padded slots zero; counts (V,) of real frames.

    unreadable: ids of the clips that aren't among the V, with the reason.
    """

    clips: EvaluationSet
    raw: NDArray[Any]
    counts: NDArray[np.int64]
    unreadable: dict[str, str]


def stored_type(masks: MaskReading) -> np.dtype[Any]:
    """How frames are kept: float16 as the index keeps them; where exactly the papers' numbers are wanted, float32."""
    return np.dtype(np.float32 if masks == "reference" else np.float16)


@torch.inference_mode()
def encode_clips(
    network: Network,
    chosen: EvaluationSet,
    fingerprint: str,
    cache: FeatureCache | None = None,
    *,
    num_readers: int = 2,
    on_progress: Progress | None = None,
) -> EncodedClips:
    """Read and encode every clip that the cache doesn't hold.

    fingerprint: of the network; with each clip's identity it is what an entry of the cache is found by. num_readers:
    clips that are read at the same time. Figures don't depend on whether there is a cache.
    """
    dtype, slots, width = stored_type(network.masks), network.num_frames, network.backbone.embed_dim
    raw = np.zeros((len(chosen.clips), slots, width), dtype)
    counts = np.zeros(len(chosen.clips), np.int64)
    unreadable: dict[str, str] = {}
    keys = [_key(clip, fingerprint, slots, dtype) for clip in chosen.clips]
    num_done = 0

    def done(num: int) -> None:
        nonlocal num_done
        num_done += num
        if on_progress:
            on_progress("encoding videos", num_done, len(chosen.clips))

    done(0)
    absent: list[int] = []
    for v, key in enumerate(keys):
        kept = cache.get(key, dtype, width) if cache is not None and key is not None else None
        if kept is None or len(kept) > slots:
            absent.append(v)
        else:
            raw[v, : len(kept)], counts[v] = kept, len(kept)
            done(1)

    def encode(batch: list[tuple[int, Pixels]]) -> None:
        sizes = [len(pixels) for _, pixels in batch]
        resized = torch.from_numpy(np.concatenate([pixels for _, pixels in batch]))
        found = torch.split(network.encode_frames(resized), sizes)
        for (v, _), frames in zip(batch, found, strict=True):
            raw[v, : len(frames)], counts[v] = frames.cpu().numpy().astype(dtype), len(frames)
            if cache is not None and (key := keys[v]) is not None:
                cache.put(key, raw[v, : len(frames)])
        done(len(batch))

    batch: list[tuple[int, Pixels]] = []
    for v, pixels in _read_ahead(network, [chosen.clips[v] for v in absent], num_readers):
        if isinstance(pixels, str):
            unreadable[chosen.clips[absent[v]].id] = pixels
            done(1)
            continue
        batch.append((absent[v], pixels))
        if sum(len(pixels) for _, pixels in batch) >= FRAMES_PER_BATCH:
            encode(batch)
            batch = []
    if batch:
        encode(batch)
    if not unreadable:
        return EncodedClips(chosen, raw, counts, {})
    is_there = counts > 0
    kept_ids = {clip.id for clip, is_kept in zip(chosen.clips, is_there, strict=True) if is_kept}
    return EncodedClips(chosen.only(kept_ids), raw[is_there], counts[is_there], unreadable)


@torch.inference_mode()
def video_features(network: Network, encoded: EncodedClips) -> VideoFeatures:
    """Raw frames -> what is compared, (V, ...) float32 on the network's device."""
    device = network.backbone.logit_scale.device
    parts = []
    for batch in _batches(encoded.clips, network.masks):
        counts = torch.from_numpy(encoded.counts[batch])
        mask_VF = (torch.arange(network.num_frames)[None] < counts[:, None]).to(device)
        raw_VFD = torch.from_numpy(encoded.raw[batch]).to(device, torch.float32)
        parts.append(network.video_from_frames(network.in_slots(raw_VFD[mask_VF], mask_VF), mask_VF))
    return VideoFeatures(
        torch.cat([part.pooled for part in parts]),
        torch.cat([part.frames for part in parts]),
        torch.cat([part.mask for part in parts]),
    )


def _batches(chosen: EvaluationSet, masks: MaskReading) -> list[slice]:
    """Neighbours through the head. Official, with many captions: the papers' loaders go through captions, 64 at a time,
    and encode the clips whose last caption is among them.

    Source: evaluation/eval.py of CLIP2Video at e941318, main_task_retrieval.py of CLIP4Clip at 508ffa3.
    """
    num_videos = len(chosen.clips)
    if masks == "reference" and chosen.is_multi_caption:
        last_text = np.cumsum([len(clip.texts) for clip in chosen.clips]) - 1
        starts = np.flatnonzero(np.diff(last_text // OFFICIAL_TEXTS_PER_BATCH, prepend=-1)).tolist()
    else:
        starts = list(range(0, num_videos, CLIPS_PER_BATCH))
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], num_videos], strict=True)]


def _key(clip: MeasuredClip, fingerprint: str, num_frames: int, dtype: np.dtype[Any]) -> Key | None:
    if clip.identity is None:
        return None
    return {"fingerprint": fingerprint, "num_frames": num_frames, "dtype": dtype.name, **clip.identity}


def _read_ahead(
    network: Network, clips: Sequence[MeasuredClip], num_readers: int
) -> Iterator[tuple[int, Pixels | str]]:
    """(position, frames of the tower's size, or why there are none) in order, a few clips read before they are due."""
    slots, resize = network.num_frames, network.backbone.preprocess.resize

    def read(clip: MeasuredClip) -> Pixels | str:
        try:
            pixels = clip.read(slots)
        except ClipUnreadable as error:
            return str(error)
        if not 1 <= len(pixels) <= slots:
            raise ShapeError(f"clip {clip.id} gave {len(pixels)} frames; 1 to {slots} are needed")
        return resize(pixels)

    with read_ahead(read, clips, ahead=2 * num_readers, threads=num_readers) as frames:
        yield from enumerate(frames)
