"""A server under load: 32 clients search at once, while one asks for its health; and what encoding a sentence costs.

    python -m benchmarks.serving [--segments 4000] [--clients 32] [--requests 20] [--json]

The model has ViT-B/32's text tower with random weights, the library random features; a temporary folder holds both
(300 MB). Every query is different, so that no cache answers. The batch rate is what the same queries take in one
process without HTTP, the better of one after another and as many threads as there are cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import open_clip
import torch

from benchmarks.random_library import write_library
from benchmarks.report import Row, Spread, at_least, at_most, interleaved, print_rows
from indexer.index import VideoIndex
from indexer.records import SearchOptions
from model.checkpoints.folder import save_checkpoint
from model.network import NetworkConfig
from model.query_text import QueryPrecision, QueryText
from model.registry import build_network, load_model, load_network
from model.threads import limit_threads
from service.app import open_index
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
WORDS = (
    *("a", "red", "dog", "cat", "man", "woman", "child", "car", "road", "street", "runs", "jumps", "sings", "plays"),
    *("guitar", "kitchen", "cooking", "football", "goal", "mountain", "river", "snow", "rain", "night", "city"),
    *("train", "dancing", "talking", "blue", "green", "slowly", "quickly", "two", "three", "crowd", "stage", "horse"),
)
SENTENCE = "two people are talking in a kitchen while it rains"
HEALTH_EVERY_S = 0.02
IDLE_S = 5.0
"""How long /healthz is asked before the searches begin, to see what the machine itself does to it."""
TOP_K = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=4000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=20, help="per client")
    parser.add_argument("--rounds", type=int, default=30, help="of encoding one sentence")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model")
        rows = encoding(folder / "model", given.rounds)
        write_library(folder / "data", load_model(str(folder / "model"), device="cpu").spec, given.segments)
        rows += serving(folder, given.clients, given.requests)
    print_rows(rows, as_json=given.json)


def make_model(folder: Path) -> None:
    """ViT-B/32's text tower beside a small image tower, which nothing here uses."""
    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    config["vision_cfg"] |= {"layers": 1, "width": 64, "head_width": 32}
    torch.manual_seed(0)
    save_checkpoint(folder, build_network(NetworkConfig("xclip", 32, 12, model_cfg=config)).eval())


def encoding(folder: Path, rounds: int) -> list[Row]:
    """One sentence on one thread, CPU time: the whole tower as evaluation runs it, without padding, in bfloat16."""
    network = load_network(str(folder))
    precisions: tuple[QueryPrecision, ...] = ("fp32", "bf16")
    fp32, bf16 = (QueryText(network, torch.device("cpu"), asked) for asked in precisions)
    limit_threads(1)

    @torch.inference_mode()
    def whole() -> object:
        tokens = network.backbone.tokenize([SENTENCE], 32)
        return network.text(tokens.ids, tokens.mask)

    texts = queries(32, seed=1)
    ways = {
        "W = 32, fp32": whole,
        "without padding, fp32": lambda: fp32.encode([SENTENCE]),
        "without padding, bf16": lambda: bf16.encode([SENTENCE]),
        "32 sentences in one batch, bf16": lambda: bf16.encode(texts),
    }
    for way in ways.values():
        way()
    found = interleaved({name: lambda way=way: _cpu_ms(way) for name, way in ways.items()}, rounds)
    before, in_fp32, in_bf16, batch = found.values()
    cosine = torch.nn.functional.cosine_similarity(fp32.encode(texts).sentence, bf16.encode(texts).sentence)
    per_text = Spread(*(value / len(texts) for value in (batch.median, batch.min, batch.max)))
    tokens = int(network.backbone.tokenize([SENTENCE], 32).mask.sum())
    best = in_bf16 if bf16.precision == "bf16" else in_fp32
    return [
        Row(
            f"encode one sentence of {tokens} tokens, ViT-B/32, {bf16.precision}",
            best,
            "ms of CPU",
            {"W = 32, fp32": before, "without padding, fp32": in_fp32},
            before.median / best.median,
            at_most(10),
        ),
        Row("encode, each of 32 sentences in one batch", per_text, "ms of CPU", {"alone": best}),
        Row("cosine to fp32, least of 32", float(cosine.min()), "", target=at_least(0.999)),
    ]


def serving(folder: Path, num_clients: int, num_requests: int) -> list[Row]:
    """The server under load against the same work in this process."""
    model = str(folder / "model")
    settings = Settings(data=folder / "data", model=model, device="cpu", log_level="warning", worker=False)
    texts = queries(num_clients * num_requests, seed=2)
    with served(settings, folder / "server.log") as port:
        load = asyncio.run(under_load(port, texts, num_clients))
    with contextlib.closing(open_index(settings)) as index:
        limit_threads(1)
        index.warm_up()
        rates = {
            "one after another": rate(index, queries(len(texts) // 4, seed=3), 1),
            f"{os.cpu_count()} threads": rate(index, queries(len(texts), seed=4), os.cpu_count() or 1),
        }
    took_ms = [1e3 * seconds for seconds in load.took_s]
    p50, p99 = statistics.median(took_ms), statistics.quantiles(took_ms, n=100)[98]
    per_s = len(took_ms) / load.wall_s
    return [
        Row(f"{num_clients} clients", per_s, "requests/s", rates, per_s / max(rates.values()), at_least(0.8, "ratio")),
        Row(f"{num_clients} clients, p99", p99, "ms", {"p50": p50}, p99 / p50, at_most(5, "ratio")),
        Row(
            f"/healthz meanwhile, the slowest of {len(load.health_s)}",
            1e3 * max(load.health_s),
            "ms",
            {
                "median": 1e3 * statistics.median(load.health_s),
                "p99": 1e3 * statistics.quantiles(load.health_s, n=100)[98],
                "slowest without searches": 1e3 * max(load.idle_s),
            },
            target=at_most(50),
        ),
    ]


def queries(count: int, seed: int) -> list[str]:
    """Different sentences of 4 to 10 words."""
    chosen = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(chosen.choices(WORDS, k=chosen.randint(4, 10)))] = None
    return list(found)


def rate(index: VideoIndex, texts: Sequence[str], num_threads: int) -> float:
    """Searches per second without HTTP."""
    began_s = time.perf_counter()
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(lambda text: index.search_text(text, SearchOptions(top_k=TOP_K)), texts))
    return len(texts) / (time.perf_counter() - began_s)


class Load:
    """What the clients saw."""

    def __init__(self) -> None:
        self.took_s: list[float] = []
        self.health_s: list[float] = []
        self.idle_s: list[float] = []
        self.wall_s = 0.0


async def under_load(port: int, texts: Sequence[str], num_clients: int) -> Load:
    """The texts, dealt to clients that each ask again when they are answered; /healthz all the while."""
    load = Load()

    async def client(mine: Sequence[str]) -> None:
        async with connection(port) as ask:
            for text in mine:
                began_s = time.perf_counter()
                body = json.dumps({"query": text, "top_k": TOP_K}).encode()
                status = await ask("POST /search/text", body)
                assert status == 200, status
                load.took_s.append(time.perf_counter() - began_s)

    async def health() -> None:
        async with connection(port) as ask:
            while True:
                began_s = time.perf_counter()
                assert await ask("GET /healthz", b"") == 200
                (load.health_s if is_loaded else load.idle_s).append(time.perf_counter() - began_s)
                await asyncio.sleep(HEALTH_EVERY_S)

    is_loaded = False
    watching = asyncio.create_task(health())
    await asyncio.sleep(IDLE_S)
    is_loaded = True
    began_s = time.perf_counter()
    await asyncio.gather(*(client(texts[number::num_clients]) for number in range(num_clients)))
    load.wall_s = time.perf_counter() - began_s
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    return load


@contextlib.asynccontextmanager
async def connection(port: int) -> AsyncIterator[Callable[[str, bytes], Awaitable[int]]]:
    """A connection that stays open: ask(method and path, body) -> status, the body of the answer read and dropped."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def ask(what: str, body: bytes) -> int:
        lines = (
            f"{what} HTTP/1.1",
            "host: localhost",
            "content-type: application/json",
            f"content-length: {len(body)}",
        )
        writer.write("\r\n".join((*lines, "", "")).encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in answer.lower().split(b"\r\n")[1:] if b": " in line)
        await reader.readexactly(int(fields[b"content-length"]))
        return int(answer.split(b" ", 2)[1])

    try:
        yield ask
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.contextmanager
def served(settings: Settings, log: Path) -> Iterator[int]:
    """A server process of its own; its port, once it answers searches."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "service.cli", "serve", "--no-worker", "--port", str(port)]
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=ROOT, env=settings.environment(), stdout=output, stderr=output)
    try:
        asyncio.run(_until_ready(server, port, log))
        yield port
    finally:
        server.terminate()
        server.wait(60)


async def _until_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    while server.poll() is None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with connection(port) as ask:
                if await ask("GET /readyz", b"") == 200:
                    return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"the server ended: {log.read_text()[-2000:]}")


def _cpu_ms(call: Callable[[], object]) -> float:
    began_s = time.process_time()
    call()
    return (time.process_time() - began_s) * 1e3


if __name__ == "__main__":
    main()
