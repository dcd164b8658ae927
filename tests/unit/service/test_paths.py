"""A path in a request leads into the media roots, or nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.errors import NotFound
from service.errors import InvalidRequest, PathNotAllowed
from service.paths import allowed_file


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("one", "two/deep", "outside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "one" / "a.mp4").write_bytes(b"a")
    (tmp_path / "two" / "deep" / "b.mp4").write_bytes(b"b")
    (tmp_path / "outside" / "secret.mp4").write_bytes(b"s")
    (tmp_path / "one-more").mkdir()
    (tmp_path / "one-more" / "c.mp4").write_bytes(b"c")
    (tmp_path / "one" / "leak.mp4").symlink_to(tmp_path / "outside" / "secret.mp4")
    (tmp_path / "one" / "door").symlink_to(tmp_path / "outside")
    (tmp_path / "one" / "loop").symlink_to(tmp_path / "one" / "loop")
    (tmp_path / "one" / "fine.mp4").symlink_to(tmp_path / "one" / "a.mp4")
    return tmp_path / "one", tmp_path / "two"


def test_absolute_and_relative_paths_inside(roots: tuple[Path, Path]) -> None:
    one, two = roots
    assert allowed_file(str(one / "a.mp4"), roots) == one / "a.mp4"
    assert allowed_file("a.mp4", roots) == one / "a.mp4"
    assert allowed_file("deep/b.mp4", roots) == two / "deep" / "b.mp4"
    assert allowed_file("deep/../deep/b.mp4", roots) == two / "deep" / "b.mp4"
    assert allowed_file("fine.mp4", roots) == one / "a.mp4"


@pytest.mark.parametrize(
    "named",
    [
        "../outside/secret.mp4",
        "deep/../../outside/secret.mp4",
        "leak.mp4",
        "door/secret.mp4",
        "../one-more/c.mp4",
        "../outside/not-there.mp4",
        "door/not-there.mp4",
        "/etc/passwd",
        "/etc/not-there",
        "a.mp4\x00.png",
        "\x00",
        ".",
        "",
        "x" * 5000,
    ],
)
def test_everything_else_is_refused_without_telling_what_exists(roots: tuple[Path, Path], named: str) -> None:
    with pytest.raises(PathNotAllowed):
        allowed_file(named, roots[:1])
    with pytest.raises((PathNotAllowed, NotFound)):
        allowed_file(named, roots)


def test_a_root_that_is_a_link_counts_as_what_it_leads_to(roots: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(roots[0])
    assert allowed_file(str(tmp_path / "alias" / "a.mp4"), [tmp_path / "alias"]) == roots[0] / "a.mp4"


def test_missing_files_and_folders_inside(roots: tuple[Path, Path]) -> None:
    with pytest.raises(NotFound):
        allowed_file("gone.mp4", roots)
    with pytest.raises(InvalidRequest, match="not a file"):
        allowed_file("deep", roots)
    with pytest.raises(PathNotAllowed):
        allowed_file("loop", roots[:1])


def test_no_roots_no_paths() -> None:
    with pytest.raises(PathNotAllowed, match="VIDGRAIN_MEDIA_ROOTS"):
        allowed_file("/etc/passwd", ())
