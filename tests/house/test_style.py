"""Habits that a reader relies on: docstrings, small files, names, no swallowed errors, no traces of one machine."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.house.sources import ROOT, package_files, project_files, tree

MAX_LINES = 420
BLURRED_NAMES = {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "misc.py", "manager.py"}
TEXT_SUFFIXES = (".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".sql", ".html", ".js", ".css", ".sh", "")

# Built from parts so that this file does not find itself.
_MACHINE_PATHS = ["/" + "work/", "/" + "tmp/", "/" + "root/", "/" + "home/", "/" + "Users/"]
_REGISTRY_HOSTS = [
    "py" + "pi.org",
    "pypi" + ".python",
    "files.python" + "hosted",
    "download." + "pytorch",
    "npm" + "js.org",
    "jsde" + "livr",
    "un" + "pkg",
]


def test_every_file_opens_with_what_it_does() -> None:
    wrong = [
        str(p.relative_to(ROOT)) for p in package_files() if p.stat().st_size and ast.get_docstring(tree(p)) is None
    ]
    assert not wrong, "\n".join(wrong)


def test_public_names_say_what_they_do() -> None:
    wrong = [f"{path.relative_to(ROOT)}:{node.lineno} {node.name}" for path in package_files() for node in _bare(path)]
    assert not wrong, "\n".join(wrong)


def test_files_stay_small() -> None:
    counts = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in package_files()}
    long = {name: count for name, count in counts.items() if count > MAX_LINES}
    assert not long, f"look for two ideas in one file: {long}"


def test_files_are_named_for_a_thing() -> None:
    wrong = [str(p.relative_to(ROOT)) for p in package_files() if p.name in BLURRED_NAMES]
    assert not wrong, wrong


def test_no_error_is_swallowed() -> None:
    """A bare `except:` never; `except Exception: pass` (or BaseException) never."""
    wrong = []
    for path in package_files():
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            is_broad = node.type is None or (isinstance(node.type, ast.Name) and "Exception" in node.type.id)
            is_silent = all(isinstance(s, ast.Pass | ast.Continue) for s in node.body)
            if node.type is None or (is_broad and is_silent):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


def test_no_file_names_a_machine_or_a_registry() -> None:
    needle = re.compile("|".join(rf"(?<![\w.~-]){re.escape(p)}" for p in _MACHINE_PATHS))
    hosts = re.compile("|".join(re.escape(h) for h in _REGISTRY_HOSTS))
    wrong = []
    for path in project_files(*TEXT_SUFFIXES):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, 1):
            if (found := needle.search(line) or hosts.search(line)) and not _is_allowed(path, found.group()):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not wrong, "\n".join(wrong)


def _is_allowed(path: Path, found: str) -> bool:
    """A home folder inside a container is the container's own; docker/ may name it."""
    is_docker = path.is_relative_to(ROOT / "docker") or path.name == "docker-compose.yml"
    return is_docker and found == "/" + "home/"


def _bare(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Public classes and functions, and public methods of public classes, without a docstring.

    A dataclass field, a property of a Protocol and an overriding method of one line are not held to it:
    only names that a reader meets first at the top of a file are.
    """
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [
        node
        for node in tree(path).body
        if isinstance(node, kinds) and not node.name.startswith("_") and ast.get_docstring(node) is None
    ]
