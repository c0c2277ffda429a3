"""`python -m bench`: runs peer and product in turn, prints the ratios, writes them down.

--only TEXT      the cases whose name or peer holds TEXT; without the figures
--rounds 5       of each side
--seconds 2      of load for each side of a round at 16 connections; 1 at other sizes
--sizes 16,1,64  connections
--out FOLDER     where results.json, results.md and results.svg go; nothing is written without

Exits 0 also when a promise was missed, for the figures are what was asked for; 1 when an answer
was wrong or something did not start.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

from bench import compare, floor, footprint, report, stage, streams  # noqa: E402
from bench.cases import BARE_CHECK, CASES, CHECKED, DAPR_STATE, FEW, FROM_L1, http  # noqa: E402
from bench.load import WrongAnswers  # noqa: E402
from bench.plan import efforts, total  # noqa: E402
from bench.report import Figure, Row  # noqa: E402

OPEN_SECONDS = 4.0
OPEN_MILLICORES = 30.0
OPEN_P99_MS = 1.0
OPENED = [
    ("rate-limit check, leased", "bare aiohttp handler", BARE_CHECK, CHECKED),
    ("cache get from memory", "daprd state get", http("daprd", DAPR_STATE, keys=FEW), FROM_L1),
]


def main() -> int:
    """0 unless the benchmark itself is broken."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--sizes", default="16,1,64")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    started = time.monotonic()
    try:
        rows, figures = _run(asked)
    except (WrongAnswers, stage.Refused, stage.NotStarted) as error:
        print(f"the benchmark ended: {error}", file=sys.stderr)
        return 1
    elapsed = time.monotonic() - started
    print("\n" + report.table(rows, figures))
    print(report.verdict(rows, figures))
    print(f"{elapsed:.0f} s in all")
    if asked.out is not None:
        report.write(asked.out, "results", rows, figures, elapsed)
    return 0


def _run(asked: argparse.Namespace) -> tuple[list[Row], list[Figure]]:
    rows: list[Row] = []
    figures: list[Figure] = []
    with (
        tempfile.TemporaryDirectory(prefix="plan2-bench-") as folder,
        stage.standing(Path(folder)) as standing,
    ):
        if not asked.only:
            figures += footprint.measured(standing)
            print(report.table((), figures), flush=True)
        for row in _compared(standing, asked):
            rows.append(row)
            print(report.line(row), flush=True)
        if not asked.only:
            opened = list(compare.opened(standing, OPENED, asked.rounds, OPEN_SECONDS))
            streamed, memory = streams.measured(standing, asked.rounds)
            rows += [*opened, *streamed]
            lowest = floor.measured(standing, CHECKED, asked.rounds, OPEN_SECONDS)
            figures += [*_open_figures(opened[0]), lowest, *memory]
    return rows, figures


def _compared(standing: stage.Stage, asked: argparse.Namespace) -> Iterator[Row]:
    chosen = [case for case in CASES if asked.only in f"{case.name} {case.against}"]
    sizes = [int(size) for size in asked.sizes.split(",")]
    planned = efforts(sizes, asked.rounds, asked.seconds)
    print(f"comparing takes about {total(planned, len(chosen)):.0f} s", flush=True)
    for case in chosen:
        if case.prepare is not None:
            case.prepare(standing)
        for effort in planned:
            yield compare.closed(standing, case, effort)


def _open_figures(row: Row) -> list[Figure]:
    """The rate-limit check at 1,000 calls a second."""
    millicores = report.middle(row.product_samples, "cpu_us_per_call") * compare.RATE / 1000
    theirs = report.middle(row.peer_samples, "cpu_us_per_call") * compare.RATE / 1000
    return [
        Figure(
            name="CPU at 1,000 rate-limit checks a second",
            value=millicores,
            unit="millicores",
            bound=OPEN_MILLICORES,
            note=f"the bare handler {theirs:.0f}",
        ),
        Figure(
            name="p99 at 1,000 rate-limit checks a second",
            value=report.middle(row.product_samples, "p99_us") / 1000,
            unit="ms",
            bound=OPEN_P99_MS,
            note=f"the bare handler {report.middle(row.peer_samples, 'p99_us') / 1000:.2f}",
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
