"""Imports heavy libraries at less cost: late packages, whose `__init__` runs at their first use, and no collections.

A library that needs one class out of `big.part.file` makes Python run the `__init__` of `big` and of `big.part`, and
with them all that these import. A late package lies in sys.modules unrun, so that only `big.part.file` is executed.
Everybody gets the very same classes, before the packages run and afterwards. It knows no library by name.
"""

from __future__ import annotations

import gc
import importlib
import logging
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from types import ModuleType

log = logging.getLogger(__name__)

_LOCK = threading.RLock()
_RUNNING: set[str] = set()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Import heavy libraries in this block: what they make stays, so that the collector would walk it for nothing.

    Afterwards the collector runs as before. If modules were imported, it passes over all that is there by then, so
    that later collections are short.
    """
    was_enabled, num_modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > num_modules:
            gc.freeze()
        if was_enabled:
            gc.enable()


class LatePackage(ModuleType):
    """A package whose `__init__` hasn't run. A name that it lacks makes it run; its own submodules don't."""

    def __getattr__(self, name: str) -> object:
        if not _run(self):
            raise AttributeError(f"{self.__name__} has no {name!r} yet: it is being imported")
        return getattr(self, name)


def import_module(name: str, *, late: Iterable[str]) -> ModuleType:
    """Import a library as importlib does; packages of `late` that aren't imported yet run at their first use.

    late: dotted names, parents first; those that aren't installed are skipped. If the library can't be
    imported with them unrun, they are run and it is imported again, as if they hadn't been named. Raises: ImportError.
    """
    waiting = [package for package in (_deferred(one) for one in late) if package is not None]
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a name that isn't there yet may cause
        log.info("late_import_failed", extra={"library": name, "reason": repr(error)})
        for package in waiting:
            _try_to_run(package)
        return importlib.import_module(name)


def _deferred(name: str) -> LatePackage | None:
    """Put a package unrun into sys.modules; None if it is imported already or can't be put off."""
    parent, _, last = name.rpartition(".")
    if name in sys.modules or (parent and parent not in sys.modules):
        return None
    spec = find_spec(name)
    if spec is None or spec.loader is None or spec.submodule_search_locations is None:
        return None
    package = module_from_spec(spec)
    package.__class__ = LatePackage
    assert isinstance(package, LatePackage)
    sys.modules[name] = package
    if parent:
        setattr(sys.modules[parent], last, package)
    return package


def _try_to_run(package: LatePackage) -> None:
    """Run a package for the second import; one that can't be run raises there again, where the library expects it."""
    try:
        _run(package)
    except Exception as error:
        log.info("late_import_failed", extra={"library": package.__name__, "reason": repr(error)})


def _run(package: ModuleType) -> bool:
    """Run the `__init__` of a package after those of its parents, once; False while it is running."""
    with _LOCK:
        if package.__name__ in _RUNNING:
            return False
        if not isinstance(package, LatePackage):
            return True
        _RUNNING.add(package.__name__)
        try:
            parent = package.__name__.rpartition(".")[0]
            if parent:
                _run(sys.modules[parent])
            spec = package.__spec__
            assert spec is not None and spec.loader is not None
            spec.loader.exec_module(package)
            package.__class__ = ModuleType  # type: ignore[assignment]
        finally:
            _RUNNING.discard(package.__name__)
        return True
