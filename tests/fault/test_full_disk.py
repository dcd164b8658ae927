"""A disk that is really full: what was acknowledged stays, what was not is told, and it goes on once there is room."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIZE_BYTES = 24 * 2**20

PROGRAM = """
import sys
from pathlib import Path
from indexer.errors import StorageFull
from tests.support.catalogues import MEDIA, SPEC, Catalogue, add, claim, features

folder = Path(sys.argv[1])
(folder / "ballast").write_bytes(b"x" * 2**21)
catalogue = Catalogue(folder / "catalogue.sqlite")
catalogue.bind_model(SPEC)
added, published = [], {}
is_full = False
for n in range(10_000):
    try:
        added.append(add(catalogue, f"v{n}", metadata={"text": "x" * 2000}).video_id)
        job = claim(catalogue)
        catalogue.publish(job, MEDIA, features(4, seed=n), SPEC.fingerprint)
        published[job.video_id] = n
    except StorageFull as error:
        assert "No room left" in str(error)
        is_full = True
        break
assert is_full and len(published) > 20, len(published)

def check(catalogue):
    assert {v.id for page in pages(catalogue) for v in page} == set(added)
    for video_id, n in published.items():
        assert [s.features.times_s for s in catalogue.segments(video_id)] == [f.times_s for f in features(4, seed=n)]
    assert catalogue.count()[0] == len(published)

def pages(catalogue):
    cursor = None
    while True:
        page, cursor = catalogue.list_videos(cursor=cursor, limit=500)
        yield page
        if cursor is None:
            return

check(catalogue)
for _ in range(3):
    try:
        add(catalogue, "one more", metadata={"text": "x" * 60_000})
        raise SystemExit("there was room after all")
    except StorageFull:
        pass
(folder / "ballast").unlink()
added.append(add(catalogue, "one more", metadata={"text": "x" * 60_000}).video_id)
check(catalogue)
catalogue.close()
with Catalogue(folder / "catalogue.sqlite") as again:
    check(again)
print("kept", len(added))
"""


def in_namespace(*command: str) -> list[str]:
    """The command in a mount namespace of its own, where it may mount."""
    return ["unshare", "--user", "--map-root-user", "--mount", *command]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder on which a small file system can be mounted."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here")
    mount = in_namespace("mount", "-t", "tmpfs", "tmpfs", str(tmp_path))
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    return tmp_path


def test_a_full_disk_loses_nothing(folder: Path) -> None:
    script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && exec "$3" -c "$4" "$2"'
    command = in_namespace("sh", "-ec", script, "sh", str(SIZE_BYTES), str(folder), sys.executable, PROGRAM)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("kept ")
