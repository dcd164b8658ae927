"""How many frames a second the image tower encodes on this CPU, beside what the processor could multiply.

    python -m benchmarks.encoder [--architecture ViT-B-32-quickgelu] [--frames 24] [--rounds 5] [--json]

Random weights, made pictures of the tower's size, one thread and all cores, taken in turn; --frames are those of one
call, and may be several numbers. `float32` is the tower as it is trained, `cast` the same cast to bfloat16, `packed`
what serves where the precision is bf16, by one caller and by one per core. The roofs are products of the tower's shape
alone, in frames. ONNX Runtime and OpenVINO join where they can be imported, with `onnx`, which they need. Each row's
ratio is its share of the roof of its own precision.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, linear

from benchmarks.report import Row, Spread, Target, at_least, at_most, interleaved, print_rows
from model.backbone import Backbone, build_backbone
from model.made_pictures import made_pictures
from model.packed_blocks import Linear
from model.packed_pictures import ROWS, PackedPictures
from model.picture_tower import LEAST_COSINE, CastTower
from model.threads import limit_threads, threads_of_this_thread

TARGETS: Mapping[str, Target] = {"packed": at_least(0.5, "ratio")}
"""Of the share of the roof, with one thread: several wait for one another, and for whatever else runs."""

Encode = Callable[[Tensor], Tensor]
"""(N, S, S, 3) uint8 -> (N, D)."""


def measure(architecture: str | Mapping[str, Any], counts: Sequence[int], rounds: int) -> list[Row]:
    """Every way to encode, at every number of threads and frames."""
    torch.manual_seed(0)
    backbone = build_backbone(architecture)
    exact = _float32(backbone)
    ways: dict[str, Encode] = {
        "float32": exact,
        "cast": CastTower(backbone.image_tower, backbone.preprocess),
        "packed": PackedPictures(backbone.image_tower, backbone.preprocess),
    }
    pictures = torch.from_numpy(made_pictures(backbone.image_size))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for num_threads in sorted({1, os.cpu_count() or 1}):
            limit_threads(num_threads)
            all_ways = ways | _runtimes(backbone, Path(folder), num_threads)
            if not rows:
                wanted = exact(pictures)
                rows += [_distance(name, encode(pictures), wanted) for name, encode in all_ways.items()]
            roofs = {name: _roof(backbone, dtype) for name, dtype in _DTYPES.items()}
            for count in counts:
                frames = pictures.repeat(-(-count // len(pictures)), 1, 1, 1)[:count]
                timed = {name: _rate(encode, frames) for name, encode in all_ways.items()} | roofs
                found = interleaved(timed, rounds)
                roof = {name: found.pop(name) for name in roofs}
                rows += [_row(name, rate, roof, num_threads, count) for name, rate in found.items()]
        if (num_callers := os.cpu_count() or 1) > 1:
            rows += [
                _callers_row(ways["packed"], num_callers, pictures.repeat(count, 1, 1, 1)[:count], rounds)
                for count in counts
            ]
    return rows


_DTYPES = {"fp32 roof": torch.float32, "bf16 roof": torch.bfloat16}


def _row(name: str, rate: Spread, roofs: Mapping[str, Spread], num_threads: int, count: int) -> Row:
    roof = "fp32 roof" if name.endswith(("float32", "fp32")) else "bf16 roof"
    threads = "1 thread" if num_threads == 1 else f"{num_threads} threads"
    share = rate.median / roofs[roof].median
    target = TARGETS.get(name) if num_threads == 1 else None
    return Row(f"{name}, {threads}, {count} frames", rate, "frames/s", roofs, share, target)


def _callers_row(encode: Encode, num_callers: int, frames: Tensor, rounds: int) -> Row:
    """Several callers at once, each in a thread of its own with one torch thread, as an indexing worker encodes."""
    with ThreadPoolExecutor(num_callers, initializer=lambda: threads_of_this_thread(1)) as pool:

        def run() -> float:
            started_s = time.perf_counter()
            for _ in pool.map(encode, [frames] * (4 * num_callers)):
                pass
            return 4 * num_callers * len(frames) / (time.perf_counter() - started_s)

        run()
        return Row(
            f"packed, {num_callers} callers, {len(frames)} frames each",
            Spread.of([run() for _ in range(rounds)]),
            "frames/s",
        )


def _distance(name: str, found: Tensor, wanted: Tensor) -> Row:
    most = 1 - float(cosine_similarity(found.double(), wanted.double(), dim=-1).min())
    return Row(f"{name}, 1 - cosine with float32", most, "", target=at_most(1 - LEAST_COSINE))


def _rate(encode: Encode, frames: Tensor) -> Callable[[], float]:
    def run() -> float:
        started_s = time.perf_counter()
        encode(frames)
        return len(frames) / (time.perf_counter() - started_s)

    run()
    return run


def _roof(backbone: Backbone, dtype: torch.dtype) -> Callable[[], float]:
    """Frames a second if a tower were its products alone, each at the rate of the MLP's first: packed in bfloat16."""
    tower = backbone.image_tower
    weight = tower.transformer.resblocks[0].mlp.c_fc.weight.detach()
    rows = torch.randn(ROWS, weight.shape[1], dtype=dtype)
    multiply = Linear(weight, None, ROWS) if dtype == torch.bfloat16 else (lambda x: linear(x, weight))
    tokens = len(tower.positional_embedding)
    products = sum(part.numel() for name, part in tower.named_parameters() if part.ndim > 1 and "embedding" not in name)

    def run() -> float:
        started_s = time.perf_counter()
        for _ in range(20):
            multiply(rows)
        products_s = 20 * ROWS * weight.numel() / (time.perf_counter() - started_s)
        return products_s / (tokens * products)

    run()
    return run


def _float32(backbone: Backbone) -> Encode:
    return lambda frames: backbone.encode_frames(backbone.preprocess.normalise(frames))


def _runtimes(backbone: Backbone, folder: Path, num_threads: int) -> dict[str, Encode]:
    """The tower in the runtimes that are installed; its file is written once."""
    found: dict[str, Encode] = {}
    if find_spec("onnx") is None:
        return found
    file, small = folder / "tower.onnx", folder / "tower-int8.onnx"
    if not file.exists():
        _export(backbone, file)
    if find_spec("onnxruntime") is not None:
        import onnxruntime
        from onnxruntime.quantization import QuantType, quantize_dynamic

        if not small.exists():
            quantize_dynamic(file, small, weight_type=QuantType.QInt8, per_channel=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        for name, path in (("ONNX Runtime fp32", file), ("ONNX Runtime int8", small)):
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            found[name] = _in_numpy(backbone, lambda x, s=session: s.run(None, {"x": x})[0])  # type: ignore[misc]
    if find_spec("openvino") is not None:
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": num_threads, "NUM_STREAMS": 1}
        request = openvino.Core().compile_model(file, "CPU", settings).create_infer_request()
        found["OpenVINO bf16"] = _in_numpy(backbone, lambda x: request.infer({0: x})[0])
    return found


def _in_numpy(backbone: Backbone, run: Callable[[object], np.ndarray[tuple[int, ...], np.dtype[np.float32]]]) -> Encode:
    return lambda frames: torch.from_numpy(run(backbone.preprocess.normalise(frames).numpy()).copy())


def _export(backbone: Backbone, file: Path) -> None:
    size = backbone.image_size
    torch.backends.mha.set_fastpath_enabled(False)  # the fused attention has no counterpart there
    arguments = (torch.zeros(1, 3, size, size),)
    axes = {"x": {0: "frames"}, "y": {0: "frames"}}
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
    torch.onnx.export(backbone.image_tower, arguments, str(file), dynamo=False, opset_version=17, **names)
    torch.backends.mha.set_fastpath_enabled(True)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="ViT-B-32-quickgelu")
    parser.add_argument("--frames", type=int, nargs="+", default=[24])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    print_rows(measure(chosen.architecture, chosen.frames, chosen.rounds), as_json=chosen.json)


if __name__ == "__main__":
    main()
