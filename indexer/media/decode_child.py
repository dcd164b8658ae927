"""The decode child's program: `python -m indexer.media.decode_child MEMORY_BYTES ALARM_S THREADS DEVICE`.

Only sandbox.py starts it; THREADS are those of a codec, 0 for a choice by the size of the picture; DEVICE is cuda or
none. It reads one JSON request per line from stdin and answers with one JSON line, followed by `num_bytes` raw bytes.
The file of the last request stays open for the next one. Before it loads a decoder it sets its memory limit, gives up
writing files and dumping cores, and arranges its own end: when stdin closes (the parent is gone, or done with it), or
when a request outlasts its alarm and the parent did not kill it.

It never imports torch, and knows no catalogue.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

NOTHING = memoryview(b"")

EXIT_MEMORY = 77
"""The exit status after passing the memory limit."""


def main(argv: list[str]) -> int:
    """Serve requests until stdin ends.

    argv: memory limit in bytes (0: none), seconds after which a request is a hang, threads of a codec (0: chosen here),
    cuda or none.
    """
    memory_bytes, alarm_s, threads, hardware = int(argv[0]), float(argv[1]), int(argv[2]) or None, argv[3] == "cuda"
    _limit(memory_bytes)
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not end up between the answers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        from indexer.media.reading import Reader  # only now: the limits hold for the decoders' libraries as well

        readers = {decoder: Reader(decoder, threads=threads, hardware=hardware) for decoder in ("pyav", "decord")}
        _answer(answers, {"ready": True})
        for line in sys.stdin.buffer:
            signal.setitimer(signal.ITIMER_REAL, alarm_s)  # SIGALRM's default is death; needs no thread of Python's
            header, payload = _serve(readers, json.loads(line))
            _answer(answers, header, payload)
            del payload
            signal.setitimer(signal.ITIMER_REAL, 0)
    except MemoryError:
        return EXIT_MEMORY
    return 0


def _serve(readers: dict[str, Any], request: dict[str, Any]) -> tuple[dict[str, Any], memoryview]:
    from indexer.errors import IndexerError
    from model.resize import FrameResize

    path, reader = Path(request["path"]), readers[request["decoder"]]
    try:
        if request["verb"] == "release":
            reader.release()
            return {}, NOTHING
        if request["verb"] == "probe":
            return {"media": asdict(reader.probe(path))}, NOTHING
        if request["verb"] == "thumbnail":
            return {}, memoryview(reader.thumbnail(path, request["at_s"], request["max_side"]))
        resize = FrameResize.from_dict(request["resize"]) if request["resize"] else None
        frames = reader.read_frames(path, request["instants_s"], resize=resize, sampling=request["sampling"])
    except IndexerError as error:
        return {"error": error.code, "message": error.message, "hint": error.hint}, NOTHING
    except ValueError as error:
        return {"error": "value", "message": str(error)}, NOTHING
    header = {"shape": frames.pixels.shape, "times_s": frames.times_s.tolist()}
    return header, memoryview(frames.pixels).cast("B")


def _answer(fd: int, header: dict[str, Any], payload: memoryview = NOTHING) -> None:
    line = json.dumps({**header, "num_bytes": payload.nbytes}).encode() + b"\n"
    for rest in (memoryview(line), payload):
        while rest:
            rest = rest[os.write(fd, rest) :]


def _limit(memory_bytes: int) -> None:
    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)]
    for kind, value in [(resource.RLIMIT_AS, memory_bytes), *limits] if memory_bytes else limits:
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard),) * 2)


def _end_with_parent() -> None:
    """Exit when stdin hangs up, which it does however the parent ends, also in the middle of a request.

    PR_SET_PDEATHSIG isn't used: it fires as soon as the thread that started this process ends.
    """
    poll = select.poll()
    poll.register(0, 0)
    poll.poll()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
