"""The image tower as it serves: frames of its size in, raw embeddings out, in float32 or in bfloat16.

A precision is part of what features are: those of another one have another fingerprint. bfloat16 means that a cosine
with float32 is at least LEAST_COSINE, so a machine without bfloat16, or a tower that loses more, computes the same
features in float32: slower, and nearer to the truth. docs/decisions/0016 has the rules.

Letters: N frames, S image side, D embedding width. It knows a network and devices; it knows no segment.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.nn.modules.batchnorm import _BatchNorm

from model.made_pictures import made_pictures
from model.network import Network
from model.packed_blocks import UnknownParts, is_native
from model.packed_pictures import PackedPictures
from model.preprocess import Preprocess
from model.types import Precision

log = logging.getLogger(__name__)

FramePrecision = Literal["auto", "fp32", "bf16"]
"""What may be asked for; auto is bf16 where the device has it, the tower is large enough and keeps its direction."""

LEAST_COSINE = 0.999
"""Between an embedding in bfloat16 and in float32, for bfloat16 to be computed in."""

MIN_WEIGHTS = 8_000_000
"""A tower with fewer weights is fast as it is, and auto leaves it in float32: the bundled model's, for one."""

CPU_FRAMES = 24
"""Frames of one call on a CPU: more gain nothing, for they go through the tower a few at a time."""

GPU_FRAMES = 768
"""Frames of one call on a GPU: three forward passes, so that copies run beside them."""

GPU_FRAMES_PER_PASS = 256

Encode = Callable[[Tensor], Tensor]
"""(N, S, S, 3) uint8 -> (N, D) float32 on the device."""


def preferred_frames(device: torch.device) -> int:
    """How many frames one call of `encode_video` should hold, over all of its segments."""
    return CPU_FRAMES if device.type == "cpu" else GPU_FRAMES


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself: AVX512-BF16 or AMX, or a GPU of compute capability 8."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and is_native()


class PictureTower:
    """Encodes frames. Thread-safe. What it computes in is settled once: by the first frames, or by `auto`."""

    def __init__(self, network: Network, device: torch.device, asked: FramePrecision = "fp32") -> None:
        """network: on the device already. Where bfloat16 is settled on, its own image tower is dropped."""
        self._network = network
        self._device = device
        self._asked = asked
        self._lock = threading.Lock()
        self._encode: Encode | None = None
        self._computed_in: Precision = "fp32"

    @property
    def precision(self) -> Precision:
        """What the embeddings count as: part of the fingerprint."""
        return self.computed_in if self._asked == "auto" else self._asked

    @property
    def computed_in(self) -> Precision:
        """What this machine computes them in."""
        self._settled()
        return self._computed_in

    @torch.inference_mode()
    def __call__(self, frames_NSSC: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 on the CPU -> (N, D) float32 on the device."""
        encode = self._settled()
        return encode(frames_NSSC) if self._device.type == "cpu" else self._streamed(encode, frames_NSSC)

    def _streamed(self, encode: Encode, frames_NSSC: Tensor) -> Tensor:
        """Copies go through pinned memory on a stream of their own, each while the batch before it is computed.

        Nothing here waits for the GPU: the caller does when it reads the result.
        """
        copies = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        computing = torch.cuda.current_stream(self._device)

        def send(batch: Tensor) -> Tensor:
            with torch.cuda.stream(copies):
                return batch.pin_memory().to(self._device, non_blocking=True)

        batches = torch.split(frames_NSSC, GPU_FRAMES_PER_PASS)
        found, sent = [], send(batches[0])
        for number in range(len(batches)):
            computing.wait_stream(copies)
            sent.record_stream(computing)
            found.append(encode(sent))
            if number + 1 < len(batches):
                sent = send(batches[number + 1])
        return torch.cat(found)

    def _settled(self) -> Encode:
        if self._encode is None:
            with self._lock:
                if self._encode is None:
                    self._encode = self._chosen()
        return self._encode

    def _chosen(self) -> Encode:
        """The tower in bfloat16 if it may be used, else the network's own."""
        if self._asked == "fp32":
            return self._in_fp32
        reason = self._against_bfloat16()
        if not reason:
            try:
                encode = self._in_bf16()
                cosine = self._least_cosine(encode)
                reason = "" if cosine >= LEAST_COSINE else f"a cosine with float32 is {cosine:.5f}"
            except (RuntimeError, TypeError) as error:  # an operator that knows no bfloat16
                reason = f"the tower can't: {error}"
        if reason:
            log.log(
                logging.DEBUG if self._asked == "auto" else logging.WARNING, "frames_in_fp32", extra={"why": reason}
            )
            return self._in_fp32
        log.info("frames_in_bf16", extra={"least_cosine": round(cosine, 6)})
        self._network.backbone.drop_image_tower()
        self._computed_in = "bf16"
        return encode

    def _against_bfloat16(self) -> str:
        if not has_bfloat16(self._device):
            return f"the {'processor' if self._device.type == 'cpu' else 'GPU'} has no bfloat16"
        if self._network.masks != "masked":
            return "the network reads its padding, which is encoded too"
        if self._asked == "auto" and _num_weights(self._network.backbone.image_tower) < MIN_WEIGHTS:
            return "the image tower is small"
        return ""

    def _in_bf16(self) -> Encode:
        backbone = self._network.backbone
        if self._device.type == "cpu":
            try:
                return PackedPictures(backbone.image_tower, backbone.preprocess)
            except UnknownParts as error:
                log.debug("image_tower_not_packed", extra={"why": str(error)})
        return CastTower(backbone.image_tower, backbone.preprocess)

    def _in_fp32(self, frames_NSSC: Tensor) -> Tensor:
        if self._device.type != "cpu":
            return self._network.encode_frames(frames_NSSC)
        parts = torch.split(frames_NSSC, CPU_FRAMES)  # larger ones leave the cache
        return torch.cat([self._network.encode_frames(part) for part in parts])

    @torch.inference_mode()
    def _least_cosine(self, encode: Encode) -> float:
        """The least cosine between both precisions over made pictures; nan if there is none."""
        pictures = torch.from_numpy(made_pictures(self._network.backbone.image_size)).to(self._device)
        return float(cosine_similarity(encode(pictures), self._network.encode_frames(pictures), dim=-1).min())


class CastTower:
    """Any image tower, cast to bfloat16 as a whole; the numbers of batch norms stay float32."""

    def __init__(self, tower: nn.Module, preprocess: Preprocess) -> None:
        """Copies the tower, on its device."""
        self._preprocess = preprocess
        self._tower: Any = deepcopy(tower).bfloat16().to(memory_format=torch.channels_last)
        for module in self._tower.modules():
            if isinstance(module, _BatchNorm):
                module.float()

    @torch.inference_mode()
    def __call__(self, frames_NSSC: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 on the tower's device -> (N, D) float32."""
        found = self._tower(self._preprocess.normalise(frames_NSSC).bfloat16())
        embeddings: Tensor = found[0] if isinstance(found, tuple) else found
        return embeddings.float()


def _num_weights(tower: nn.Module) -> int:
    return sum(weight.numel() for weight in tower.parameters())
