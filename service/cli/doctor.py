"""`vidgrain doctor`: tries everything that search needs, and reports what it found and what to do about it.

Every check runs, whatever the others found.
"""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.table import Table

from indexer.errors import BackendMissing
from indexer.storage import CATALOGUE_FILE
from model.errors import VidgrainError
from model.kernels.block import FeatureBlock

if TYPE_CHECKING:
    from model.types import Precision
    from service.settings import Settings

Status = Literal["ok", "warn", "fail"]

PACKAGES = ("torch", "open_clip_torch", "fastapi", "uvicorn", "pydantic", "av", "decord", "redis", "numpy")
FAISS_PACKAGES = ("faiss-cpu", "faiss-gpu")
LOW_SPACE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Check:
    """One thing that was checked."""

    name: str
    status: Status
    found: str
    hint: str = ""
    """What to do; empty if there is nothing to do."""


def examine(settings: Settings) -> list[Check]:
    """Every check, in the order in which a failure explains the next one."""
    checks: tuple[tuple[str, Callable[[Settings], Check]], ...] = (
        ("python", _python),
        ("packages", _packages),
        ("faiss", _faiss),
        ("device", _device),
        ("kernel", _kernel),
        ("resize", _resize),
        ("decoder", _decoder),
        ("data folder", _data_folder),
        ("model", _model),
        ("index", _index),
        ("redis", _redis),
    )
    results = []
    for name, check in checks:
        try:
            results.append(check(settings))
        except VidgrainError as error:
            results.append(Check(name, "fail", f"{error.code}: {error.describe()}", error.hint))
        except Exception as error:  # report it and go on with the other checks
            results.append(Check(name, "fail", f"{type(error).__name__}: {error}"))
    return results


def report_table(checks: list[Check]) -> Table:
    """The checks as rows."""
    table = Table("", "what", "found", "what to do")
    marks = {"ok": "[green]ok[/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]FAIL[/red]"}
    for check in checks:
        table.add_row(marks[check.status], check.name, check.found, check.hint)
    return table


def _python(_: Settings) -> Check:
    return Check(
        "python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.prefix}"
    )


def _packages(_: Settings) -> Check:
    found = ", ".join(f"{name} {version}" for name in PACKAGES if (version := _version(name)) is not None)
    return Check("packages", "ok", f"vidgrain {_version('vidgrain') or '(not installed)'}, {found}")


def _faiss(_: Settings) -> Check:
    there = [name for name in FAISS_PACKAGES if _version(name) is not None]
    if len(there) == 2:
        return Check(
            "faiss",
            "fail",
            "faiss-cpu and faiss-gpu are both installed and overwrite one another",
            "pip uninstall faiss-cpu faiss-gpu, then install one of the extras cpu or gpu.",
        )
    from indexer.shards.coarse import Coarse

    block = FeatureBlock(
        frames=np.eye(8, dtype=np.float16),
        pooled=np.eye(8, dtype=np.float16),
        first_frame=np.arange(8),
        num_frames=np.ones(8, np.int32),
    )
    found = Coarse.build(block, has_frame_recall=True).by_pooled(np.eye(8, dtype=np.float32), 1, None)
    if not there:
        return Check("faiss", "warn", "can be imported, but neither faiss-cpu nor faiss-gpu is installed")
    return Check("faiss", "ok", f"{there[0]} {_version(there[0])} finds {len(found.rows)} segments in a new index")


def _device(settings: Settings) -> Check:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        found = f"{settings.device}: {name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        return Check("device", "ok", found)
    if settings.device.startswith("cuda"):
        return Check("device", "fail", f"{settings.device}, but torch sees no GPU", "Set VIDGRAIN_DEVICE=auto or cpu.")
    return Check("device", "ok", f"{settings.device}: CPU with {torch.get_num_threads()} threads")


def _kernel(_: Settings) -> Check:
    from model.kernels import native

    if not native.paths():
        return Check("kernel", "warn", "searches are scored in torch, several times slower", native.problem())
    first, *rest = native.paths()
    return Check("kernel", "ok", f"native {first}" + (f"; this CPU also has {', '.join(rest)}" if rest else ""))


def _resize(_: Settings) -> Check:
    from model.resampling import native

    found = native.load()
    if found is None:
        return Check("resize", "warn", "frames are resized by PIL, several times slower", native.problem())
    return Check("resize", "ok", f"native {found.path}")


def _decoder(settings: Settings) -> Check:
    """Write a clip and read it back through a child process, as indexing does."""
    from indexer.media.sandbox import DecodeSandbox, SandboxLimits
    from indexer.media.write import write_video

    if settings.decoder == "decord" and _version("decord") is None:
        raise BackendMissing("decord isn't installed", "Install the extra decord, or unset VIDGRAIN_DECODER.")
    limits = SandboxLimits(settings.decode_timeout_s, settings.decode_memory_bytes)
    frames = np.zeros((10, 64, 64, 3), dtype=np.uint8)
    frames[5:] = 255
    with tempfile.TemporaryDirectory() as folder, DecodeSandbox(settings.decoder, limits) as sandbox:
        path = Path(folder) / "check.mp4"
        write_video(path, frames, 10.0)
        read = sandbox.read_frames(path, (0.2, 0.8))
    shades = [int(frame.mean()) for frame in read.pixels]
    if len(shades) != 2 or shades[0] > 40 or shades[1] < 215:
        return Check(
            "decoder", "fail", f"{settings.decoder} read wrong frames (brightness {shades}, expected [0, 255])"
        )
    package = "av" if settings.decoder == "pyav" else "decord"
    return Check("decoder", "ok", f"{settings.decoder} {_version(package)}: wrote a clip, read the right frames")


def _data_folder(settings: Settings) -> Check:
    folder = settings.data
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-"):
            pass
    except OSError as error:
        return Check(
            "data folder", "fail", f"{folder} can't be written: {error.strerror}", "Choose another with VIDGRAIN_DATA."
        )
    free = shutil.disk_usage(folder).free
    found = f"{folder.resolve()} is writable, {free / 2**30:.1f} GiB free"
    if free < LOW_SPACE_BYTES:
        return Check("data folder", "warn", found, "There is little space left: uploads may be refused.")
    return Check("data folder", "ok", found)


def _model(settings: Settings) -> Check:
    from model.picture_tower import has_bfloat16
    from model.threads import SERVING_THREADS
    from service.query_model import load_query_model

    model = load_query_model(settings, settings.torch_threads or SERVING_THREADS, _bound_precision(settings))
    spec = model.spec
    picture = np.full((1, spec.image_size, spec.image_size, 3), 128, dtype=np.uint8)
    sentence = model.encode_text(["a check"])
    scores = model.score(sentence, model.encode_video([picture]))
    if not bool(scores.total.isfinite().all()):
        return Check("model", "fail", f"{spec.name} loads, but its scores are not finite")
    shape = f"{spec.num_frames} frames of {spec.image_size} px, {spec.embed_dim} dimensions"
    precisions = f"frames in {spec.precision}, queries in {sentence.precision}"
    found = f"{spec.name}: {shape}, temporal {spec.temporal}, {precisions}, fingerprint {spec.fingerprint[:12]}"
    if spec.precision == "bf16" and not has_bfloat16(model.device):
        hint = "Index on a machine that has bfloat16, or make a new folder with VIDGRAIN_PRECISION=fp32."
        return Check("model", "warn", f"{found}; this device has no bfloat16 and computes frames in fp32", hint)
    return Check("model", "ok", found)


def _bound_precision(settings: Settings) -> Precision | None:
    """What the data folder's frames are encoded in, None where it holds none; nothing is made or bound."""
    from service.opening import open_index

    if not (settings.data / CATALOGUE_FILE).exists():
        return None
    with open_index(settings) as index:
        precision: Precision | None = index.stats()["precision"]
        return precision


def _index(settings: Settings) -> Check:
    if not (settings.data / CATALOGUE_FILE).exists():
        return Check("index", "ok", "the data folder has none yet")
    from service.opening import open_index

    index = open_index(settings)
    try:
        stats = index.stats()
    finally:
        index.close()
    jobs = ", ".join(f"{number} {status}" for status, number in stats["jobs"].items() if number) or "none"
    return Check("index", "ok", f"{stats['videos']} videos, {stats['segments']} segments; jobs: {jobs}")


def _redis(settings: Settings) -> Check:
    from service.wake import Wake

    if settings.redis_url is None:
        return Check("redis", "ok", "not used (VIDGRAIN_REDIS_URL is empty); nothing needs it")
    host = settings.redis_url.rpartition("@")[2]  # without a password
    wake = Wake(settings.redis_url)
    is_there = wake.is_there()
    wake.close()
    if not is_there:
        hint = "Start it or unset VIDGRAIN_REDIS_URL; until then idle workers poll."
        return Check("redis", "warn", f"{host} does not answer", hint)
    return Check("redis", "ok", f"{host} answers; it wakes idle workers and shares encoded queries")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
