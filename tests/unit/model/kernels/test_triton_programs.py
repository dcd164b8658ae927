"""The programs compile for GPUs that aren't here: Triton's interpreter takes more than its compiler does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.kernels.device_scorers import choose_tile

triton = pytest.importorskip("triton", exc_type=ImportError)
triton_programs = pytest.importorskip("model.kernels.triton_programs")
FP16, INT8 = "*fp16", "*i8"
SHAPES = {"D": 512, "WS": 16, "FS": 16}
TYPES = {
    "out": "*fp32",
    "scales": "*fp32",
    "first_frame": "*i64",
    "num_frames": "*i32",
    "rows": "*i64",
    "panel_scales": "*fp32",
    "is_word": "*i8",
    "word_shares": "*fp32",
    "words_second": "*fp32",
    "frames_first": "*fp16",
    "frames_coarse": "*fp32",
    "frames_second": "*fp32",
    "num_segments": "i32",
    "num_queries": "i32",
    "num_query_blocks": "i32",
    "sharpness": "fp32",
}


@pytest.mark.slow
@pytest.mark.skipif(triton_programs.is_interpreted(), reason="the interpreter was asked for")
@pytest.mark.parametrize(
    ("name", "is_int8", "capability"),
    [
        ("pooled_grains", True, 90),
        ("frame_grains", False, 90),
        ("frame_grains", True, 90),
        ("best_or_mean", False, 90),
        ("frame_grains", False, 80),
    ],
)
def test_a_program_compiles_for_tensor_cores(
    name: str, is_int8: bool, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    program = getattr(triton_programs, name)
    tile = choose_tile(16, 16, 1, 512, 64, twins=2, is_int8=is_int8)
    flags = {argument: True for argument in program.arg_names if argument.startswith(("IS_", "HAS_", "AS_"))}
    given = SHAPES | {"BLOCK_D": tile.depth, "S": tile.segments, "M": 64, "B": tile.queries} | flags
    constants = {argument: given[argument] for argument in program.arg_names if argument in given}
    constants["IS_INT8"] = is_int8
    features = dict.fromkeys(("frames", "pooled", "panel"), INT8 if is_int8 else FP16)
    types = {argument: (TYPES | features).get(argument, "constexpr") for argument in program.arg_names}
    aligned: dict[tuple[int], Any] = {
        (at,): [["tt.divisibility", 16]] for at, kind in enumerate(types.values()) if kind.startswith("*")
    }
    compiled = triton.compile(
        ASTSource(program, types, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True},
    )
    assert ("wgmma.mma_async" if capability == 90 else "mma.sync") in compiled.asm["ptx"]
    assert "cp.async" in compiled.asm["ptx"]  # features are read ahead
    assert compiled.metadata.shared <= 99 * 1024  # what one program may have on every GPU since 2020
