"""`python -m bench`: runs peer and product in turn, prints the ratios, writes them down.

--only TEXT      the cases whose name or peer holds TEXT
--rounds 5       at least so many rounds of each
--seconds 2      of load for each side of a round
--sizes 1,16,64  connections
--out FOLDER     where results.json, results.md and ratios.svg go; nothing is written without
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

from bench import report, stage  # noqa: E402
from bench.cases import CASES, Case  # noqa: E402
from bench.load import Sample  # noqa: E402

PROMISED = 16


def main() -> int:
    """0 when every promise was kept, 1 when one was not."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--sizes", default="16,1,64")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    sizes = [int(size) for size in asked.sizes.split(",")]
    chosen = [case for case in CASES if asked.only in f"{case.name} {case.against}"]
    started = time.monotonic()
    rows: list[report.Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="plan2-bench-") as folder,
        stage.standing(Path(folder)) as standing,
    ):
        for case in chosen:
            if case.prepare is not None:
                case.prepare(standing)
            for size in sizes:
                rows.append(_compared(standing, case, size, asked.rounds, asked.seconds))
                print(report.table(rows[-1:], ()).splitlines()[2], flush=True)
    elapsed = time.monotonic() - started
    print("\n" + report.table(rows, ()))
    print(f"{elapsed:.0f} s in all")
    if asked.out is not None:
        report.write(asked.out, rows, (), elapsed)
    return int(any(row.reached is False for row in rows))


def _compared(
    standing: stage.Stage, case: Case, size: int, rounds: int, seconds: float
) -> report.Row:
    theirs: list[Sample] = []
    ours: list[Sample] = []
    for _ in range(rounds):
        theirs.append(case.peer(standing, size, seconds))
        ours.append(case.product(standing, size, seconds))
    return report.Row(
        name=case.name,
        size=f"{size} connections",
        peer=case.against,
        reach=case.reach if size == PROMISED else None,
        peer_samples=theirs,
        product_samples=ours,
    )


if __name__ == "__main__":
    sys.exit(main())
