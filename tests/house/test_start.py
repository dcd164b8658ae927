"""What a command imports: lists do without torch, and a search without the libraries of the server and of compilers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import contextlib, io, json, sys
from service.cli.main import main

def run(*arguments):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(arguments)
        except SystemExit as end:
            return end.code or 0
    return 0

def found(*names):
    return [name for name in names if name in sys.modules]

data = ["--data", sys.argv[1]]
model = ["--model", "tiny", "--device", "cpu"]
report = {"help": [run("--help"), found("numpy", "pydantic_settings", "torch")]}
statuses = [run("version"), run("--nonsense"), run("search", *data), run("videos", *data), run("jobs", *data, "--json")]
statuses += [run("videos", *data, "--json"), run("remove", "0123456789abcdef", *data)]
report["no model"] = [statuses, found("torch", "open_clip", "faiss", "fastapi", "transformers")]
needless = ("torch._dynamo", "timm.models", "fastapi", "av")
report["search"] = [run("search", "a red circle", *data, *model), found(*needless)]
print(json.dumps(report))
"""


def test_commands_import_what_they_need(tmp_path: Path) -> None:
    """One process for all: what an earlier command imports, a later one needs as well."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "data")], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {
        "help": [0, []],
        "no model": [[0, 2, 2, 0, 0, 0, 2], []],
        "search": [0, []],
    }
