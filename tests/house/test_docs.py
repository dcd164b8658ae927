"""Sentences of the documentation that a program can hold true: commands, settings, links, pins."""

from __future__ import annotations

import re
import shlex
import tomllib

import pytest

from tests.house.sources import PACKAGES, ROOT, project_files

DOCS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_setting_named_in_the_docs_exists() -> None:
    from service.settings import Settings

    known = {f"VIDGRAIN_{name.upper()}" for name in Settings.model_fields} | {
        "VIDGRAIN_TEST_VIDEOS",
        "VIDGRAIN_GOLDEN",
    }
    wrong = []
    for path in [*DOCS, ROOT / "docker-compose.yml", *project_files(".html")]:
        for name in re.findall(r"VIDGRAIN_[A-Z0-9_]*[A-Z0-9]\b", path.read_text(encoding="utf-8")):
            if name not in known:
                wrong.append(f"{path.relative_to(ROOT)}: {name}")
    assert not wrong, "\n".join(wrong)


def test_every_make_target_named_in_the_docs_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert {"demo", "test", "check", "serve", "clean"} <= targets
    wrong = [(line, path.name) for path, line in _commands("make") if not _make_targets(line) <= targets]
    assert not wrong, wrong


def test_every_command_named_in_the_docs_is_one_the_program_has() -> None:
    """Each `vidgrain ...` line of a code block: the command and its long options exist."""
    from service.cli.main import commands

    known = commands()
    wrong = []
    for path, line in _commands("vidgrain"):
        words = [w for w in shlex.split(line, comments=True) if "=" not in w or w.startswith("-")]
        words = words[words.index("vidgrain") + 1 :] if "vidgrain" in words else []
        if not words:
            continue
        if words[0].startswith("-"):
            continue
        options = {w.split("=")[0] for w in words[1:] if w.startswith("--")}
        if words[0] not in known or not options <= known[words[0]] | {"--help"}:
            wrong.append(f"{path.name}: {line}")
    assert not wrong, "\n".join(wrong)


def test_links_inside_the_docs_lead_somewhere() -> None:
    wrong = []
    for path in DOCS:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                wrong.append(f"{path.relative_to(ROOT)} -> {target}")
    assert not wrong, "\n".join(wrong)


def test_the_tree_in_contributing_is_true() -> None:
    """It fits one screen, every file and folder in it exists, and every folder of Python files is in it."""
    block = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("```")[1]
    drawn: dict[str, set[str]] = {}
    for line in block.splitlines():
        if match := re.match(r"(\w+)/  ", line):
            inside = drawn.setdefault(match[1], set())
        elif match := re.match(r"[├└]── ([\w./]+(?:, [\w./]+)*)  ", line):
            inside |= set(match[1].split(", "))
    assert set(drawn) == set(PACKAGES)
    for package, names in drawn.items():
        for name in names:
            path = ROOT / package / name
            assert path.is_dir() if name.endswith("/") else path.is_file(), f"{package}/{name}"
        wings = {f"{path.parent.name}/" for path in (ROOT / package).glob("*/__init__.py")}
        assert wings <= names, f"missing from the tree: {package}/{sorted(wings - names)}"
    assert len(block.splitlines()) <= 45


def test_the_readme_says_which_x_clip_this_is() -> None:
    opening = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:25])
    assert "2207.07285" in opening and "Microsoft" in opening


def test_constraints_pin_exactly_and_name_no_place() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", line), line


def test_every_dependency_has_a_range_and_a_pin() -> None:
    """pyproject.toml holds lower bounds, constraints.txt the exact versions (torch's own CUDA wheels aside)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = {_canonical(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["cpu"], *extras["decord"], *extras["dev"]]:
        name = re.match(r"[A-Za-z0-9_.-]+", text)
        assert name is not None
        assert ">=" in text and "==" not in text.split(";")[0], text
        assert _canonical(name.group()) in pins, f"{text} has no pin in constraints.txt"


def test_the_two_faiss_extras_exclude_each_other() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    with_faiss = {name for name, needs in extras.items() if any("faiss" in n for n in needs)}
    assert with_faiss == {"cpu", "gpu"}


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"])
def test_what_a_visitor_looks_for_is_there(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8").strip()


def _commands(program: str) -> list[tuple[object, str]]:
    """Lines of fenced blocks that run `program`, with leading VAR=value words allowed."""
    found = []
    for path in DOCS:
        for block in re.findall(r"```(?:sh|bash|console)?\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.S):
            for line in block.splitlines():
                if re.match(rf"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\S*/)?{program}\b", line):
                    found.append((path, line.strip().removeprefix("$ ").replace(".venv/bin/", "")))
    return found


def _make_targets(line: str) -> set[str]:
    words = shlex.split(line, comments=True)
    return {w for w in words[words.index("make") + 1 :] if "=" not in w and not w.startswith("-")}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
