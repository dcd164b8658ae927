"""Looks after sealed shards in a thread of its own: checked, compacted, merged, made quick to search, kept in files.

Each step makes a new shard beside the old ones and puts it in their place in one go, with the removals that came
meanwhile; searches and the reading of the catalogue go on. It knows no catalogue but for the token of a manifest.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from indexer.shards.rows import rows_live
from indexer.shards.shard import SealedShard, merged
from indexer.shards.shard_file import Stopped
from indexer.shards.shard_set import ShardSet
from indexer.shards.snapshot import CoarseMaker, Snapshots
from indexer.shards.view import CoarseIndex
from model.errors import VidgrainError

log = logging.getLogger("vidgrain.upkeep")

NICENESS = 10
"""Added to the thread's priority number, so that searches go first."""
STOP_S = 5.0
"""How long `stop` waits for a step that can't be given up; the thread then ends with the process."""


class Upkeep:
    """Runs between `start` and `stop`, or by `run_once`. One per index."""

    def __init__(
        self,
        shards: ShardSet,
        *,
        coarse: CoarseMaker | None = None,
        snapshots: Snapshots | None = None,
        renew_token: Callable[[], str] = lambda: "",
        forget: Callable[[SealedShard], None],
        poll_s: float = 2.0,
        retry_s: float = 60.0,
    ) -> None:
        """coarse: makes coarse indexes; None: shards stay without. snapshots: where to keep shards; None: nowhere.

        renew_token: writes a token into the catalogue, for the manifest. forget: drops a shard whose features are
        damaged and has it read again. poll_s: seconds between two looks. retry_s: how long it pauses after a failure.
        """
        self._shards = shards
        self._coarse = coarse
        self._snapshots = snapshots
        self._renew_token = renew_token
        self._forget = forget
        self._poll_s = poll_s
        self._retry_s = retry_s
        self._without_coarse: set[int] = set()
        self._save_again_s = 0.0
        self._is_stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread. Harmless when repeated."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread, in the middle of a step if need be; let another process write. Harmless when repeated."""
        self._is_stopped.set()
        if self._thread is not None:
            self._thread.join(STOP_S)
        if self._snapshots is not None and (self._thread is None or not self._thread.is_alive()):
            self._snapshots.close()

    def run_once(self) -> None:
        """Do everything that there is to do now. Raises: Stopped."""
        self._check()
        self._compact()
        self._merge()
        self._build_coarse()
        self._save()

    def _run(self) -> None:
        _step_back()
        while not self._is_stopped.wait(self._poll_s):
            try:
                self.run_once()
            except Stopped:
                return
            except (VidgrainError, OSError, MemoryError) as error:
                log.error("upkeep_failed", extra={"error_message": str(error) or type(error).__name__})
                self._is_stopped.wait(self._retry_s)

    def _go_on(self) -> bool:
        return not self._is_stopped.is_set()

    def _each(self) -> Iterator[SealedShard]:
        """The sealed shards, one after another, unless it is to stop; none is kept alive. Raises: Stopped."""
        for key in [shard.key for shard in self._shards.sealed]:
            if not self._go_on():
                raise Stopped
            yield from (shard for shard in self._shards.sealed if shard.key == key)

    # ---- the steps

    def _check(self) -> None:
        """Read the features of mapped shards once; a damaged one is read from the catalogue again."""
        for shard in self._each():
            if shard.backing is not None and not shard.backing.is_sound(self._go_on):
                log.error("shard_damaged", extra={"shard": shard.backing.name, "segments": shard.num_live})
                self._forget(shard)

    def _compact(self) -> None:
        """Rewrite shards of which much is dead."""
        for shard in self._each():
            if shard.num_live < (1 - self._shards.sizes.max_dead) * len(shard):
                self._rewrite([shard], "shard_compacted")

    def _merge(self) -> None:
        """Make large shards of small ones."""
        while group := self._small():
            if not self._go_on():
                raise Stopped
            self._rewrite(group, "shards_merged")

    def _small(self) -> list[SealedShard]:
        """Small shards that fill a large one together, in the order in which they were sealed; [] if there are none."""
        sizes = self._shards.sizes
        group: list[SealedShard] = []
        num_live, is_enough = 0, False
        for shard in self._shards.sealed:
            if shard.num_live >= sizes.small_segments:
                continue
            if is_enough := num_live + shard.num_live > sizes.shard_segments:
                break
            group.append(shard)
            num_live += shard.num_live
            is_enough = num_live >= sizes.enough_segments
        return group if len(group) > 1 and is_enough else []

    def _rewrite(self, old: Sequence[SealedShard], event: str) -> None:
        """Put one shard of what is live in the place of others."""
        started_s = time.monotonic()
        whole = merged(old) if any(shard.num_live for shard in old) else None

        def build(now: Sequence[SealedShard]) -> SealedShard | None:
            return whole and _as_now(whole, old, now)

        if self._shards.swap(old, build):
            facts = {"shards": len(old), "segments": 0 if whole is None else len(whole)}
            log.info(event, extra={**facts, "took_ms": round((time.monotonic() - started_s) * 1e3)})

    def _build_coarse(self) -> None:
        """Build the coarse index of shards that have none."""
        if self._coarse is None:
            return
        for shard in self._each():
            if shard.coarse is not None or shard.key in self._without_coarse:
                continue
            started_s = time.monotonic()
            try:
                coarse = self._coarse.build(shard)
            except VidgrainError as error:
                self._without_coarse.add(shard.key)
                log.warning("coarse_failed", extra={"error_code": error.code, "error_message": str(error)})
                continue
            self._shards.swap([shard], partial(_with_coarse, coarse))
            took_ms = round((time.monotonic() - started_s) * 1e3)
            log.info("coarse_built", extra={"segments": len(shard), "took_ms": took_ms})

    def _save(self) -> None:
        """Write shards to files and use those from then on; then name them in the manifest."""
        snapshots = self._snapshots
        if snapshots is None or time.monotonic() < self._save_again_s or not self._is_to_save():
            return
        try:
            if not snapshots.take():
                return
            for shard in self._each():
                if snapshots.has(shard):
                    continue
                started_s = time.monotonic()
                written = snapshots.write(shard, self._go_on)
                if shard.key in self._without_coarse:
                    self._without_coarse.add(written.key)
                self._shards.swap([shard], partial(_moved, written))
                took_ms = round((time.monotonic() - started_s) * 1e3)
                log.info("shard_written", extra={"segments": len(shard), "took_ms": took_ms})
            snapshots.commit(self._shards.sealed, self._renew_token)
        except (OSError, VidgrainError) as error:
            self._save_again_s = time.monotonic() + self._retry_s
            log.warning("snapshot_postponed", extra={"error_message": str(error) or type(error).__name__})

    def _is_to_save(self) -> bool:
        assert self._snapshots is not None
        return bool(self._shards.sealed) or self._snapshots.is_there


def _as_now(whole: SealedShard, old: Sequence[SealedShard], now: Sequence[SealedShard]) -> SealedShard | None:
    """A shard made of what was live, without what has been removed since; None if nothing is left."""
    is_live = np.concatenate([rows_live(still.view)[rows_live(was.view)] for was, still in zip(old, now, strict=True)])
    if is_live.all():
        return whole
    num_videos = sum(still.num_videos for still in now)
    num_live = int(is_live.sum())
    return replace(whole, is_live=is_live, num_live=num_live, num_videos=num_videos) if num_live else None


def _with_coarse(coarse: CoarseIndex, now: Sequence[SealedShard]) -> SealedShard:
    return replace(now[0], coarse=coarse, backing=None)  # no file holds all of it


def _moved(written: SealedShard, now: Sequence[SealedShard]) -> SealedShard:
    """The shard in the memory of its file, with what is dead by now."""
    return replace(now[0], parts=written.parts, backing=written.backing, coarse=written.coarse or now[0].coarse)


def _step_back() -> None:
    """Let other threads go first, where the system can."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    except (AttributeError, OSError):
        log.debug("priority_unchanged")
