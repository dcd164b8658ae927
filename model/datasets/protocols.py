"""The one table of datasets: which files make a split, how it is measured, and how many clips it should have.

A row describes what the papers' own runs do; the sources stand beside the numbers. Not all are equally well known:
they are marked `seen` (counted in the official list files), `reported` (by the named source), `recalled` (from
the literature at large, not checked again). It opens no file.
Sources: CLIP4Clip at revision 508ffa3, X-CLIP at 6b5344f, CLIP2Video at e941318; their papers (arXiv 2104.08860,
2207.07285, 2106.11097); collaborative-experts at 31cf2d2 (split lists that all three use).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from model.datasets.frames import FrameRule
from model.datasets.records import SplitName
from model.families import family_of
from model.types import HeadKind

Format = Literal["caption_pairs", "msrvtt", "msvd", "lsmdc", "didemo", "activitynet", "vatex", "own"]
"""Which of model/datasets/parsers.py reads it. caption_pairs: a CSV of video and sentence, MSR-VTT's 1k-A test."""

Evidence = Literal["seen", "reported", "recalled"]


@dataclass(frozen=True, slots=True)
class Count:
    """How many clips, and captions where that is known, a complete split has; and how we know."""

    clips: int
    captions: int | None
    evidence: Evidence
    source: str


@dataclass(frozen=True, slots=True)
class SplitFiles:
    """The files of a split, below the folder of annotations."""

    format: Format
    captions: tuple[str, ...]
    """Files that may hold the captions; those that exist are read, and the first with a video's captions counts."""
    members: str | None = None
    """The list of the split's videos; None if the captions themselves are the list."""
    members_optional: bool = False
    """Whether, without that file, the captions' own field decides which split a video belongs to."""
    count: Count | None = None
    """What the complete split has."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One protocol."""

    name: str
    title: str
    splits: Mapping[SplitName, SplitFiles]
    num_words: int
    """W of the papers' runs."""
    num_frames: int
    """F of the papers' runs."""
    is_paragraph: bool
    """Whether a clip's captions are joined into one text."""
    is_multi_caption: bool
    """Whether val and test are measured with several captions per video."""
    captions_per_video: str
    """A description for people."""
    bounds: str
    """Which stretch of a video is used, as a description for people."""
    source: str
    """Where the protocol's numbers come from."""
    clip2video_divisor: int = 1
    """CLIP2Video's `feature_framerate`."""
    is_own: bool = False
    """Whether these are the user's own videos."""

    def frame_rule(self, kind: HeadKind) -> FrameRule:
        """The papers' frame choice for a model of this kind; for users' own videos that of the service."""
        if self.is_own:
            return FrameRule("served")
        if family_of(kind).frame_choice == "clip2video":
            return FrameRule("clip2video", divisor=self.clip2video_divisor)
        return FrameRule("clip4clip", frames_per_s=1)


_CLIP2VIDEO = "list files of CLIP2Video, e941318"
_EXPERTS = "collaborative-experts, 31cf2d2, misc/datasets"
_HYBRID = "danieljf24/hybrid_space, dataset/README.md"
_LSMDC_README = "LSMDC 2016 readme, quoted in CLIP4Clip issue 47"

_MSRVTT_JSON = ("MSRVTT_data.json", "train_val_videodatainfo.json", "test_videodatainfo.json")
_MSRVTT_TEST = SplitFiles(
    "caption_pairs", ("MSRVTT_JSFUSION_test.csv",), count=Count(1_000, 1_000, "seen", _CLIP2VIDEO)
)
_ACTIVITYNET_VAL = SplitFiles(
    "activitynet",
    ("val_1.json",),
    "val_ids.json",
    count=Count(4_917, 4_917, "reported", f"{_EXPERTS}/activity-net/README.md"),
)


def _msrvtt(members: str, count: Count, members_optional: bool = False) -> SplitFiles:
    return SplitFiles("msrvtt", _MSRVTT_JSON, members, members_optional, count)


def _didemo(split: SplitName, count: Count) -> SplitFiles:
    return SplitFiles("didemo", (f"{split}_data.json",), f"{split}_list.txt", count=count)


def _msrvtt_1ka(name: str, title: str, train_list: str, train: Count) -> Dataset:
    return Dataset(
        name=name,
        title=title,
        splits={"train": _msrvtt(train_list, train), "val": _MSRVTT_TEST, "test": _MSRVTT_TEST},
        num_words=32,
        num_frames=12,
        is_paragraph=False,
        is_multi_caption=False,
        captions_per_video="20 in training, each a pair of its own; 1 in the test",
        bounds="the whole file",
        source="JSFusion's 1k-A test; CLIP4Clip README; X-CLIP scripts. val is the test: both choose their epoch on it",
        clip2video_divisor=2,
    )


def _by_lists(
    format: Format, captions: tuple[str, ...], counts: Mapping[SplitName, Count], test_list: str = "test_list.txt"
) -> dict[SplitName, SplitFiles]:
    lists: dict[SplitName, str] = {"train": "train_list.txt", "val": "val_list.txt", "test": test_list}
    return {name: SplitFiles(format, captions, lists[name], count=counts[name]) for name in counts}


def _vatex(name: str, title: str, test_list: str, source: str, test: Count) -> Dataset:
    captions = (
        "vatex_data.json",
        "ref_captions.json",
        "vatex_training_v1.0.json",
        "vatex_validation_v1.0.json",
        "vatex_public_test_english_v1.1.json",
    )
    counts: dict[SplitName, Count] = {
        "train": Count(25_991, 259_910, "seen", f"{_CLIP2VIDEO}; captions: {_HYBRID}"),
        "val": Count(1_500, 15_000, "seen", f"{_CLIP2VIDEO}; captions: {_HYBRID}"),
        "test": test,
    }
    return Dataset(
        name=name,
        title=title,
        splits=_by_lists("vatex", captions, counts, test_list),
        num_words=32,
        num_frames=12,
        is_paragraph=False,
        is_multi_caption=True,
        captions_per_video="10 English ones",
        bounds="the whole file, a 10 s clip",
        source=source,
        clip2video_divisor=1,
    )


_OWN: dict[SplitName, SplitFiles] = {
    "train": SplitFiles("own", ("train.jsonl", "train.csv")),
    "val": SplitFiles("own", ("val.jsonl", "val.csv")),
    "test": SplitFiles("own", ("test.jsonl", "test.csv", "captions.jsonl", "captions.csv")),
}

_ROWS = (
    _msrvtt_1ka(
        "msrvtt-1ka",
        "MSR-VTT 1k-A, trained on 9,000 videos",
        "MSRVTT_train.9k.csv",
        Count(9_000, 180_000, "seen", _CLIP2VIDEO),
    ),
    _msrvtt_1ka(
        "msrvtt-1ka-7k",
        "MSR-VTT 1k-A, trained on 7,010 videos",
        "MSRVTT_train.7k.csv",
        Count(7_010, 140_200, "seen", f"{_CLIP2VIDEO}; captions: {_HYBRID}"),
    ),
    Dataset(
        name="msrvtt-full",
        title="MSR-VTT, the official split",
        splits={
            "train": _msrvtt("MSRVTT_train.full.csv", Count(6_513, 130_260, "seen", f"{_CLIP2VIDEO}; {_HYBRID}"), True),
            "val": _msrvtt("MSRVTT_val.full.csv", Count(497, 9_940, "seen", f"{_CLIP2VIDEO}; {_HYBRID}"), True),
            "test": _msrvtt("MSRVTT_test.full.csv", Count(2_990, 59_800, "seen", f"{_CLIP2VIDEO}; {_HYBRID}"), True),
        },
        num_words=32,
        num_frames=12,
        is_paragraph=False,
        is_multi_caption=True,
        captions_per_video="20",
        bounds="the whole file",
        source="the split of MSR-VTT's authors; CLIP2Video, test/MSRVTTfull_TAB_TDB.sh",
        clip2video_divisor=2,
    ),
    Dataset(
        name="msvd",
        title="MSVD",
        splits=_by_lists(
            "msvd",
            ("raw-captions.pkl", "captions_msvd.json", "raw-captions.json"),
            {
                "train": Count(1_200, None, "seen", f"{_CLIP2VIDEO}; {_EXPERTS}"),
                "val": Count(100, None, "seen", f"{_CLIP2VIDEO}; {_EXPERTS}"),
                "test": Count(670, 27_763, "recalled", f"videos seen: {_CLIP2VIDEO}; {_EXPERTS}; captions recalled"),
            },
        ),
        num_words=32,
        num_frames=12,
        is_paragraph=False,
        is_multi_caption=True,
        captions_per_video="about 40, from few to 81",
        bounds="the whole file",
        source="CLIP4Clip README; X-CLIP scripts; CLIP2Video, test/msvd_TAB_TDB.sh",
        clip2video_divisor=1,
    ),
    Dataset(
        name="lsmdc",
        title="LSMDC 2016",
        splits={
            "train": SplitFiles(
                "lsmdc", ("LSMDC16_annos_training.csv",), count=Count(101_079, None, "reported", _LSMDC_README)
            ),
            "val": SplitFiles(
                "lsmdc", ("LSMDC16_annos_val.csv",), count=Count(7_408, 7_408, "reported", _LSMDC_README)
            ),
            "test": SplitFiles(
                "lsmdc",
                ("LSMDC16_challenge_1000_publictect.csv",),
                count=Count(1_000, 1_000, "reported", f"{_EXPERTS}/lsmdc/README.md"),
            ),
        },
        num_words=32,
        num_frames=12,
        is_paragraph=False,
        is_multi_caption=False,
        captions_per_video="1; a clip that has more comes once with each",
        bounds="the whole file, cut already",
        source="CLIP4Clip README and dataloader_lsmdc_retrieval.py; X-CLIP scripts",
    ),
    Dataset(
        name="didemo",
        title="DiDeMo, whole paragraphs",
        splits={
            "train": _didemo("train", Count(8_392, 8_392, "reported", f"{_EXPERTS}/didemo; DiDeMo itself has 8,395")),
            "val": _didemo("val", Count(1_065, 1_065, "reported", f"{_EXPERTS}/didemo/README.md")),
            "test": _didemo("test", Count(1_004, 1_004, "reported", f"{_EXPERTS}/didemo/README.md")),
        },
        num_words=64,
        num_frames=64,
        is_paragraph=True,
        is_multi_caption=False,
        captions_per_video="all of a video's sentences as one paragraph",
        bounds="seconds 0 to 31",
        source="CLIP4Clip README and dataloader_didemo_retrieval.py; X-CLIP scripts",
    ),
    Dataset(
        name="activitynet",
        title="ActivityNet Captions, whole paragraphs",
        splits={
            "train": SplitFiles(
                "activitynet",
                ("train.json",),
                "train_ids.json",
                count=Count(10_009, 10_009, "reported", f"{_EXPERTS}/activity-net/README.md"),
            ),
            "val": _ACTIVITYNET_VAL,
            "test": _ACTIVITYNET_VAL,
        },
        num_words=64,
        num_frames=64,
        is_paragraph=True,
        is_multi_caption=False,
        captions_per_video="all of a video's sentences as one paragraph",
        bounds="second 0 to the annotated duration, rounded up",
        source="CLIP4Clip README and dataloader_activitynet_retrieval.py; X-CLIP scripts. val_1 is val and test",
    ),
    _vatex(
        "vatex",
        "VATEX in English, HGR's split",
        "test_list.txt",
        "HGR (arXiv 2003.00392); CLIP2Video README and test/vatex_TAB_TDB.sh",
        Count(1_500, 15_000, "seen", f"{_CLIP2VIDEO}; captions: {_HYBRID}"),
    ),
    _vatex(
        "vatex-1k5",
        "VATEX in English, CLIP2Video's random 1,500",
        "test1k5_sec_list.txt",
        "the split of the CLIP2Video paper's table; CLIP2Video README",
        Count(1_500, 15_000, "seen", f"{_CLIP2VIDEO}; captions: 10 a video"),
    ),
    Dataset(
        name="folder",
        title="your own videos and sentences",
        splits=_OWN,
        num_words=32,
        num_frames=12,
        is_paragraph=False,
        is_multi_caption=True,
        captions_per_video="one or more",
        bounds="as each entry gives them; else the whole file",
        source="docs/datasets.md, your own data",
        is_own=True,
    ),
)

DATASETS: Mapping[str, Dataset] = {row.name: row for row in _ROWS}
