"""TorchScript archives give their tensors and nothing else: nothing in them runs, nothing outgrows its file."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from model.checkpoints import torchscript
from model.checkpoints.layouts import layout_of, to_official
from model.checkpoints.state_file import read_state
from model.checkpoints.torchscript import is_torchscript, read_torchscript
from model.errors import CheckpointMismatch, WeightsUnavailable
from model.registry import load_network
from tests.unit.model.checkpoints.torchscript_files import (
    archive_of,
    module,
    named,
    number,
    rewritten,
    save_archive,
    small_clip,
    tensor,
    text,
    whole,
)
from tests.unit.model.small import VOCAB_SIZE, write_merges

VIT: dict[str, Any] = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": VOCAB_SIZE, "width": 64, "heads": 1, "layers": 1},
}
RESNET = VIT | {"vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 64, "patch_size": None}}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP as OpenAI released theirs: scripted, halves, the three sizes as tensors."""
    file = tmp_path_factory.mktemp("archive") / "ViT-S.pt"
    save_archive(small_clip(VIT).half(), file)
    return file


@pytest.mark.parametrize(
    ("config", "how"), [(VIT, "script"), (VIT, "trace"), pytest.param(RESNET, "script", marks=pytest.mark.slow)]
)
def test_every_tensor_is_the_one_that_was_saved(config: dict[str, Any], how: Any, tmp_path: Path) -> None:
    clip = small_clip(config)
    side = config["vision_cfg"]["image_size"]
    inputs = (torch.zeros(1, 3, side, side), torch.zeros(1, 8, dtype=torch.int64))
    expected = save_archive(clip.half() if how == "script" else clip, tmp_path / "a.pt", how, *inputs)
    found = read_torchscript(tmp_path / "a.pt")
    assert list(found) == list(expected) and clip.state_dict().keys() <= found.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name
    if how == "script":
        assert found["visual.conv1.weight"].dtype == torch.float16
    state = read_state(tmp_path / "a.pt")
    assert state["visual.conv1.weight"].dtype == torch.float32 and layout_of(state) == "openai"
    official = to_official(state)
    assert "clip.attn_mask" not in official and "clip.vocab_size" not in official
    assert torch.equal(official["clip.visual.conv1.weight"], clip.state_dict()["visual.conv1.weight"].float())


def test_an_archive_loads_by_its_path_and_means_quick_gelu(archive: Path, tmp_path: Path) -> None:
    file = shutil.copy(archive, tmp_path / "ViT-S.pt")
    write_merges(tmp_path)
    network = load_network(str(file), num_frames=3)
    expected = small_clip(VIT).half().float()
    assert (network.kind, network.num_frames, network.backbone.model_cfg) == ("xclip", 3, VIT)
    pixels, ids = torch.randn(2, 3, 16, 16), torch.randint(0, VOCAB_SIZE, (2, 8))
    with torch.no_grad():
        torch.testing.assert_close(network.backbone.encode_frames(pixels), expected.encode_image(pixels))  # type: ignore[operator]
        torch.testing.assert_close(network.backbone.encode_words(ids)[0], expected.encode_text(ids))  # type: ignore[operator]


def test_an_archive_of_another_program_is_named_by_its_keys(tmp_path: Path) -> None:
    save_archive(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), tmp_path / "other.pt")
    assert read_torchscript(tmp_path / "other.pt").keys() >= {"0.weight", "1.running_mean"}
    with pytest.raises(CheckpointMismatch, match=r"unknown.*0\.weight"):
        load_network(str(tmp_path / "other.pt"))


def test_values_of_modules_that_are_no_tensors_are_passed_over(tmp_path: Path) -> None:
    class Busy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sizes, self.names, self.label = [3, 4], {"a": 0.5}, "none"
            self.pair = (1, -70000)
            self.register_buffer("ids", torch.arange(5))
            self.register_buffer("flags", torch.tensor([True, False]))
            self.register_buffer("empty", torch.empty(0, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.ids.sum() + len(self.sizes) + len(self.names) + len(self.label) + self.pair[1]

    expected = save_archive(Busy(), tmp_path / "busy.pt")
    found = read_torchscript(tmp_path / "busy.pt")
    assert list(found) == list(expected) == ["ids", "flags", "empty"]
    assert all(torch.equal(value, found[name]) and value.shape == found[name].shape for name, value in expected.items())


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "zip.pt")
    torch.save({"weight": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file({"weight": torch.ones(2)}, tmp_path / "w.safetensors")
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04 torn")
    assert not any(is_torchscript(file) for file in tmp_path.iterdir())
    assert all(read_state(tmp_path / name)["weight"].sum() == 2 for name in ("zip.pt", "old.pt", "w.safetensors"))


class Calls:
    """Runs a function with an argument when it is unpickled."""

    def __init__(self, function: Callable[..., Any], argument: str) -> None:
        self.call = (function, (argument,))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    ("function", "told"), [(os.system, r"(posix|nt)\.system"), (eval, r"(builtins|__builtin__)\.eval")]
)
def test_a_pickle_that_would_run_something_is_refused_by_name(
    function: Callable[..., Any], told: str, protocol: int, archive: Path, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    argument = f"touch {ran}" if function is os.system else f"open({str(ran)!r}, 'w')"
    hostile = pickle.dumps(Calls(function, argument), protocol=protocol)
    for name, data in (("bare.pt", hostile), ("field.pt", whole(module(weight=hostile.strip(b".\n"))))):
        rewritten(archive, tmp_path / name, {"data.pkl": data})
        assert is_torchscript(tmp_path / name)
        with pytest.raises(WeightsUnavailable, match=told if name == "bare.pt" else r"archive can't be used"):
            read_state(tmp_path / name)
        with pytest.raises(WeightsUnavailable):
            load_network(str(tmp_path / name))
    assert not ran.exists()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (named("torch.load") + b"(" + text("x") + b"tR", r"asks for torch\.load"),
        (named("torch.nn.Linear") + b")\x81", r"asks for torch\.nn\.Linear"),
        (named("__torchy__.x") + b")\x81", r"asks for __torchy__\.x"),
        (named("__torch__.x.Y") + number(1) + b"\x85\x81", r"makes an object of __torch__\.x\.Y"),
        (named("__torch__.x.Y") + b")R", r"calls __torch__\.x\.Y"),
        (named("collections.OrderedDict") + b")\x81", "makes an object of"),
        (b"(i__torch__.x\nY\n", "instruction INST"),
        (b"\x82\x01", "instruction EXT1"),
        (b"N(" + text("a") + number(1) + b"u", "a dict belongs"),
        (module(weight=b"N") + b"}(" + number(1) + b"N" + b"ub", "a field 1"),
        (b"(}N" + b"d", "instruction DICT"),
        (b"]h\x07", "7"),
        (b"0", "instruction POP"),
        (b"t", "archive can't be used"),
        (b"]", "holds no module"),
        (b"]]", "too many values"),
    ],
)
def test_instructions_that_no_weights_need_are_refused(data: bytes, told: str, tmp_path: Path) -> None:
    archive_of(tmp_path / "a.pt", whole(data))
    with pytest.raises(WeightsUnavailable, match=told):
        read_torchscript(tmp_path / "a.pt")


GOOD = {"size": (2, 3), "stride": (3, 1), "num": 6}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"size": (1 << 30,), "stride": (0,)}, "over 6 numbers"),
        ({"size": (3, 3)}, "over 6 numbers"),
        ({"offset": 1}, "over 6 numbers"),
        ({"offset": -1}, "impossible sizes"),
        ({"size": (2, -3)}, "impossible sizes"),
        ({"size": (2,)}, "impossible sizes"),
        ({"stride": (1 << 41, 1)}, "impossible sizes"),
        ({"size": (1,) * 9, "stride": (1,) * 9}, "impossible sizes"),
        ({"num": 7}, r"24 bytes and 28 are needed"),
        ({"kind": "Double"}, r"24 bytes and 48 are needed"),
        ({"kind": "Untyped"}, r"asks for torch\.UntypedStorage"),
        ({"key": "1"}, r"data/1 isn't in it"),
        ({"key": "../constants.pkl"}, r"isn't in it"),
    ],
)
def test_a_tensor_that_is_more_than_its_storage_is_refused(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    content = torch.arange(6.0).numpy().tobytes()
    good = archive_of(tmp_path / "good.pt", whole(module(weight=tensor(**GOOD))), content)
    assert read_torchscript(good)["weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    bad = archive_of(tmp_path / "bad.pt", whole(module(weight=tensor(**(GOOD | change)))), content)
    with pytest.raises(WeightsUnavailable, match=told):
        read_torchscript(bad)


def test_a_storage_may_be_shared_but_not_without_end(tmp_path: Path) -> None:
    value = tensor(size=(5000,), stride=(1,), num=5000)
    content = torch.ones(5000).numpy().tobytes()
    shared = archive_of(tmp_path / "a.pt", whole(module(a=value, b=value)), content)
    assert read_torchscript(shared).keys() == {"a", "b"}
    many = archive_of(tmp_path / "b.pt", whole(module(**{f"w{n}": value for n in range(50)})), content)
    with pytest.raises(WeightsUnavailable, match=r"its tensors claim 1000000 bytes"):
        read_torchscript(many)


@pytest.mark.parametrize("entry", ["data.pkl", "data/0"])
def test_packed_entries_are_refused_before_they_are_unpacked(entry: str, archive: Path, tmp_path: Path) -> None:
    bomb = rewritten(archive, tmp_path / "bomb.pt", {entry: bytes(30 << 20)}, method=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 2 << 20
    with pytest.raises(WeightsUnavailable, match=r"compressed|storages claim \d+ bytes and the file has"):
        read_state(bomb)


def test_a_size_that_only_the_directory_claims_is_refused(tmp_path: Path) -> None:
    good = archive_of(tmp_path / "good.pt", whole(module(weight=tensor(**GOOD))), bytes(24))
    content = good.read_bytes()
    place = content.rindex(b"m/data/0") - 46
    assert content[place : place + 4] == b"PK\x01\x02"
    for change in ((20, 24), (24,), (20,)):
        claimed = bytearray(content)
        for field in change:
            claimed[place + field : place + field + 4] = (1 << 31).to_bytes(4, "little")
        (tmp_path / "bad.pt").write_bytes(claimed)
        with pytest.raises(WeightsUnavailable, match=r"claim"):
            read_torchscript(tmp_path / "bad.pt")


def test_a_large_pickle_many_entries_and_a_large_directory_are_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = rewritten(archive, tmp_path / "large.pt", {"data.pkl": bytes(torchscript.MAX_PICKLE_BYTES + 1)})
    with pytest.raises(WeightsUnavailable, match=r"data\.pkl claims"):
        read_state(large)
    size = torchscript.MAX_DIRECTORY_BYTES + 1
    end = b"PK\x05\x06" + bytes(8) + size.to_bytes(4, "little") + bytes(6)
    (tmp_path / "directory.pt").write_bytes(bytes(size) + end)
    with pytest.raises(WeightsUnavailable, match="claims a directory"):
        read_state(tmp_path / "directory.pt")
    monkeypatch.setattr(torchscript, "MAX_ENTRIES", 20)
    with pytest.raises(WeightsUnavailable, match=r"lists \d+ entries"):
        read_state(archive)


def test_an_entry_that_is_there_twice_is_refused(archive: Path, tmp_path: Path) -> None:
    double = Path(shutil.copy(archive, tmp_path / "double.pt"))
    with zipfile.ZipFile(double, "a") as file:
        name = next(name for name in file.namelist() if name.endswith("/data.pkl"))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr(name, b"")
    with pytest.raises(WeightsUnavailable, match="1 of them twice"):
        read_state(double)


def test_records_without_end_are_refused(tmp_path: Path) -> None:
    deep = b"N"
    for _ in range(torchscript.MAX_DEPTH + 2):
        deep = module(a=deep)
    start = named("__torch__.foreign.Module") + b")\x81q\x00"
    itself = start + b"}(" + text("a") + b"h\x00" + b"ub"
    levels = [module(a=b"N") + b"q\x00"]
    for level in range(1, 40):  # each holds the one before it twice: 2 ** 39 names
        before = b"h" + bytes([level - 1])
        levels.append(module(a=before, b=before) + b"q" + bytes([level]))
    doubling = module(all=b"(" + b"".join(levels) + b"t", top=b"h\x27")
    for name, data in (("deep", deep), ("itself", itself), ("doubling", doubling)):
        archive_of(tmp_path / name, whole(data))
        with pytest.raises(WeightsUnavailable, match="deep or have more than"):
            read_torchscript(tmp_path / name)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_archive_is_refused(share: float, archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsUnavailable, match=r"cut\.pt"):
        read_state(tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes(content[int((1 - share) * len(content)) :] if share else b"")
    with pytest.raises(WeightsUnavailable, match=r"cut\.pt"):
        read_state(tmp_path / "cut.pt")


def test_a_damaged_number_and_a_foreign_byte_order_are_seen(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        stored = next(file.read(name) for name in file.namelist() if name.endswith("/data/3"))
    content = archive.read_bytes()
    at = content.index(stored)
    (tmp_path / "bit.pt").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(WeightsUnavailable, match="CRC"):
        read_state(tmp_path / "bit.pt")
    with pytest.raises(WeightsUnavailable, match="little-endian"):
        read_state(rewritten(archive, tmp_path / "order.pt", {"byteorder": b"big"}))
    assert read_state(rewritten(archive, tmp_path / "none.pt", {"byteorder": None}))
    with pytest.raises(WeightsUnavailable, match=r"data/3 isn't in it"):
        read_state(rewritten(archive, tmp_path / "lost.pt", {"data/3": None}))


@pytest.mark.parametrize("instruction", [b"ctorch\\)\nHalfStorage\n", b"S'\\)'\n", b"V\\)\n", b"I\\)\n"])
def test_text_with_escapes_is_refused_without_being_decoded(instruction: bytes, archive: Path, tmp_path: Path) -> None:
    changed = rewritten(archive, tmp_path / "escape.pt", {"data.pkl": b"\x80\x02" + instruction + b"."})
    with pytest.raises(WeightsUnavailable, match=r"torch\\\\\)|no weights need"):
        read_torchscript(changed)


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_a_pickle_with_changed_bytes_is_read_or_refused(
    data: st.DataObject, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever stands in data.pkl: tensors, or WeightsUnavailable; no other error, no memory beyond the file."""
    with zipfile.ZipFile(archive) as file:
        content = bytearray(next(file.read(name) for name in file.namelist() if name.endswith("/data.pkl")))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    changed = rewritten(archive, tmp_path_factory.mktemp("changed") / "a.pt", {"data.pkl": bytes(content)})
    try:
        state = read_torchscript(changed)
    except WeightsUnavailable as error:
        assert "archive can't be used" in error.message
    else:
        assert sum(value.nbytes for value in state.values()) <= torchscript.MAX_SHARING * changed.stat().st_size
