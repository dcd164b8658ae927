"""The floors and the doors: service -> indexer -> model, and one file per outside library."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
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
    "huggingface_hub": {"model/hub.py"},
    "timm": {"model/backbone.py"},
    "triton": {"model/kernels/triton_programs.py"},
    "av": {"indexer/media/pyav.py", "indexer/media/write.py"},
    "decord": {"indexer/media/decord.py"},
    "faiss": {"indexer/shards/coarse.py"},
    "sqlite3": {"indexer/catalogue/database.py", "indexer/catalogue/migrations.py"},
    "redis": {"service/redis_door.py"},
}

# model/ from the ground up: a file imports its own layer and those below; a folder counts as all that is in it
MODEL_LAYERS = (
    {
        "model.activation",
        "model.checked",
        "model.compiled",
        "model.errors",
        "model.files",
        "model.fingerprint",
        "model.hub",
        "model.importing",
        "model.kernels",
        "model.made_pictures",
        "model.packed_blocks",
        "model.packed_pictures",
        "model.packed_text",
        "model.precision",
        "model.preprocess",
        "model.read_ahead",
        "model.resampling",
        "model.resize",
        "model.sampling",
        "model.text_tower",
        "model.threads",
        "model.tokenizer",
        "model.transformer",
        "model.types",
        "model.unset_weights",
    },
    {"model.backbone", "model.heads", "model.losses", "model.panels", "model.shared_scorers", "model.temporal"},
    {"model.families", "model.network", "model.picture_tower", "model.query_text", "model.scorers"},
    {
        "model.batching",
        "model.checkpoints",
        "model.installed",
        "model.query_cache",
        "model.registry",
        "model.served_model",
        "model.spec",
        "model.wrapped",
    },
    {"model.datasets", "model.tiny.scenes", "model.tiny.shapes", "model.tiny.vocabulary"},
    {"model.evaluation"},
    {"model.training"},
    {"model.tiny.recipe"},
)

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


def test_no_import_circles() -> None:
    """Not among the files of all three packages, imports inside functions included."""
    graph = {_module(path): _imported(path) for path in package_files()}
    assert len(graph) > 100 and any(graph.values())
    circle = _circle(graph)
    assert not circle, " -> ".join(circle)


def test_a_circle_would_be_found() -> None:
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert _circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_nothing_in_model_points_up() -> None:
    """Every file has a layer, and imports none above it: networks know no training, training's losses know no data."""
    wrong = []
    for path in package_files():
        if _package(path) != "model" or not path.stat().st_size or path.name == "__init__.py":
            continue
        mine = _layer(_module(path))
        if mine is None:
            wrong.append(f"{path.relative_to(ROOT)} has no place in MODEL_LAYERS")
            continue
        above = sorted(name for name in _imported(path) if (_layer(name) or 0) > mine)
        wrong += [f"{path.relative_to(ROOT)} imports {name} from above" for name in above]
    assert not wrong, "\n".join(wrong)


def test_every_layer_is_in_use() -> None:
    modules = [_module(path) for path in package_files()]
    names = [name for layer in MODEL_LAYERS for name in layer]
    assert len(set(names)) == len(names)
    unused = [name for name in names if not any(m == name or m.startswith(f"{name}.") for m in modules)]
    assert not unused, unused


def test_kinds_of_models_are_compared_by_name_in_no_other_file() -> None:
    """A family declares what others need to know; choices of frames, which have the papers' names, are no kinds."""
    from model.families import KINDS

    wrong = []
    for path in package_files():
        if _module(path).startswith("model.families"):
            continue
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Compare) or ast.unparse(node.left).endswith("choice"):
                continue
            words = {
                part.value for side in node.comparators for part in ast.walk(side) if isinstance(part, ast.Constant)
            }
            if words & set(KINDS):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
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


@pytest.mark.parametrize("library", ["open_clip", "av", "faiss", "sqlite3", "triton"])
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


def test_one_file_sets_the_number_of_threads() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in package_files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in {"set_num_threads", "set_num_interop_threads"}
        if path.relative_to(ROOT).as_posix() != "model/threads.py"
    ]
    assert not wrong, wrong


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


def _module(path: Path) -> str:
    """model/heads/tight.py -> model.heads.tight; a folder's __init__.py -> the folder."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imported(path: Path) -> set[str]:
    """The files of the three packages that a file imports, those for type checkers alone left out."""
    for_types = {
        line
        for node in ast.walk(tree(path))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    found = {i.module for i in imports(path) if i.top in MAY_IMPORT and i.line not in for_types}
    for node in ast.walk(tree(path)):  # `from package import file` names the file second
        if isinstance(node, ast.ImportFrom) and node.module and not node.level and node.lineno not in for_types:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if (ROOT / Path(*name.split("."))).with_suffix(".py").is_file()}
    return {name for name in found if (ROOT / Path(*name.split("."))).with_suffix(".py").is_file()}


def _circle(graph: Mapping[str, Collection[str]]) -> list[str]:
    """One circle, its first member again at the end; empty without any."""
    left = {name: set(graph[name]) & graph.keys() for name in graph}
    while free := [name for name, needs in left.items() if not needs]:
        left = {name: needs - set(free) for name, needs in left.items() if name not in free}
    if not left:
        return []
    walk = [min(left)]
    while walk.count(walk[-1]) == 1:
        walk.append(min(left[walk[-1]]))
    return walk[walk.index(walk[-1]) :]


def _layer(module: str) -> int | None:
    """The number of its layer in MODEL_LAYERS; None for a module of another package."""
    for number, names in enumerate(MODEL_LAYERS):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return number
    return None
