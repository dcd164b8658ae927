"""Late packages: the same classes as by a plain import, run once at first use, and run at once where that is needed."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model.importing import LatePackage, collector_paused, import_module

Write = Callable[[dict[str, str]], None]
NOTE = "import sys; sys.modules['late_notes'].ran.append(__name__)\n"


@pytest.fixture
def ran() -> Iterator[list[str]]:
    """The names of the modules that have run, in order."""
    from types import ModuleType

    notes = ModuleType("late_notes")
    notes.ran = []  # type: ignore[attr-defined]
    sys.modules["late_notes"] = notes
    yield notes.ran  # type: ignore[attr-defined]
    del sys.modules["late_notes"]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: list[str]) -> Iterator[Write]:
    """Writes modules that note when they run; what was imported is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)

    def put(sources: dict[str, str]) -> None:
        for name, source in sources.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(NOTE + source)

    yield put
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.fixture
def library(write: Write) -> None:
    """`needy` takes one class out of the file big/part/file.py, and both packages import much else."""
    write(
        {
            "needy.py": "from big.part.file import Small\nimport big.part.file as again\n",
            "big/__init__.py": "import big.part\nfrom big.part.file import Small\nsetting = 1\n",
            "big/part/__init__.py": "import big.part.other\nfrom big.part.file import Small\nlarge = 2\n",
            "big/part/file.py": "class Small: pass\n",
            "big/part/other.py": "",
        }
    )


@pytest.mark.usefixtures("library")
def test_a_late_package_runs_when_something_is_taken_from_it(ran: list[str]) -> None:
    needy = import_module("needy", late=("big", "big.part"))
    assert ran == ["needy", "big.part.file"]
    big = sys.modules["big"]
    assert isinstance(big, LatePackage) and needy.again is big.part.file  # its submodules don't make it run
    assert big.setting == 1
    assert ran == ["needy", "big.part.file", "big"]
    assert sys.modules["big.part"].large == 2
    assert ran == ["needy", "big.part.file", "big", "big.part", "big.part.other"]
    assert not isinstance(big, LatePackage) and big is sys.modules["big"]
    assert big.Small is big.part.Small is needy.Small
    with pytest.raises(AttributeError, match="module 'big' has no attribute 'nothing'"):
        _ = big.nothing


@pytest.mark.usefixtures("library")
def test_the_parents_of_a_package_run_before_it(ran: list[str]) -> None:
    import_module("needy", late=("big", "big.part"))
    assert sys.modules["big.part"].large == 2
    assert ran.index("big") < ran.index("big.part") and ran.count("big") == ran.count("big.part") == 1


@pytest.mark.usefixtures("library")
def test_what_is_imported_or_missing_is_left_alone(ran: list[str]) -> None:
    import_module("big", late=("missing", "missing.part", "big.part.file"))
    assert ran == ["big", "big.part", "big.part.other", "big.part.file"]
    import_module("needy", late=("big", "big.part"))
    assert not isinstance(sys.modules["big"], LatePackage) and ran[-1] == "needy"


def test_a_library_that_fails_with_them_unrun_is_imported_plainly(write: Write, ran: list[str]) -> None:
    write({"needy.py": "import big\nsize = vars(big)['size']\n", "big/__init__.py": "size = 3\n"})
    assert import_module("needy", late=("big",)).size == 3
    assert ran == ["needy", "big", "needy"]


def test_a_library_does_without_a_package_that_cannot_run(write: Write) -> None:
    write(
        {
            "needy.py": "try:\n    from big import size\nexcept ImportError:\n    size = None\n",
            "big/__init__.py": "import nowhere\n",
        }
    )
    assert import_module("needy", late=("big",)).size is None


def test_the_error_of_a_library_that_cannot_be_imported_at_all_is_raised(write: Write) -> None:
    write({"needy.py": "import big\nimport nowhere\n", "big/__init__.py": ""})
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        import_module("needy", late=("big",))


def test_threads_that_meet_at_a_late_package_see_it_whole(write: Write, ran: list[str]) -> None:
    write({"needy.py": "import big\n", "big/__init__.py": "import time\nfirst = 1\ntime.sleep(0.05)\nlast = 2\n"})
    import_module("needy", late=("big",))
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(sys.modules["big"].last)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2, 2, 2, 2] and ran.count("big") == 1


@pytest.mark.usefixtures("library")
def test_the_collector_goes_on_after_a_pause_and_passes_over_what_was_imported() -> None:
    was_enabled, num_frozen = gc.isenabled(), gc.get_freeze_count()
    try:
        for state in (True, False):
            (gc.enable if state else gc.disable)()
            with collector_paused():
                assert not gc.isenabled()
            assert gc.isenabled() is state and gc.get_freeze_count() == num_frozen
        with collector_paused():
            import_module("needy", late=())
        assert gc.get_freeze_count() > num_frozen
    finally:
        gc.unfreeze()
        (gc.enable if was_enabled else gc.disable)()


def test_towers_are_those_of_a_plain_import_and_cost_no_compiler() -> None:
    """A process of its own: what the door puts off, what then runs, and that both give the same classes."""
    program = """
import json, sys
import model.backbone as door
heavy = [name for name in ("torch._dynamo", "timm.models", "huggingface_hub.hf_api", "open_clip.factory")]
before = [name for name in heavy if name in sys.modules]
clip, norm = door.towers.CLIP, sys.modules["open_clip.utils"].FrozenBatchNorm2d
has_architectures = "ViT-B-32" in door.architectures()
import open_clip, torchvision
same = [clip is open_clip.CLIP, norm is torchvision.ops.misc.FrozenBatchNorm2d, hasattr(torchvision.ops, "nms")]
print(json.dumps({"before": before, "has_architectures": has_architectures, "same": same}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"before": [], "has_architectures": True, "same": [True, True, True]}
