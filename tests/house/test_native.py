"""Compiled code: the build knows every file, and Python and C++ agree on the version that they share."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path, PurePath

import pytest

from model.kernels import native as scoring
from model.resampling import native as resizing
from tests.house.sources import ROOT
from tests.house.test_style import MAX_LINES

FOLDERS = {
    "model.kernels._native": ROOT / "model" / "kernels" / "native",
    "model.resampling._native": ROOT / "model" / "resampling" / "native",
}
each_folder = pytest.mark.parametrize("name", FOLDERS)


@each_folder
def test_the_build_knows_every_file(name: str) -> None:
    """A header that it doesn't know could change without anything being built again."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    modules = {module["name"]: module for module in project["tool"]["setuptools"]["ext-modules"]}
    assert modules.keys() == FOLDERS.keys()
    module = modules[name]
    listed = {*module["sources"], *module["depends"]}
    here = {str(path.relative_to(ROOT)) for path in FOLDERS[name].iterdir()}
    assert here <= listed and all((ROOT / path).is_file() for path in listed)
    assert _included(FOLDERS[name]) <= {PurePath(path).name for path in module["depends"]}
    assert all(path.endswith(".cpp") for path in module["sources"])
    assert all(path.endswith(".h") for path in module["depends"])
    assert module["optional"] is True


@each_folder
def test_python_and_c_have_the_same_version(name: str) -> None:
    version = {"model.kernels._native": scoring, "model.resampling._native": resizing}[name].ABI_VERSION
    found = re.search(r"kAbiVersion = (\d+);", (FOLDERS[name] / "shapes.h").read_text(encoding="utf-8"))
    assert found is not None and int(found[1]) == version


@each_folder
def test_files_open_with_what_they_do_and_stay_small(name: str) -> None:
    for path in FOLDERS[name].iterdir():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("// ") and len(lines) <= MAX_LINES, path.name
        assert max(map(len, lines)) <= 120, path.name


def _included(folder: Path) -> set[str]:
    return {
        PurePath(name).name
        for path in folder.iterdir()
        for name in re.findall(r'^#include "(.+)"', path.read_text(encoding="utf-8"), flags=re.M)
    }
