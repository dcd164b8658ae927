"""Encoders: threads that take read segments, of several videos at once, and turn them into features.

On a CPU each core has one, whose calls take one thread each; where a call takes long it uses the idle cores too. A GPU
has a single encoder. The features leave the model as float32 tensors and this file as float16 arrays. It knows no file
and no job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from indexer.indexing.core_share import CoreShare
from indexer.indexing.segment_queue import ReadSegment, SegmentQueue
from indexer.indexing.task import VideoTask
from indexer.records import Frames, SegmentFeatures, SegmentPlan
from model.threads import threads_of_this_thread
from model.types import VideoTextModel

log = logging.getLogger("vidgrain.worker")

LONG_CALL_S = 1.0
"""How long a segment must take one core for several cores to be worth it: the threads of a call wait for one another,
and long where other programs use the cores."""


class Encoders:
    """Threads that encode what waits in a queue of segments."""

    def __init__(
        self,
        model: VideoTextModel,
        segments: SegmentQueue,
        cores: CoreShare,
        fail: Callable[[VideoTask, BaseException], None],
        ended: Callable[[VideoTask], None],
        *,
        num_threads: int,
        batch_segments: int,
    ) -> None:
        """fail: called with a task and what went wrong. ended: called with a task whose last segment is encoded.

        num_threads: calls of the model at the same time. batch_segments: the most segments of one call.
        """
        self._model = model
        self._segments = segments
        self._cores = cores
        self._fail = fail
        self._ended = ended
        self._batch_segments = batch_segments
        self._segment_s = 0.0
        """Seconds for which a segment takes one core, at most: those of the last call, times its threads."""
        self._threads = [
            threading.Thread(target=self._encode, name=f"encoder-{n}", daemon=True) for n in range(num_threads)
        ]

    def start(self) -> None:
        """Start the threads; they end once the queue of segments is closed."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until the threads have ended."""
        for thread in self._threads:
            thread.join()

    def _encode(self) -> None:
        while batch := self._segments.take(self._batch_segments):
            try:
                self._encode_batch([segment for segment in batch if not segment.task.is_over])
            finally:
                num_bytes = sum(segment.num_bytes for segment in batch)
                batch.clear()  # otherwise the frames would stay in memory while this thread waits
                self._segments.release(num_bytes)

    def _encode_batch(self, batch: Sequence[ReadSegment]) -> None:
        """Where a batch fails, each of its segments is tried alone: only the video at fault fails."""
        if not batch:
            return
        plans = [segment.task.plans[segment.position] for segment in batch]
        try:
            with self._cores.taken() as num_threads:
                features = self._timed(plans, [segment.frames for segment in batch], num_threads)
        except BaseException as error:  # a dead thread would leave the rest waiting
            if len(batch) == 1:
                self._fail(batch[0].task, error)
                return
            log.warning("batch_failed", extra={"num_segments": len(batch), "error_message": str(error)})
            for segment in batch:
                self._encode_batch([segment])
            return
        for segment, made in zip(batch, features, strict=True):
            if segment.task.store(segment.position, made):
                self._ended(segment.task)

    def _timed(self, plans: Sequence[SegmentPlan], frames: Sequence[Frames], idle_cores: int) -> list[SegmentFeatures]:
        num_threads = idle_cores if self._segment_s > LONG_CALL_S else 1
        threads_of_this_thread(num_threads)
        began_s = time.perf_counter()
        features = encode(plans, frames, self._model)
        self._segment_s = num_threads * (time.perf_counter() - began_s) / len(plans)
        return features


def encode(plans: Sequence[SegmentPlan], frames: Sequence[Frames], model: VideoTextModel) -> list[SegmentFeatures]:
    """Encode the frames of V segments in one call of the model; padded slots are left out."""
    encoded = model.encode_video([part.pixels for part in frames])
    pooled_VD = encoded.pooled.detach().float().cpu().numpy().astype(np.float16)
    frames_VFD = encoded.frames.detach().float().cpu().numpy().astype(np.float16)
    mask_VF = encoded.mask.cpu().numpy()
    return [
        SegmentFeatures(
            start_s=plan.start_s,
            end_s=plan.end_s,
            times_s=tuple(float(time_s) for time_s in part.times_s),
            pooled=pooled_VD[v],
            frames=frames_VFD[v][mask_VF[v]],
        )
        for v, (plan, part) in enumerate(zip(plans, frames, strict=True))
    ]
