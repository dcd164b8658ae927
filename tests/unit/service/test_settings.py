"""Settings: the environment is read, wrong values are said in one line, and docs/settings.md tells the truth."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import pytest

from indexer.config import IndexConfig
from indexer.indexing.pipeline import PipelineConfig
from indexer.indexing.worker import WorkerConfig
from indexer.media.sandbox import SandboxLimits
from indexer.records import SearchOptions
from service.opening import index_config
from service.settings import InvalidSettings, Settings, device_environment, load_settings, settings_page

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("VIDGRAIN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_the_page_of_settings_is_the_program() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings_page(), "run: python -m service.settings > docs/settings.md"


def test_every_setting_has_a_sentence_and_is_on_the_page() -> None:
    page = settings_page()
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.rstrip().endswith("."), name
        assert f"`VIDGRAIN_{name.upper()}`" in page


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_what_the_index_takes_has_the_defaults_of_the_index() -> None:
    """A program over VideoIndex and the service index and search alike, unless they are told otherwise."""
    settings = Settings()
    assert index_config(settings) == IndexConfig()
    shared = {field.name for field in fields(IndexConfig)} & set(Settings.model_fields)
    assert {name: getattr(settings, name) for name in shared} == {name: getattr(IndexConfig(), name) for name in shared}
    assert settings.candidates == SearchOptions().candidates
    assert SandboxLimits() == SandboxLimits(settings.decode_timeout_s, settings.decode_memory_bytes)
    assert (WorkerConfig().lease_s, WorkerConfig().heartbeat_s) == (settings.lease_s, IndexConfig().heartbeat_s)
    pipeline = PipelineConfig()
    assert (pipeline.max_segment_s, pipeline.max_video_s) == (settings.max_segment_s, settings.max_video_s)


def test_every_setting_of_the_index_reaches_it() -> None:
    changed = Settings(
        decoder="decord",
        sampling="keyframes",
        decode_device="cuda",
        decode_timeout_s=1.5,
        decode_memory_bytes=2**29,
        decode_children=5,
        query_decode_s=7.5,
        max_segment_s=2.5,
        store="int8",
        exact_budget_ms=12.5,
        max_video_s=3.5,
        max_query_s=4.5,
        lease_s=2.0,
        worker_decoders=7,
        torch_threads=3,
    )
    config = index_config(changed)
    shared = {field.name for field in fields(IndexConfig)} & set(Settings.model_fields)
    assert shared | {"torch_threads"} == changed.model_fields_set
    assert config.worker_cores == 3
    assert {name: getattr(config, name) for name in shared} == {name: getattr(changed, name) for name in shared}
    assert config.worker().heartbeat_s == 0.5
    assert index_config(Settings()).worker().heartbeat_s == 1.0


def test_environment_over_file_over_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "vidgrain.env").write_text("VIDGRAIN_PORT=1111\nVIDGRAIN_HOST=::1\nOTHER=x\n")
    monkeypatch.setenv("VIDGRAIN_PORT", "2222")
    settings = load_settings()
    assert (settings.port, settings.host, settings.model) == (2222, "::1", "tiny")
    assert load_settings(port=3333, host=None).port == 3333


def test_media_roots_are_a_list_of_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load_settings().media_roots == ()
    monkeypatch.setenv("VIDGRAIN_MEDIA_ROOTS", os.pathsep.join(["films", str(tmp_path / "more"), ""]))
    assert load_settings().media_roots == (tmp_path / "films", tmp_path / "more")


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDGRAIN_NUM_FRAMES", "")
    monkeypatch.setenv("VIDGRAIN_MEDIA_ROOTS", "")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "abc"),
        ("PORT", "70000"),
        ("DECODER", "ffmpeg"),
        ("MAX_UPLOAD_BYTES", "-1"),
        ("DECODE_TIMEOUT_S", "nan"),
        ("WORKER", "maybe"),
        ("REDIS_URL", "localhost:6379"),
        ("ROOT_PATH", "https://example.com/vidgrain"),
        ("LOG_LEVEL", "loud"),
        ("CANDIDATES", "0"),
    ],
)
def test_a_wrong_value_is_one_readable_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"VIDGRAIN_{name}", value)
    with pytest.raises(InvalidSettings) as caught:
        load_settings()
    assert f"VIDGRAIN_{name}={value!r}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_child_sees_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIDGRAIN_PORT", "2222")
    monkeypatch.setenv("VIDGRAIN_TEST_VIDEOS", "kept")
    monkeypatch.setenv("ANOTHER", "kept too")
    settings = load_settings(
        data=tmp_path / "d", worker=False, media_roots=(tmp_path / "a", tmp_path / "b"), num_frames=5
    )
    environment = settings.environment()
    assert environment["ANOTHER"] == "kept too" and environment["VIDGRAIN_TEST_VIDEOS"] == "kept"
    for name in [name for name in os.environ if name.startswith("VIDGRAIN_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_a_device_is_found_by_its_own_variables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("VIDGRAIN_SECRET", "token")
    assert device_environment()["CUDA_VISIBLE_DEVICES"] == "1"
    assert not [name for name in device_environment() if not name.startswith(("CUDA_", "NVIDIA_", "LD_LIBRARY_PATH"))]
