"""model/kernels/native: the build knows every file, and Python and C++ agree on the version that they share."""

from __future__ import annotations

import re
import tomllib

from model.kernels.native import ABI_VERSION
from tests.house.sources import ROOT
from tests.house.test_style import MAX_LINES

FOLDER = ROOT / "model" / "kernels" / "native"


def test_the_build_knows_every_file() -> None:
    """A header that it doesn't know could change without anything being built again."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (module,) = project["tool"]["setuptools"]["ext-modules"]
    here = {str(path.relative_to(ROOT)) for path in FOLDER.iterdir()}
    assert here == {*module["sources"], *module["depends"]}
    assert all(name.endswith(".cpp") for name in module["sources"])
    assert all(name.endswith(".h") for name in module["depends"])
    assert module["optional"] is True


def test_python_and_c_have_the_same_version() -> None:
    found = re.search(r"kAbiVersion = (\d+);", (FOLDER / "shapes.h").read_text(encoding="utf-8"))
    assert found is not None and int(found[1]) == ABI_VERSION


def test_files_open_with_what_they_do_and_stay_small() -> None:
    for path in FOLDER.iterdir():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("// ") and len(lines) <= MAX_LINES, path.name
        assert max(map(len, lines)) <= 120, path.name
