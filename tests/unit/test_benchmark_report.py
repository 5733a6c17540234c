"""What benchmarks tell, judged and put on a page: no benchmark is run here."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from benchmarks.figures import Beside, Figure, durations
from benchmarks.report.collect import Report, sections
from benchmarks.report.page import page
from benchmarks.report.plot import picture, scales
from dsfast.bench.figures import machine

STATS = {"median": 0.002, "min": 0.001, "max": 0.004, "rounds": 3}


def told(name: str, **info: Any) -> dict[str, Any]:
    return {"name": name, "fullname": f"benchmarks/bench_queue.py::{name}", "extra_info": info, "stats": STATS}


def report_of(*benchmarks: dict[str, Any]) -> Report:
    return Report(1, "now", 1.0, False, "commit 0", machine(), 0.5, {}, [], sections(list(benchmarks)))


def test_a_target_is_met_by_less_or_by_more_as_the_unit_has_it() -> None:
    assert Figure(what="hop", value=0.4, unit="ms", target=0.5).met
    assert not Figure(what="hop", value=0.6, unit="ms", target=0.5).met
    assert Figure(what="tasks", value=600, unit="per s", target=500).met
    assert not Figure(what="used", value=96, unit="%", target=97).met
    assert Figure(what="hop", value=0.4, unit="ms").met is None


def test_how_far_from_its_floor_a_figure_is_does_not_depend_on_the_unit() -> None:
    assert Figure(what="hop", value=0.6, unit="ms", floor=Beside(0.2, "commit")).times_floor == 0.6 / 0.2
    assert Figure(what="tasks", value=200, unit="per s", floor=Beside(600, "spawn")).times_floor == 600 / 200


def test_durations_keep_their_tail() -> None:
    figure = durations("hop", [n / 1000 for n in range(1, 101)])
    assert (figure.least, figure.p95, figure.p99, figure.most, figure.count) == (1, 96, 100, 100, 100)
    assert figure.value == 50.5


def test_every_way_in_which_benchmarks_tell_becomes_a_figure() -> None:
    figure = Figure(what="hop", value=0.4, unit="ms", target=0.5)
    (section,) = sections(
        [
            told("test_hop", figures=[msgspec.to_builtins(figure)]),
            told("test_push", ns_per_operation=100.0, ns_per_operation_heapq=400.0, times_faster_than_heapq=4.0),
            told("test_beside", hops={"dsfast": 0.01, "baseline": 3.0, "unit": "s", "ratio": "300 times"}),
            told("test_noted", peak_bytes=841.0),
        ]
    )
    hop, push, beside, noted = section.figures
    assert hop == figure
    assert (push.what, push.value, push.unit, push.rival) == ("push", 100.0, "ns", Beside(400.0, "heapq"))
    assert (beside.value, beside.rival) == (0.01, Beside(3.0, "the polling design"))
    assert (noted.value, noted.unit, noted.least, noted.most) == (2.0, "ms", 1.0, 4.0)
    assert section.notes == {"noted": {"peak bytes": 841.0}}
    assert section.question.startswith("What does one task cost in a ready queue?")


def test_the_page_stands_by_itself_and_says_what_was_missed() -> None:
    missed = Figure(what="<hop>", value=1.0, unit="ms", target=0.5, durable="SQLite, synchronous=FULL")
    text = page(report_of(told("test_hop", figures=[msgspec.to_builtins(missed)])))
    assert "Targets: 0 of 1 met" in text
    assert "&lt;hop&gt;" in text
    assert "<hop>" not in text
    assert "every commit with fsync" in text
    assert not re.search(r"<script|<link|src=|href=|https?://|url\(|@import", text)


def test_what_has_no_place_on_a_scale_is_not_drawn() -> None:
    none = Figure(what="sql", value=0.0, unit="per min", target=0.0)
    some = Figure(what="hop", value=3.0, unit="ms", least=1.0, most=9.0, floor=Beside(0.5, "commit"), target=2.0)
    found = scales([none, some])
    assert picture(none, found.get("per min")) == ""
    drawn = picture(some, found["ms"])
    places = [float(x) for x in re.findall(r'(?:cx|x1|x2)="([\d.]+)"', drawn)]
    assert all(0 <= x <= 300 for x in places)
    assert 'class="value missed"' in drawn
