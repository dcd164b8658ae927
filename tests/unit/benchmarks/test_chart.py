"""The picture of a benchmark: well-formed, every line in it, names that don't overlap."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from benchmarks.chart import log_chart


def test_every_line_is_drawn_and_named_apart_from_the_others() -> None:
    lines = {"one & two": [(1e3, 2.0), (1e5, 30.0)], "three": [(1e3, 2.0), (1e5, 30.1)], "four": [(1e3, 900.0)]}
    text = log_chart("time < size", "segments", "ms", lines)
    root = ElementTree.fromstring(text)
    assert (
        root.tag.endswith("svg") and len(re.findall("<polyline", text)) == 3 and len(re.findall("<circle", text)) == 5
    )
    named = {e.text: float(e.attrib["y"]) for e in root.iter() if e.text in lines}
    assert named.keys() == lines.keys()
    assert abs(named["one & two"] - named["three"]) >= 14
