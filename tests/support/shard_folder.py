"""A data folder with a real catalogue and tiny shards in files, in this process or in a child that is killed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from indexer.catalogue.reader import CatalogueReader
from indexer.shards.sizes import Layout
from indexer.shards.snapshot import Snapshots
from indexer.shards.upkeep import Upkeep
from indexer.vectors import VectorIndex
from tests.support.catalogues import SPEC, Catalogue, add_ready
from tests.support.shards import FAKE_COARSE, TINY
from tests.support.views import check, held

LAYOUT = Layout(SPEC.embed_dim, SPEC.pooled_width, SPEC.num_frames)
FILE_EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "sqlite3.connect"})


class ShardFolder:
    """Opens the catalogue of a folder and the shards beside it; use it in a `with`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.catalogue = Catalogue(folder / "catalogue.sqlite")
        self.catalogue.bind_model(SPEC)
        self.reader = CatalogueReader(self.catalogue)
        self.snapshots = Snapshots(folder / "shards", LAYOUT, SPEC.fingerprint, FAKE_COARSE)
        self.vectors = VectorIndex(LAYOUT.dim, LAYOUT.num_slots, sizes=TINY, snapshots=self.snapshots)
        self.upkeep = Upkeep(
            self.vectors.shards,
            coarse=FAKE_COARSE,
            snapshots=self.snapshots,
            renew_token=self.reader.renew_shard_token,
            forget=self.vectors.forget,
        )

    def __enter__(self) -> ShardFolder:
        return self

    def __exit__(self, *_: Any) -> None:
        self.upkeep.stop()
        self.catalogue.close()

    def publish(self, first: int, last: int, seed: int = 0) -> None:
        """Index some videos, each by name, and keep up."""
        for number in range(first, last):
            add_ready(self.catalogue, f"video {number}", 3, seed=seed + number)
            self.vectors.follow(self.reader)

    def keep(self) -> None:
        """Keep up, and do all upkeep."""
        self.vectors.follow(self.reader)
        self.upkeep.run_once()

    def num_from_files(self) -> int:
        """Videos that the next opening would take from files: those of mapped shards."""
        return sum(shard.num_videos for shard in self.vectors.shards.sealed if shard.backing is not None)

    def check(self) -> None:
        """Keep up; then everything held is what the catalogue holds, bit for bit."""
        self.vectors.follow(self.reader)
        check(self.vectors.view())
        assert self.vectors.is_whole
        videos = held(self.vectors.view())
        assert set(videos) == {change.video_id for change in self.catalogue.changes(0) if change.is_live}
        for video_id, segments in videos.items():
            for mine, stored in zip(segments, self.catalogue.segments(video_id), strict=True):
                assert (mine.id, mine.times_s) == (stored.id, stored.features.times_s)
                assert (mine.pooled == stored.features.pooled).all()
                assert (mine.frames == stored.features.frames).all()


def work_until_killed(folder: Path, at: int, first: int) -> None:
    """Publish, replace and remove videos with upkeep in between; killed at the at-th event of a file below shards/."""
    num_events = 0
    shards = str(folder / "shards")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal num_events
        if event in FILE_EVENTS and (event != "open" or _is_written(arguments)) and any(map(_below, arguments)):
            num_events += 1
            if num_events == at:
                os.kill(os.getpid(), signal.SIGKILL)

    def _below(argument: object) -> bool:
        text = os.fsdecode(argument) if isinstance(argument, str | bytes | os.PathLike) else ""
        return text.startswith(shards) or text.endswith((".shard", ".partial"))

    sys.addaudithook(hook)
    with ShardFolder(folder) as opened:
        opened.keep()
        opened.publish(first, first + 3)
        opened.keep()
        for video in opened.catalogue.list_videos(limit=20)[0][:3]:
            opened.catalogue.remove_video(video.id)
        opened.keep()


def _is_written(arguments: tuple[Any, ...]) -> bool:
    return len(arguments) > 1 and isinstance(arguments[1], str) and "r" not in arguments[1]
