"""`vidgrain demo`: draw clips into real mp4 files, index them with the bundled model, search, serve the page.

Existing clips are reused: their names are their number and sentence, and the index recognises their content.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import track

from service.cli.printing import answer_table, stderr, stdout

if TYPE_CHECKING:
    from indexer.index import VideoIndex
    from model.tiny.scenes import Scene
    from service.settings import Settings

CLIP_S = 4.0
FPS = 15.0
SIZE_PX = 192
_SEED = 2022
_SEARCHES = ("one", "two", "flash")
_CLIP_SEARCH = "then"


@dataclass(frozen=True)
class DemoClip:
    """A scene, the sentence that titles it, and its file."""

    scene: Scene
    sentence: str
    path: Path


def run(settings: Settings, folder: Path, *, num_clips: int, with_server: bool) -> None:
    """The whole demo. Raises: VidgrainError of whatever is missing; PortUnavailable before anything is drawn."""
    from indexer.errors import ModelMismatch
    from service.cli.indexing import index_files
    from service.observability import configure_logging
    from service.opening import open_index
    from service.serving import bind, serve

    listener = bind(settings.host, settings.port) if with_server else None
    clips = plan_clips(folder / "clips", num_clips)
    draw_missing(clips)
    try:
        index = open_index(settings)
    except ModelMismatch as error:
        hint = f"The bundled model has changed since: remove the folder {settings.data} and run the demo again."
        raise ModelMismatch(error.message, hint, path=error.path) from error
    try:
        titles = [clip.sentence for clip in clips]
        report = index_files(index, [clip.path for clip in clips], titles=titles, retry_failed=True)
        for failure in report.failed:
            stderr.print(f"failed: {failure}", markup=False)
        if report.waiting:
            sys.exit(130)
        stdout.print(
            f"{report.indexed} clips indexed, {report.already_there} there already, in {report.took_s:.1f} s\n"
        )
        search_all(index, clips, folder)
    finally:
        index.close()
    if listener is None:
        sys.exit(1 if report.failed else 0)
    address = f"http://{settings.host}:{listener.getsockname()[1]}"
    stdout.print(f"Serving the page at {address} and the API's docs at {address}/docs. Ctrl-C stops it.")
    stdout.print(f"Search it with sentences like the titles, or with a clip from {folder / 'clips'}.\n", markup=False)
    configure_logging(settings.log_level, settings.log_format)
    serve(settings, listener, with_worker=True)


def plan_clips(folder: Path, num_clips: int) -> list[DemoClip]:
    """The first num_clips scenes of the demo, the same every time, each with a meaning of its own."""
    from model.tiny.scenes import LOOKS, describe, sample_scene

    rng = np.random.default_rng(_SEED)
    clips: list[DemoClip] = []
    meanings = set()
    while len(clips) < num_clips:
        scene = sample_scene(rng, LOOKS)
        sentence = describe(scene, rng)
        if scene.meaning not in meanings:
            meanings.add(scene.meaning)
            name = f"{len(clips) + 1:02d} {sentence}".replace(",", "").replace(" ", "-")
            clips.append(DemoClip(scene, sentence, folder / f"{name}.mp4"))
    return clips


def draw_missing(clips: Sequence[DemoClip]) -> None:
    """Write the clips that are not there yet, each complete or not at all."""
    missing = [clip for clip in clips if not clip.path.exists()]
    for clip in track(missing, "drawing ", console=stderr, disable=not missing):
        write_scene(clip.scene, clip.path)


def search_all(index: VideoIndex, clips: Sequence[DemoClip], folder: Path) -> None:
    """Search three sentences and one clip, none of which is in the index as it is, and print the results as tables."""
    from indexer.records import SearchOptions
    from model.tiny.scenes import twin

    options = SearchOptions(top_k=5)
    for sentence in queries(clips):
        stdout.print(answer_table(index.search_text(sentence, options), f'"{sentence}"'), "")
    asked = next(clip for clip in clips if clip.scene.kind == _CLIP_SEARCH)
    rng = np.random.default_rng(_SEED + 1)
    redrawn = twin(twin(asked.scene, rng), rng)  # turned twice: what happens is the same, ground and grain are new
    path = folder / "query.mp4"
    if not path.exists():
        write_scene(redrawn, path)
    title = f"a clip, drawn again, of: {asked.sentence}"
    stdout.print(answer_table(index.search_video(path, options), title), "")


def queries(clips: Sequence[DemoClip]) -> Iterator[str]:
    """For one clip of each kind in _SEARCHES a sentence that describes it in other words than its title."""
    from model.tiny.scenes import describe

    rng = np.random.default_rng(_SEED + 2)
    for kind in _SEARCHES:
        clip = next(clip for clip in clips if clip.scene.kind == kind)
        paraphrase = describe(clip.scene, rng)
        while paraphrase == clip.sentence:
            paraphrase = describe(clip.scene, rng)
        yield paraphrase


def write_scene(scene: Scene, path: Path) -> None:
    """Draw a scene and encode it as mp4."""
    from indexer.media.write import write_video
    from model.tiny.shapes import draw_clip

    path.parent.mkdir(parents=True, exist_ok=True)
    num = round(CLIP_S * FPS)
    instants = ((np.arange(num) + 0.5) / num).astype(np.float32)
    partial = path.with_suffix(".part.mp4")
    write_video(partial, draw_clip(scene, instants, SIZE_PX), FPS)
    partial.replace(path)
