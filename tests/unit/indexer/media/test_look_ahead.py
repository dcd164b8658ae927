"""Which packet is shown, known from times alone; where the key frames are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from indexer.media.look_ahead import MAX_EARLY, LookAhead, NotClean
from indexer.media.packet_index import KeyList, PacketIndex


def _ahead(times: Iterable[int], start: int = 0) -> LookAhead:
    look = LookAhead(start)
    for time in times:
        look.add(time)
    return look


def test_the_picture_shown_is_the_last_one_not_after_the_target() -> None:
    look = _ahead([0, 40, 20, 10, 30])
    assert [look.shown_at(t) for t in (0, 9, 10, 35, 99)] == [0, 0, 10, 30, 40]
    assert look.shown_at(-1) is None


def test_it_is_settled_once_no_later_packet_can_come_between() -> None:
    look = _ahead([0, *range(20, 20 + MAX_EARLY)])
    assert not look.is_settled(15)
    look.add(10)
    assert not look.is_settled(15)
    look.add(99)
    assert look.is_settled(15)


def test_the_end_of_the_file_settles_everything() -> None:
    look = _ahead([0, 10])
    look.end()
    assert look.is_settled(5)
    assert look.shown_at(1000) == 10
    assert not look.is_followed(1000)


def test_a_packet_is_wanted_if_it_is_the_last_one_before_a_target() -> None:
    look = _ahead([0, 10, 20, 30, 40])
    targets = [5, 25, 35]
    assert look.is_wanted(10, targets) is False
    assert look.is_wanted(20, targets) is None  # 21 to 25 may be yet to come
    look.end()
    assert [look.is_wanted(t, targets) for t in (0, 10, 20, 30, 40)] == [True, False, True, True, True]


def test_what_is_shown_ahead_of_the_key_frame_does_not_count() -> None:
    look = _ahead([100, 80, 90, 110], start=100)
    assert look.shown_at(99) is None
    assert look.is_wanted(80, [200]) is False


@pytest.mark.parametrize("times", [[0, 10, 10], [0, *range(100, 100 + MAX_EARLY + 1), 50]])
def test_times_that_cannot_be_are_not_clean(times: list[int]) -> None:
    with pytest.raises(NotClean):
        _ahead(times)


def test_forgetting_keeps_what_is_shown() -> None:
    look = _ahead([0, 10, 20, 30])
    look.forget(25)
    assert look.shown_at(25) == 20
    assert look.shown_at(15) is None


@dataclass
class Entry:
    timestamp: int


class Entries(list[Entry]):
    """A container's list of key frames."""

    def search_timestamp(self, timestamp: int, *, backward: bool = True, any_frame: bool = False) -> int:
        if backward:
            return max((i for i, entry in enumerate(self) if entry.timestamp <= timestamp), default=-1)
        return min((i for i, entry in enumerate(self) if entry.timestamp >= timestamp), default=-1)


def test_a_list_by_decoding_time_is_read_as_times_of_showing() -> None:
    index = PacketIndex(Entries(map(Entry, [-20, 80, 180])), early=20)
    assert [index.key_before(t) for t in (0, 99, 100, 200)] == [0, 0, 100, 200]
    assert [index.key_near(t) for t in (49, 50, 51, 151)] == [0, 0, 100, 200]


def test_behind_the_end_of_a_list_nothing_is_known_unless_it_is_whole() -> None:
    index = PacketIndex(Entries(map(Entry, [0, 100])))
    assert index.key_before(101) is None
    index.is_whole = True
    assert index.key_before(101) == 100
    assert PacketIndex(Entries()).key_before(5) is None


def test_key_frames_found_by_a_pass_over_the_packets() -> None:
    keys = KeyList([(0, 564), (100, 9000)])
    assert [keys.key_before(t) for t in (-1, 0, 99, 100, 500)] == [None, 0, 0, 100, 100]
    assert [keys.key_near(t) for t in (-1, 50, 51, 500)] == [None, 0, 100, 100]
