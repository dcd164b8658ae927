"""What the house tests look at: the project's files, and the imports of its Python files. It reads text only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("model", "indexer", "service")
SKIPPED_FOLDERS = {"__pycache__", "build", "dist", "demo", "runs", "vidgrain-data", "node_modules"}


@dataclass(frozen=True)
class Import:
    """One imported module: `where` is the file relative to the root, `module` the full dotted name."""

    where: str
    line: int
    module: str

    @property
    def top(self) -> str:
        """The first part of the dotted name."""
        return self.module.split(".")[0]


def project_files(*suffixes: str) -> Iterator[Path]:
    """Files a commit would hold, hidden folders and build outputs left out; all of them without suffixes."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        folders = set(parts[:-1])
        if folders & SKIPPED_FOLDERS or any(p.endswith(".egg-info") for p in parts):
            continue
        if any(p.startswith(".") and p != ".ci" for p in parts[:-1]):
            continue
        if path.suffix in {".so", ".dylib", ".pyd"}:  # built beside the sources
            continue
        if path.name == ".git":  # a file in a second working tree, which names where the first one lies
            continue
        if path.is_file() and (not suffixes or path.suffix in suffixes):
            yield path


def package_files() -> Iterator[Path]:
    """The Python files of the three packages."""
    for path in project_files(".py"):
        if path.relative_to(ROOT).parts[0] in PACKAGES:
            yield path


@cache
def tree(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, at whatever depth; relative ones made absolute, `importlib.import_module("x")` too."""
    where = path.relative_to(ROOT)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(str(where), node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = list(where.parts[: -node.level]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield Import(str(where), node.lineno, module)
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"} and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield Import(str(where), node.lineno, first.value)


def _called(node: ast.Call) -> str:
    """The last name of what is called."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""
