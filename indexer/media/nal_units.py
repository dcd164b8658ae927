"""Whether a packet of H.264 or HEVC says that no other picture refers to it.

Asked to leave such pictures out, FFmpeg's decoder keeps quiet about packets that hold no picture at all, for example
because of damage. So a packet is left out only if it holds a slice and all its slices say so; everything else is
decoded, and complained about.

It knows bytes; it knows no decoder. Source: ITU-T H.264, 7.3.1 and 7.4.1; H.265, 7.3.1.2 and table 7-1; for the records
of containers ISO/IEC 14496-15.
"""

from __future__ import annotations

from collections.abc import Iterator

START = b"\0\0\1"
AVC_SLICES = range(1, 6)
HEVC_SLICES = range(32)
HEVC_UNREFERENCED = range(0, 16, 2)


def length_bytes(codec_name: str, record: bytes | None) -> int:
    """How many bytes the length before each unit takes, by the container's record; 0: start codes in their place."""
    place = {"h264": 4, "hevc": 21}[codec_name]
    return (record[place] & 3) + 1 if record and len(record) > place and record[0] == 1 else 0


def has_one_layer(record: bytes | None) -> bool:
    """Whether HEVC's record says that there is one temporal layer.

    Only then are the pictures marked as unreferenced within their layer referred to by none at all.
    """
    return record is not None and len(record) > 21 and record[0] == 1 and record[21] >> 3 & 7 == 1


def is_unreferenced(codec_name: str, data: bytes, num_length_bytes: int) -> bool:
    """Whether a packet holds slices, and all of them are of a picture that no other refers to."""
    found = False
    for head in _heads(data, num_length_bytes):
        if codec_name == "h264":
            is_slice, is_free = head & 31 in AVC_SLICES, not head >> 5 & 3
        else:
            is_slice, is_free = head >> 1 & 63 in HEVC_SLICES, head >> 1 & 63 in HEVC_UNREFERENCED
        if is_slice and not is_free:
            return False
        found = found or is_slice
    return found


def _heads(data: bytes, num_length_bytes: int) -> Iterator[int]:
    """The first byte of each unit."""
    place = 0
    while num_length_bytes and place + num_length_bytes < len(data):
        yield data[place + num_length_bytes]
        place += num_length_bytes + int.from_bytes(data[place : place + num_length_bytes], "big")
    while not num_length_bytes and 0 <= (place := data.find(START, place)) < len(data) - 3:
        yield data[place + 3]
        place += 3
