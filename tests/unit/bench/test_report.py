"""What a run says: ratios, promises, the table, the chart."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench import report
from bench.load import Sample
from bench.report import Figure, Row


def sample(calls: float, p99: float = 1000.0, **changed: float) -> Sample:
    told = {"p50_us": p99 / 2, "p99_us": p99, "cpu_us_per_call": 20.0, "memory_mb": 40.0}
    return Sample(calls_per_second=calls, **(told | changed))


def row(theirs: list[Sample], ours: list[Sample], **changed: object) -> Row:
    told = {"name": "get", "size": "16 connections", "peer": "a <peer>", "reach": 3.0}
    return Row(**(told | changed), peer_samples=theirs, product_samples=ours)  # type: ignore[arg-type]  # one of several types


def test_the_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    # The machine was half as fast in the second round, for both.
    made = row([sample(100), sample(50), sample(100)], [sample(300), sample(150), sample(900)])
    assert made.ratio == 3.0
    assert made.reached is True


def test_where_less_is_better_the_peer_stands_above() -> None:
    theirs, ours = sample(1, cpu_us_per_call=40.0), sample(1, cpu_us_per_call=10.0)
    assert row([theirs], [ours], by="cpu_us_per_call").ratio == 4.0


def test_a_longer_tail_misses_a_promise_that_speaks_of_it() -> None:
    theirs, ours = [sample(100, p99=1000)], [sample(400, p99=1000)]
    assert row(theirs, ours).reached is True
    assert row(theirs, ours, p99_below=True).reached is False
    assert row(theirs, [sample(400, p99=999)], p99_below=True).reached is True


def test_a_promise_is_missed_where_calls_were_turned_away() -> None:
    theirs = [sample(100)]
    assert row(theirs, [sample(400, refused=0.01)]).reached is True
    turned_away = row(theirs, [sample(400, refused=0.02)])
    assert turned_away.reached is False
    assert "(Plan2 turned away 2.00%)" in report.line(turned_away)


def test_nothing_is_reached_or_missed_where_nothing_was_promised() -> None:
    assert row([sample(1)], [sample(1)], reach=None).reached is None
    assert Figure(name="x", value=9.0, unit="MB", bound=None).reached is None


def test_a_figure_may_be_as_much_as_its_bound() -> None:
    assert Figure(name="x", value=45.0, unit="MB", bound=45.0).reached is True
    assert Figure(name="x", value=45.1, unit="MB", bound=45.0).reached is False
    # Twelve ticks in four seconds.
    millicores = (7.13 - 7.01) / 4 * 1000
    assert millicores > 30
    assert Figure(name="x", value=millicores, unit="millicores", bound=30.0).reached is True


def test_the_verdict_counts_what_was_kept() -> None:
    rows = [row([sample(100)], [sample(290)]), row([sample(1)], [sample(9)], reach=None)]
    figures = [Figure(name="memory", value=40.0, unit="MB", bound=45.0)]
    said = report.verdict(rows, figures).splitlines()
    assert said == [
        "MISSED   get, 16 connections, against a <peer>: 2.90x (at least 3x)",
        "reached  memory: 40 MB (at most 45 MB)",
        "1 of 2 reached",
    ]


def test_each_row_of_the_table_has_as_many_cells_as_its_head() -> None:
    rows = [
        row([sample(100)], [sample(300)]),
        row(
            [sample(1, bytes_per_second=5e6)],
            [sample(1, bytes_per_second=4e6)],
            by="bytes_per_second",
        ),
    ]
    lines = report.table(rows, ()).splitlines()
    assert {line.count("|") for line in lines} == {len(report.HEAD) + 1}
    assert "5 MB/s → 4 MB/s" in lines[-1]
    assert "0.80x" in lines[-1]


def test_a_run_is_written_as_json_a_page_and_a_chart(tmp_path: Path) -> None:
    rows = [row([sample(100)], [sample(300)])]
    figures = [Figure(name="memory", value=50.0, unit="MB", bound=45.0)]
    report.write(tmp_path / "new", "results", rows, figures, 12.0)

    said = json.loads((tmp_path / "new/results.json").read_text())
    assert said["rows"][0]["ratio"] == 3.0
    assert said["rows"][0]["productSamples"][0]["calls_per_second"] == 300
    assert said["figures"][0]["reached"] is False
    assert "50 MB | 45 MB NO" in (tmp_path / "new/results.md").read_text()
    chart = ET.parse(tmp_path / "new/results.svg")
    assert "get · 16 connections · a <peer>" in [text.text for text in chart.iter()]


@pytest.mark.parametrize("name", ["calls_per_second", "p99_us"])
def test_the_middle_is_the_median(name: str) -> None:
    assert report.middle([sample(5, p99=5), sample(1, p99=1), sample(4, p99=4)], name) == 4
