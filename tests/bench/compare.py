"""Peer and product in turn, for each size: the rows of the table."""

from collections.abc import Iterator

from bench import load
from bench.cases import Case, Http
from bench.load import Sample
from bench.plan import PROMISED, Effort
from bench.report import Row
from bench.stage import Stage

RATE = 1000
OPEN_CONNECTIONS = 16


def closed(standing: Stage, case: Case, effort: Effort) -> Row:
    """Both sides warmed up, then in turn: what disturbs the machine disturbs both."""
    size, seconds = effort.connections, effort.seconds
    case.peer.warm(standing, size)
    case.product.warm(standing, size)
    theirs: list[Sample] = []
    ours: list[Sample] = []
    for _ in range(effort.rounds):
        theirs.append(case.peer.measure(standing, size, seconds))
        ours.append(case.product.measure(standing, size, seconds))
    promised = size == PROMISED
    return Row(
        name=case.name,
        size=f"{size} connection{'s' if size > 1 else ''}",
        peer=case.against,
        reach=case.reach if promised else None,
        peer_samples=theirs,
        product_samples=ours,
        p99_below=case.p99_below and promised,
    )


def opened(
    standing: Stage, pairs: list[tuple[str, str, Http, Http]], rounds: int, seconds: float
) -> Iterator[Row]:
    """(what, peer, their side, our side) at 1,000 calls a second, compared by CPU a call."""
    for name, against, theirs, ours in pairs:
        samples: tuple[list[Sample], list[Sample]] = ([], [])
        for _ in range(rounds):
            for side, kept in zip((theirs, ours), samples, strict=True):
                pid = getattr(standing, side.server).pid
                kept.append(
                    load.open_loop(
                        side.at(standing),
                        pid,
                        rate=RATE,
                        connections=OPEN_CONNECTIONS,
                        seconds=seconds,
                    )
                )
        yield Row(
            name=name,
            size=f"open loop, {RATE:,}/s",
            peer=against,
            reach=None,
            peer_samples=samples[0],
            product_samples=samples[1],
            by="cpu_us_per_call",
        )
