"""What a packet says about itself: only slices that nobody refers to make it one that may be left out."""

from __future__ import annotations

import pytest

from indexer.media.nal_units import has_one_layer, is_unreferenced, length_bytes


def _packet(*heads: int, num_length_bytes: int = 4) -> bytes:
    units = [bytes([head]) + b"\x55" * 9 for head in heads]
    if not num_length_bytes:
        return b"".join(b"\0\0\0\1" + unit for unit in units)
    return b"".join(len(unit).to_bytes(num_length_bytes, "big") + unit for unit in units)


@pytest.mark.parametrize("num_length_bytes", [0, 2, 4])
@pytest.mark.parametrize(
    ("codec_name", "heads", "is_free"),
    [
        ("h264", [0x01], True),
        ("h264", [0x06, 0x01, 0x01], True),  # with supplementary information, in two slices
        ("h264", [0x41], False),
        ("h264", [0x01, 0x21], False),
        ("h264", [0x65], False),
        ("h264", [0x00], False),  # no slice: damage
        ("h264", [], False),
        ("hevc", [0 << 1], True),
        ("hevc", [8 << 1], True),
        ("hevc", [1 << 1], False),
        ("hevc", [19 << 1], False),
        ("hevc", [39 << 1], False),
    ],
)
def test_a_packet_is_free_if_all_its_slices_are(
    codec_name: str, heads: list[int], is_free: bool, num_length_bytes: int
) -> None:
    data = _packet(*heads, num_length_bytes=num_length_bytes)
    assert is_unreferenced(codec_name, data, num_length_bytes) is is_free


def test_lengths_that_lead_outside_end_the_packet() -> None:
    assert is_unreferenced("h264", b"\xff\xff\xff\xff\x01\x02", 4)
    assert not is_unreferenced("h264", b"\0\0\0", 4)
    assert not is_unreferenced("h264", b"\0\0\1", 0)


def test_the_record_of_a_container() -> None:
    avc = bytes([1, 100, 0, 31, 0xFC | 3])
    hevc = bytes([1, *bytes(20), 1 << 3 | 3])
    assert (length_bytes("h264", avc), length_bytes("hevc", hevc)) == (4, 4)
    assert length_bytes("h264", b"\0\0\0\1\x67") == length_bytes("hevc", None) == 0
    assert has_one_layer(hevc)
    assert not has_one_layer(bytes([1, *bytes(20), 2 << 3 | 3]))
    assert not has_one_layer(None)
