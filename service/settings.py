"""Every setting of Vidgrain: VIDGRAIN_* in the environment, then the file `vidgrain.env`, then the default.

The only file that reads the environment. The descriptions here are docs/settings.md: `python -m service.settings`
prints that page, and a test holds the two equal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from indexer import defaults
from model.errors import VidgrainError

PREFIX = "VIDGRAIN_"
SETTINGS_FILE = "vidgrain.env"


class InvalidSettings(VidgrainError):
    """A setting or an option that can't be used; the message names it in one line."""

    code = "invalid_settings"


class Settings(BaseSettings):
    """All settings, frozen. Units are in the names (_s seconds, _bytes bytes)."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=SETTINGS_FILE, env_ignore_empty=True, frozen=True, extra="ignore"
    )

    # Data and model
    data: Path = Field(
        Path("vidgrain-data"),
        description="Folder of the index: the catalogue, uploaded videos, thumbnails. Created if missing. "
        "It must be on a local disk, not NFS.",
    )
    model: str = Field(
        "tiny",
        min_length=1,
        description="Model to search with: `tiny` (bundled), an open_clip name such as `ViT-B-32-quickgelu/openai`, "
        "`ARCH/path/to/weights`, or a folder with config.json and model.safetensors.",
    )
    models: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="Folders in which `GET /models` and `vidgrain models` look for models, separated as in PATH: each "
        "is a model's own folder (config.json and model.safetensors) or holds such folders.",
    )
    device: str = Field(
        "auto",
        min_length=1,
        description="Device that the model runs on: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`.",
    )
    num_frames: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Frame slots per segment; empty takes the model's own number. Changes the fingerprint.",
    )
    torch_threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="CPU threads of one model call. Empty: one in a server, which answers requests side by side; "
        "torch's own choice for training and evaluation. In an indexing worker, the cores that its decoding and "
        "encoding share; empty: all.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="What frames are encoded in; changes the fingerprint. `auto` keeps what the data folder was made "
        "with; a new folder takes bf16 where the CPU or GPU has it and embeddings keep their direction (cosine of "
        "0.999 to fp32), else `fp32`.",
    )
    query_precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="What sentences are encoded in: `auto` is bf16 on CPUs that have it, if embeddings keep "
        "their direction (cosine of 0.999 to fp32); `fp32`; `bf16` wherever the text tower allows it.",
    )
    query_cache_bytes: int = Field(
        64 * 2**20,
        ge=0,
        description="Bytes of encoded queries kept in memory, the least recently used dropped first; 0 keeps none. "
        "With VIDGRAIN_REDIS_URL they are kept there too, for a week.",
    )

    # Reading video
    decoder: Literal["pyav", "decord"] = Field("pyav", description="Library that decodes video: `pyav` or `decord`.")
    sampling: Literal["exact", "keyframes"] = Field(
        "exact",
        description="Which frames are indexed: `exact` reads those shown at evenly spaced instants; `keyframes` takes "
        "the key frames nearest to them, which is faster and places moments less exactly. Each video records which it "
        "was.",
    )
    decode_device: Literal["cpu", "cuda"] = Field(
        "cpu",
        description="Where an indexing worker decodes: `cpu`, or `cuda` for the video engine of an NVIDIA GPU (the CPU "
        "for what that can't decode). `cuda` is not measured yet; colours may differ by rounding, and decoding "
        "processes have no memory limit then.",
    )
    decode_timeout_s: float = Field(
        defaults.DECODE_TIMEOUT_S,
        gt=0,
        le=86400,
        description="Seconds that one decoding request may take before its process is stopped.",
    )
    decode_memory_bytes: int = Field(
        defaults.DECODE_MEMORY_BYTES, ge=256 * 2**20, description="Bytes of memory that a decoding process may use."
    )
    decode_children: int = Field(
        defaults.DECODE_CHILDREN,
        ge=1,
        le=64,
        description="Processes that decode clips to search with and thumbnails, each started when it is needed; one is "
        "left to thumbnails where there are several. Indexing workers have their own.",
    )
    query_decode_s: float = Field(
        defaults.QUERY_DECODE_S,
        gt=0,
        le=3600,
        description="Seconds of decoding that one clip search may take in all, and that it may wait for a decoding "
        "process before it is refused with decode_busy.",
    )
    max_video_s: float = Field(
        defaults.MAX_VIDEO_S,
        gt=0,
        description="Seconds of the longest video accepted; a longer one fails with video_too_long.",
    )
    max_segment_s: float = Field(
        defaults.MAX_SEGMENT_S,
        gt=0,
        le=3600,
        description="Seconds of the longest segment; longer videos are cut into equal parts.",
    )

    max_query_s: float = Field(
        defaults.MAX_QUERY_S,
        gt=0,
        description="Seconds of the longest clip that may be searched with; take a range of a longer one.",
    )

    # HTTP
    host: str = Field(
        "127.0.0.1",
        description="Address that `vidgrain serve` listens on. There is no login: take care who can reach it.",
    )
    port: int = Field(
        8000, ge=0, le=65535, description="TCP port that `vidgrain serve` listens on; 0 takes a free one."
    )
    root_path: str = Field(
        "",
        description="Path under which a reverse proxy offers the service, such as `/vidgrain`; links in answers begin "
        "with it. Whether the proxy strips it from the paths that it passes on does not matter.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Public host names that the service answers to, separated by commas, such as "
        "`search.example.com`. Addresses, `localhost`, names without a dot and local names (`.local`, `.lan`) are "
        "always accepted; any other name in a request's Host header is refused, which stops DNS rebinding.",
    )
    media_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="Folders from which `POST /index/video` may take a path, separated as in PATH "
        "(`:`; `;` on Windows). "
        "Empty: paths are refused, uploads only.",
    )
    max_upload_bytes: int = Field(
        4 * 2**30,
        ge=1,
        description="Bytes of the largest upload accepted; a larger one is refused while it arrives.",
    )
    search_queue: int = Field(
        64,
        ge=0,
        le=100_000,
        description="Searches that may wait for their turn; one more is refused with 429 and `search_busy`.",
    )
    candidates: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Segments taken from each recall channel to be scored in full, unless a search names a number; "
        f"empty: {defaults.CANDIDATES_PER_ROOT:g} times the square root of the number of segments, at least "
        f"{defaults.LEAST_CANDIDATES}.",
    )
    store: Literal["fp16", "int8"] = Field(
        "fp16",
        description="How features are kept in memory: `fp16`, or `int8`, which takes half of it and changes scores "
        "a little. The catalogue holds them in full either way.",
    )
    exact_budget_ms: float | None = Field(
        None,
        ge=0,
        le=60_000,
        description="Milliseconds that scoring the whole library may take before a search recalls candidates first; "
        f"empty: {defaults.CPU_BUDGET_MS:g} on a CPU, {defaults.GPU_BUDGET_MS:g} on a GPU.",
    )

    # Indexing
    worker: bool = Field(
        True,
        description="Whether `vidgrain serve` runs an indexing worker as a child process; "
        "false where workers run separately.",
    )
    worker_decoders: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Processes that decode in an indexing worker. Empty: one for each core, as far as half of the "
        "memory allows all of them what VIDGRAIN_DECODE_MEMORY_BYTES gives to one.",
    )
    lease_s: float = Field(
        defaults.LEASE_S,
        ge=1,
        le=3600,
        description="Seconds after which another worker takes over the job of a worker that fell silent.",
    )
    redis_url: str | None = Field(
        None,
        description="Redis that wakes idle workers at once and shares encoded queries among servers, such as "
        "`redis://host:6379/0`. Optional: without it workers poll, and each server encodes for itself.",
    )

    # Logs
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged to stderr."
    )
    log_format: Literal["json", "text"] = Field(
        "json", description="One JSON object per line, or plain text for reading."
    )

    @field_validator("media_roots", "models", mode="before")
    @classmethod
    def _split_folders(cls, value: Any) -> Any:
        return tuple(Path(part) for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("media_roots", "models")
    @classmethod
    def _folders_are_absolute(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(Path(os.path.abspath(root)) for root in value)  # noqa: PTH100  symlinks stay: they are resolved at use

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: Any) -> Any:
        # the separator of paths as well: that is how `environment` writes lists
        return tuple(re.split(r"[,;:\s]+", value.strip(" ,").lower())) if isinstance(value, str) else value

    @field_validator("root_path")
    @classmethod
    def _root_path_is_a_path(cls, value: str) -> str:
        value = value.rstrip("/")
        if value and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", value):
            raise ValueError("should look like /vidgrain")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("should begin with redis://, rediss:// or unix://")
        return value

    def environment(self) -> dict[str, str]:
        """The environment of a child process that must see these same settings: this process's, plus VIDGRAIN_*."""
        own = {f"{PREFIX}{name.upper()}": _as_text(value) for name, value in self if value is not None}
        return {k: v for k, v in os.environ.items() if not k.upper().startswith(PREFIX) or k in _FOREIGN} | own


def device_environment() -> dict[str, str]:
    """The variables by which a program finds an NVIDIA device and its driver; other processes get them on request."""
    return {
        name: value for name, value in os.environ.items() if name.startswith(("CUDA_", "NVIDIA_", "LD_LIBRARY_PATH"))
    }


_FOREIGN = frozenset({"VIDGRAIN_TEST_VIDEOS", "VIDGRAIN_GOLDEN"})  # read by the tests, not by Settings


def load_settings(**overrides: Any) -> Settings:
    """Settings from environment and file, with overrides (None means: not given) on top.

    Raises: InvalidSettings, one readable line per wrong value, joined by "; ".
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise InvalidSettings(
            "; ".join(_readable(cast(Mapping[str, Any], e)) for e in error.errors()),
            "Each setting is described in docs/settings.md.",
        ) from error


def settings_page() -> str:
    """The text of docs/settings.md."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | {_default(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join([_HEAD, "| variable | default | meaning |", "|---|---|---|", *rows, ""])


_HEAD = f"""# Settings

Every setting is an environment variable, or a line `NAME=value` of a file `{SETTINGS_FILE}` in the folder where
Vidgrain is started; the environment wins. Options of the command line (`vidgrain serve --help`) win over both.
An invalid value is reported in one line that names it, and nothing starts.

This page is generated by `python -m service.settings`; a test keeps it equal to the program.
"""


def _default(value: object) -> str:
    text = _as_text(value) if value is not None else ""
    return f"`{text}`" if text else "(empty)"


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return os.pathsep.join(str(part) for part in value)
    return str(value)


def _readable(error: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in error["loc"])
    reason = str(error["msg"]).removeprefix("Value error, ")
    return f"{PREFIX}{name.split('.')[0].upper()}={error['input']!r} is not valid: {reason}"


if __name__ == "__main__":
    print(settings_page(), end="")
