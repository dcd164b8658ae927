"""`vidgrain demo` with fewer clips: draws, indexes, searches, prints its tables; the second run uses what is there."""

from __future__ import annotations

import subprocess
from pathlib import Path

from service.cli.demo import plan_clips, queries
from tests.support.server import ROOT, command, environment

NUM_CLIPS = 14


def test_the_demo_asks_in_other_words_than_its_titles() -> None:
    clips = plan_clips(Path("clips"), 40)
    assert len({clip.scene.meaning for clip in clips}) == len({clip.path.name for clip in clips}) == 40
    asked = list(queries(clips))
    assert len(set(asked)) == 3 and not set(asked) & {clip.sentence for clip in clips}


def test_the_demo_runs_twice(tmp_path: Path) -> None:
    arguments = ("demo", "--no-serve", "--clips", str(NUM_CLIPS), "--folder", str(tmp_path / "demo"))
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            command(*arguments), cwd=ROOT, env=environment(device="cpu"), capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr[-3000:]
        outputs.append(done.stdout)
    assert f"{NUM_CLIPS} clips indexed, 0 there already" in outputs[0]
    assert f"0 clips indexed, {NUM_CLIPS} there already" in outputs[1]
    clips = plan_clips(tmp_path / "demo" / "clips", NUM_CLIPS)
    for output in outputs:
        assert all(f'"{sentence}"' in output for sentence in queries(clips))
        assert output.count("best second") == 4
    assert sorted((tmp_path / "demo" / "clips").iterdir()) == sorted(clip.path for clip in clips)
