"""The floors and the doors: service -> indexer -> model, and one file per outside library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.house.sources import ROOT, imports, package_files, tree

MAY_IMPORT = {
    "model": {"model"},
    "indexer": {"indexer", "model"},
    "service": {"service", "indexer", "model"},
}

# library -> the only files that may import it
DOORS = {
    "open_clip": {"model/backbone.py"},
    "timm": {"model/backbone.py"},
    "triton": {"model/kernels/aosm_triton.py"},
    "av": {"indexer/media/pyav.py", "indexer/media/write.py"},
    "decord": {"indexer/media/decord.py"},
    "faiss": {"indexer/vectors.py"},
    "sqlite3": {"indexer/catalogue/database.py"},
    "redis": {"service/wake.py"},
}

ENVIRONMENT_DOOR = "service/settings.py"
WEB_LIBRARIES = {"fastapi", "starlette", "uvicorn", "typer", "pydantic_settings"}


def test_nothing_points_up() -> None:
    wrong = [
        f"{i.where}:{i.line} imports {i.module}"
        for path in package_files()
        for i in imports(path)
        if i.top in {*MAY_IMPORT, "tests", "benchmarks"} and i.top not in MAY_IMPORT[_package(path)]
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_edge_knows_the_web() -> None:
    wrong = [
        f"{i.where}:{i.line} imports {i.module}"
        for path in package_files()
        if _package(path) != "service"
        for i in imports(path)
        if i.top in WEB_LIBRARIES
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", sorted(DOORS))
def test_one_door_per_library(library: str) -> None:
    wrong = [
        f"{i.where}:{i.line} imports {i.module}; only {', '.join(sorted(DOORS[library]))} may"
        for path in package_files()
        for i in imports(path)
        if i.top == library and i.where not in DOORS[library]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", ["open_clip", "av", "faiss", "sqlite3"])
def test_the_door_is_in_use(library: str) -> None:
    found = {i.where for path in package_files() for i in imports(path) if i.top == library}
    assert found == DOORS[library]


def test_one_reader_of_the_environment() -> None:
    """os.environ, os.getenv and os.putenv are touched in one file."""
    wrong = []
    for path in package_files():
        where = path.relative_to(ROOT).as_posix()
        if where == ENVIRONMENT_DOOR:
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv", "putenv"}:
                wrong.append(f"{where}:{node.lineno} uses {node.attr}")
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                wrong += [f"{where}:{node.lineno}" for a in node.names if a.name in {"environ", "getenv", "putenv"}]
    assert not wrong, "\n".join(wrong)


def test_no_async_below_the_edge() -> None:
    kinds = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in package_files()
        if _package(path) != "service"
        for node in ast.walk(tree(path))
        if isinstance(node, kinds)
    ]
    assert not wrong, "\n".join(wrong)


def _package(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]
