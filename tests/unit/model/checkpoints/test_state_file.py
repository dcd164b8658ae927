"""Files of weights are hostile input: nothing in them runs, nothing outgrows its file, failures are told."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.checkpoints import state_file
from model.checkpoints.state_file import read_state
from model.errors import WeightsUnavailable

STATE = {"a.weight": torch.arange(12.0).reshape(3, 4).half(), "a.bias": torch.ones(3), "count": torch.tensor(7)}


def pickled(state: object, *, is_zip: bool = True) -> bytes:
    content = io.BytesIO()
    torch.save(state, content, _use_new_zipfile_serialization=is_zip)
    return content.getvalue()


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickled_state_dict_is_read(is_zip: bool, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pickled(STATE, is_zip=is_zip))
    found = read_state(tmp_path / "a.pt")
    assert found.keys() == STATE.keys() and found["a.weight"].dtype == torch.float32
    assert all(torch.equal(found[key], value.to(found[key].dtype)) for key, value in STATE.items())


@pytest.mark.filterwarnings("ignore")  # PyTorch warns of odd pickles before it refuses them
@given(data=st.data(), is_zip=st.booleans())
@settings(deadline=None, max_examples=100)
def test_changed_bytes_are_read_or_refused(
    data: st.DataObject, is_zip: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any bytes: tensors no larger than some times the file, or WeightsUnavailable; no other error."""
    content = bytearray(pickled(STATE, is_zip=is_zip))
    at = data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4))
    for place in at:
        content[place] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("changed") / "a.pt"
    file.write_bytes(content)
    try:
        found = read_state(file)
    except WeightsUnavailable as error:
        assert error.path == file
    else:
        assert sum(value.nbytes for value in found.values()) <= 2 * state_file.MAX_SHARING * len(content)


def test_one_number_seen_a_million_times_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pickled({"a": torch.ones(1, dtype=torch.half).expand(2**20, 2**10)}))
    with pytest.raises(WeightsUnavailable, match="claim 2147483648 bytes"):
        read_state(tmp_path / "a.pt")


def test_a_packed_archive_is_refused(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(io.BytesIO(pickled({"a": torch.zeros(2**20)}))) as whole,
        zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    assert (tmp_path / "a.pt").stat().st_size < 2**15
    with pytest.raises(WeightsUnavailable, match="compressed"):
        read_state(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore:Validating sparse:UserWarning")
@pytest.mark.parametrize("odd", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")])
def test_tensors_without_their_numbers_are_refused(odd: torch.Tensor, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pickled({"odd.one": odd}))
    with pytest.raises(WeightsUnavailable, match=r"odd\.one"):
        read_state(tmp_path / "a.pt")


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path, ("ran",))

    torch.save({"weight": Code()}, tmp_path / "code.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    (tmp_path / "torn.bin").write_bytes(b"PK\x03\x04 torn")
    for name in ("code.pt", "list.pt", "torn.safetensors", "torn.bin", "absent.bin"):
        with pytest.raises(WeightsUnavailable, match=name) as caught:
            read_state(tmp_path / name)
        assert "weights_only" not in str(caught.value)


def test_wrapped_and_parallel_state_dicts_are_unwrapped(tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.weight": torch.ones(2).half()}}, tmp_path / "w.pt")
    state = read_state(tmp_path / "w.pt")
    assert list(state) == ["weight"] and state["weight"].dtype == torch.float32
