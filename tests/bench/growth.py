"""`python -m bench.growth`: how cost grows with distinct clients, sessions and keys, and payloads.

--only TEXT     the lines whose name holds TEXT
--rounds 3      of peer and product in turn, a second each, at 16 connections
--counts 1,10,100,1000,10000
--payloads 100,10000,1000000
--out FOLDER    where growth.json, growth.md and growth.svg go

The operator's growth is `bench.operator_growth`, on a control plane of its own.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

from bench import calls, cases, compare, report, stage  # noqa: E402
from bench.cases import Case, http  # noqa: E402
from bench.load import WrongAnswers  # noqa: E402
from bench.plan import PROMISED, Effort  # noqa: E402
from bench.report import Row  # noqa: E402
from bench.stage import Stage  # noqa: E402

FEW = 10  # keys, where the payload grows


def counted(count: int) -> list[Case]:
    """The calls a service makes for each request, for so many distinct ones."""
    each = [
        (
            "clients, rate-limit check",
            "bare aiohttp handler",
            http("bare", "/check", method="POST", body=cases.CHECK, keys=count),
            http("sidecar", cases.RATE_LIMIT, method="POST", body=cases.CHECK, keys=count),
        ),
        (
            "sessions, get",
            "daprd state get",
            http("daprd", f"{cases.DAPR_STORE}/grown-%d", keys=count),
            http("sidecar", "/api/v2/sessions/grown-%d", keys=count),
        ),
        (
            "keys, cache get",
            "daprd state get",
            http("daprd", f"{cases.DAPR_STORE}/grown-%d", keys=count),
            http("sidecar", "/api/v2/cache/grown-%d", keys=count),
        ),
        (
            "rows, PostgreSQL by primary key",
            "daprd bindings.postgresql",
            http("daprd", "/v1.0/bindings/sql", method="POST", body=cases.BINDING, keys=count),
            cases.queried(
                "sidecar", calls.query(cases.PRIMARY_KEY, "postgresql", ["%d"]), keys=count
            ),
        ),
    ]
    return [
        Case(name=f"{count:,} {name}", against=against, peer=peer, product=product, reach=None)
        for name, against, peer, product in each
    ]


def sized(payload: int) -> list[Case]:
    """Values of so many bytes, put and read."""
    text = "x" * payload
    saved = json.dumps([{"key": f"sized-{payload}-%d", "value": text}])
    of_dapr = f"{cases.DAPR_STORE}/sized-{payload}-%d"
    of_ours = f"/api/v2/cache/sized-{payload}-%d"
    each = [
        (
            "cache put",
            "daprd state save",
            http("daprd", cases.DAPR_STORE, method="POST", body=saved, keys=FEW, status=204),
            http(
                "sidecar",
                of_ours,
                method="PUT",
                body=json.dumps({"value": text}),
                keys=FEW,
                status=204,
            ),
        ),
        (
            "cache get",
            "daprd state get",
            http("daprd", of_dapr, keys=FEW),
            http("sidecar", of_ours, keys=FEW),
        ),
        (
            "cache get, the store asked each time",
            "daprd state get",
            http("daprd", of_dapr, keys=FEW),
            http("uncached", of_ours, keys=FEW),
        ),
    ]
    return [
        Case(name=f"{name}, {payload:,} B", against=against, peer=peer, product=product, reach=None)
        for name, against, peer, product in each
    ]


def fill(standing: Stage, most: int) -> None:
    """The values of all the keys, on both sides."""
    cases.save_in_dapr(standing, "grown-%d", most)
    for key in range(1, most + 1):
        for path, name in (("cache", "value"), ("sessions", "data")):
            body = {name: cases.VALUE, "ttl": 3600}
            stage.ask(standing.sidecar.port, "PUT", f"/api/v2/{path}/grown-{key}", body)


def measured(
    standing: Stage, counts: list[int], payloads: list[int], only: str, rounds: int
) -> Iterator[Row]:
    """Grouped by what is called, so that a table reads as a curve."""
    lines = [counted(count) for count in counts]
    chosen = [case for kind in zip(*lines, strict=True) for case in kind]
    lines = [sized(payload) for payload in payloads]
    chosen += [case for kind in zip(*lines, strict=True) for case in kind]
    effort = Effort(connections=PROMISED, rounds=rounds, seconds=1)
    for case in chosen:
        if only in case.name:
            yield compare.closed(standing, case, effort)


def main() -> int:
    """0 unless the benchmark itself is broken."""
    parser = argparse.ArgumentParser(prog="bench.growth")
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--counts", default="1,10,100,1000,10000")
    parser.add_argument("--payloads", default="100,10000,1000000")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    counts = [int(count) for count in asked.counts.split(",")]
    payloads = [int(payload) for payload in asked.payloads.split(",")]
    started = time.monotonic()
    rows: list[Row] = []
    try:
        with (
            tempfile.TemporaryDirectory(prefix="plan2-bench-") as folder,
            stage.standing(Path(folder)) as standing,
        ):
            fill(standing, max(counts))
            for row in measured(standing, counts, payloads, asked.only, asked.rounds):
                rows.append(row)
                print(report.line(row), flush=True)
    except (WrongAnswers, stage.Refused, stage.NotStarted) as error:
        print(f"the benchmark ended: {error}", file=sys.stderr)
        return 1
    elapsed = time.monotonic() - started
    print("\n" + report.table(rows, ()))
    print(f"{elapsed:.0f} s in all")
    if asked.out is not None:
        report.write(asked.out, "growth", rows, (), elapsed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
