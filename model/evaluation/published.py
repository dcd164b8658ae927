"""What the papers report on the datasets that can be evaluated here. None of it was measured by us.

Percentages as printed; a row names its source. Rows of one paper that another one ran again are marked: the larger
towers of CLIP4Clip are by X-CLIP's authors. Weights of most of these rows were never published.
Sources: CLIP4Clip arXiv:2104.08860, X-CLIP arXiv:2207.07285, CLIP2Video arXiv:2106.11097.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CLIP4CLIP = "arXiv:2104.08860"
CLIP2VIDEO = "arXiv:2106.11097"
XCLIP = "arXiv:2207.07285"
RUN_AGAIN = "run again in arXiv:2207.07285"

SHORT = ("r1", "r5", "mnr")
LONG = ("r1", "r5", "r10", "mdr", "mnr")


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row of a paper's table: recalls as fractions and ranks, the columns that the paper has, both ways."""

    dataset: str
    model: str
    towers: str
    source: str
    text_to_video: Mapping[str, float]
    video_to_text: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; "published" marks it as no measurement of ours."""
        return {
            "published": True,
            "model": self.model,
            "towers": self.towers,
            "source": self.source,
            "text_to_video": dict(self.text_to_video),
            "video_to_text": dict(self.video_to_text),
        }


def published_rows(dataset: str, split: str = "test") -> tuple[PublishedRow, ...]:
    """The rows of a dataset's test split; none of any other split, and none where no paper reports the dataset."""
    return tuple(row for row in PUBLISHED if row.dataset == dataset) if split == "test" else ()


def _row(
    dataset: str, model: str, towers: str, source: str, forth: tuple[float, ...], back: tuple[float, ...]
) -> PublishedRow:
    columns = LONG if len(forth) == len(LONG) else SHORT
    ways = [
        {name: round(value / 100, 5) if name[0] == "r" else value for name, value in zip(columns, way, strict=True)}
        for way in (forth, back)
    ]
    return PublishedRow(dataset, model, towers, source, *ways)


# model, towers, source, text to video, video to text
_MSRVTT_1KA: tuple[tuple[str, str, str, tuple[float, ...], tuple[float, ...]], ...] = (
    ("CLIP4Clip meanP", "B/32", CLIP4CLIP, (43.1, 70.4, 80.8, 2, 16.2), (43.1, 70.5, 81.2, 2, 12.4)),
    ("CLIP4Clip seqLSTM", "B/32", CLIP4CLIP, (42.5, 70.8, 80.7, 2, 16.7), (42.8, 71.0, 80.4, 2, 12.3)),
    ("CLIP4Clip seqTransf", "B/32", CLIP4CLIP, (44.5, 71.4, 81.6, 2, 15.3), (42.7, 70.9, 80.6, 2, 11.6)),
    ("CLIP4Clip tightTransf", "B/32", CLIP4CLIP, (40.2, 71.5, 80.5, 2, 13.4), (40.6, 69.5, 79.5, 2, 13.6)),
    ("CLIP2Video", "B/32", CLIP2VIDEO, (45.6, 72.6, 81.7, 2, 14.6), (43.5, 72.3, 82.1, 2, 10.2)),
    ("X-CLIP", "B/32", XCLIP, (46.1, 73.0, 83.1, 2, 13.2), (46.8, 73.3, 84.0, 2, 9.1)),
    ("CLIP4Clip meanP", "B/16", RUN_AGAIN, (45.3, 73.3, 83.0, 2, 13.0), (44.8, 73.2, 82.2, 2, 9.6)),
    ("CLIP4Clip seqLSTM", "B/16", RUN_AGAIN, (44.3, 72.0, 82.2, 2, 13.7), (44.3, 73.4, 82.4, 2, 10.3)),
    ("CLIP4Clip seqTransf", "B/16", RUN_AGAIN, (46.4, 72.1, 82.0, 2, 14.7), (45.4, 73.4, 82.4, 2, 10.7)),
    ("CLIP4Clip tightTransf", "B/16", RUN_AGAIN, (42.9, 71.7, 81.5, 2, 13.3), (41.9, 71.0, 80.7, 2, 10.1)),
    ("X-CLIP", "B/16", XCLIP, (49.3, 75.8, 84.8, 2, 12.2), (48.9, 76.8, 84.5, 2, 8.1)),
)

_CLIP2VIDEO_ALONE: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...] = (
    ("msrvtt-full", (29.8, 55.5, 66.2, 4, 45.5), (54.6, 82.1, 90.8, 1, 5.3)),
    ("msvd", (47.0, 76.8, 85.9, 2, 9.6), (58.7, 85.6, 91.6, 1, 4.3)),
    ("vatex", (61.2, 90.9, 95.6, 1, 3.4), (77.9, 98.1, 99.1, 1, 1.6)),
    ("vatex-1k5", (57.3, 90.0, 95.5, 1, 3.6), (76.0, 97.7, 99.9, 1, 1.5)),
)

_FOUR = ("msvd", "lsmdc", "didemo", "activitynet")
# model, towers, source, then of each of the four datasets: R@1, R@5, MnR, text to video and back
_ON_FOUR: tuple[tuple[str, str, str, tuple[tuple[float, ...], ...]], ...] = (
    (
        *("CLIP4Clip meanP", "B/32", CLIP4CLIP),
        (
            (46.2, 76.1, 10.0, 56.6, 79.7, 7.6),
            (20.7, 38.9, 65.3, 20.6, 39.4, 56.7),
            (43.4, 70.2, 17.5, 42.5, 70.6, 11.6),
            (40.5, 72.4, 7.4, 42.5, 74.1, 6.6),
        ),
    ),
    (
        *("CLIP4Clip seqLSTM", "B/32", CLIP4CLIP),
        (
            (46.2, 75.3, 10.2, 52.5, 74.0, 14.7),
            (21.6, 41.8, 58.0, 20.9, 40.7, 53.9),
            (43.4, 69.9, 17.5, 42.4, 69.2, 11.8),
            (40.1, 72.2, 7.3, 42.6, 73.4, 6.7),
        ),
    ),
    (
        *("CLIP4Clip seqTransf", "B/32", CLIP4CLIP),
        (
            (45.2, 75.5, 10.3, 62.0, 87.3, 4.3),
            (22.6, 41.0, 61.0, 20.8, 39.0, 54.2),
            (42.8, 68.5, 18.9, 41.4, 68.2, 12.4),
            (40.5, 72.4, 7.5, 41.4, 73.7, 6.7),
        ),
    ),
    (
        *("CLIP4Clip tightTransf", "B/32", CLIP4CLIP),
        (
            (40.0, 71.5, 13.3, 54.3, 85.3, 6.0),
            (18.9, 37.8, 61.6, 17.4, 36.7, 65.3),
            (25.8, 52.8, 27.3, 21.5, 51.1, 22.4),
            (19.5, 47.6, 17.3, 18.9, 49.6, 16.3),
        ),
    ),
    (
        *("X-CLIP", "B/32", XCLIP),
        (
            (47.1, 77.8, 9.5, 60.9, 87.8, 4.7),
            (23.3, 43.0, 56.0, 22.5, 42.2, 50.7),
            (45.2, 74.0, 14.6, 43.1, 72.2, 10.9),
            (44.3, 74.1, 7.9, 43.9, 73.9, 7.6),
        ),
    ),
    (
        *("CLIP4Clip meanP", "B/16", RUN_AGAIN),
        (
            (47.3, 77.7, 9.1, 62.9, 87.2, 4.2),
            (23.5, 43.2, 54.8, 22.6, 50.5, 50.3),
            (44.8, 75.1, 13.0, 47.2, 74.0, 10.5),
            (44.0, 73.9, 7.0, 44.1, 74.0, 6.5),
        ),
    ),
    (
        *("CLIP4Clip seqLSTM", "B/16", RUN_AGAIN),
        (
            (48.4, 78.0, 9.1, 61.2, 87.6, 5.0),
            (21.9, 39.5, 60.7, 19.3, 39.3, 57.6),
            (44.7, 72.2, 15.5, 43.9, 72.5, 11.8),
            (44.4, 74.9, 6.4, 44.7, 75.1, 6.3),
        ),
    ),
    (
        *("CLIP4Clip seqTransf", "B/16", RUN_AGAIN),
        (
            (47.2, 77.7, 9.1, 63.2, 87.2, 4.2),
            (23.5, 45.2, 51.6, 23.2, 42.4, 47.4),
            (44.8, 73.4, 13.5, 44.7, 74.0, 10.6),
            (44.5, 75.2, 6.4, 44.1, 75.2, 6.4),
        ),
    ),
    (
        *("CLIP4Clip tightTransf", "B/16", RUN_AGAIN),
        (
            (43.6, 75.3, 10.8, 58.8, 88.9, 4.7),
            (19.4, 39.1, 62.2, 16.1, 37.7, 58.3),
            (34.8, 65.8, 20.5, 36.5, 65.5, 13.9),
            (30.8, 64.3, 9.8, 29.6, 62.3, 9.9),
        ),
    ),
    (
        *("X-CLIP", "B/16", XCLIP),
        (
            (50.4, 80.6, 8.4, 66.8, 90.4, 4.2),
            (26.1, 48.4, 46.7, 26.9, 46.2, 41.9),
            (47.8, 79.3, 12.6, 47.8, 76.8, 10.5),
            (46.2, 75.5, 6.8, 46.4, 75.9, 6.4),
        ),
    ),
)


def _rows() -> Iterator[PublishedRow]:
    for model, towers, source, forth, back in _MSRVTT_1KA:
        yield _row("msrvtt-1ka", model, towers, source, forth, back)
    for dataset, forth, back in _CLIP2VIDEO_ALONE:
        yield _row(dataset, "CLIP2Video", "B/32", CLIP2VIDEO, forth, back)
    for model, towers, source, all_four in _ON_FOUR:
        for dataset, figures in zip(_FOUR, all_four, strict=True):
            yield _row(dataset, model, towers, source, figures[:3], figures[3:])


PUBLISHED = tuple(_rows())
