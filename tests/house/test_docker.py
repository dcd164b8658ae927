"""docker/: the services start commands that exist, the image is built from files that are here, compose accepts it."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import tomllib
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml

from tests.house.sources import PACKAGES, ROOT, project_files

COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "docker" / "Dockerfile"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    services: dict[str, Any] = loaded["services"]
    return services


def test_services_start_commands_that_exist(services: dict[str, Any]) -> None:
    from service.cli.main import commands

    known = commands()
    ours = {name: s for name, s in services.items() if s["image"].startswith("vidgrain")}
    assert set(ours) == {"api", "worker", "api-gpu", "worker-gpu"}
    for name, service in ours.items():
        command, *rest = service["command"]
        assert command in known, f"{name}: {command}"
        assert {w for w in rest if w.startswith("--")} <= known[command], f"{name}: {rest}"
        assert service["build"]["dockerfile"] == "docker/Dockerfile"


def test_the_gpu_profile_is_the_same_with_a_device(services: dict[str, Any]) -> None:
    for name in ("api", "worker"):
        cpu, gpu = services[name], services[f"{name}-gpu"]
        assert "profiles" not in cpu and gpu["profiles"] == ["gpu"]
        assert (cpu["build"]["args"]["EXTRA"], gpu["build"]["args"]["EXTRA"]) == ("cpu", "gpu")
        devices = gpu["deploy"]["resources"]["reservations"]["devices"]
        assert devices[0]["capabilities"] == ["gpu"]
        assert cpu["command"] == gpu["command"] and cpu["environment"] == gpu["environment"]


def test_settings_in_the_environment_exist(services: dict[str, Any]) -> None:
    from service.settings import Settings

    names = {n for s in services.values() for n in s.get("environment", {})}
    names |= set(re.findall(r"\b(VIDGRAIN_[A-Z_]+)=", DOCKERFILE.read_text()))
    assert names
    assert {n.removeprefix("VIDGRAIN_").lower() for n in names} <= set(Settings.model_fields)


def test_redis_keeps_nothing(services: dict[str, Any]) -> None:
    assert "volumes" not in services["redis"]
    command = services["redis"]["command"]
    assert command[command.index("--save") + 1] == "" and command[command.index("--appendonly") + 1] == "no"


def test_the_port_is_this_machines_only_by_default(services: dict[str, Any]) -> None:
    assert all(p.startswith("${BIND_ADDRESS:-127.0.0.1}:") for p in services["api"]["ports"])


def test_the_image_does_not_run_as_root_and_is_watched() -> None:
    text = DOCKERFILE.read_text()
    assert re.search(r"^USER vidgrain$", text, flags=re.M)
    assert re.search(r"^HEALTHCHECK ", text, flags=re.M)
    assert re.search(r'^ENTRYPOINT \["vidgrain"\]$', text, flags=re.M)


def test_what_the_image_copies_is_here_and_sent_to_the_builder() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text(), flags=re.M):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source in allowed or f"{source}/**" in allowed, f"{source} is not let through .dockerignore"


def test_every_file_that_is_not_python_is_packed() -> None:
    """What the packages read at run time (SQL, weights, the page) is in the wheel: package-data names it."""
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    wrong = []
    for path in project_files():
        package, *rest = path.relative_to(ROOT).parts
        if package not in PACKAGES or path.suffix in {".py", ".md"}:
            continue
        inside = PurePosixPath(*rest).as_posix()
        if not any(_matches(inside, pattern) for pattern in packed.get(package, [])):
            wrong.append(f"{package}/{inside}")
    assert not wrong, wrong


def test_docker_compose_accepts_it() -> None:
    if shutil.which("docker") is None:
        pytest.skip("no docker client here")
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("the docker client has no compose plugin")
    for profile in ([], ["--profile", "gpu"]):
        done = subprocess.run(
            ["docker", "compose", "-f", str(COMPOSE), *profile, "config", "--quiet"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def _matches(path: str, pattern: str) -> bool:
    """setuptools' globs: `**/` is any folders or none, `*` stays within one."""
    if pattern.endswith("/**/*"):
        return path.startswith(pattern[:-4])
    return path.count("/") == pattern.count("/") and fnmatch.fnmatch(path, pattern)
