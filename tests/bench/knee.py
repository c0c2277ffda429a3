"""Where a curve of throughput bends: the smallest size that gives nearly all there is to have."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

ENOUGH = 0.95  # of the best throughput
HOLDS = 0.90  # so much of the best at the default size, and the default stands
LATENCY_SLACK = 1.5


@dataclass(frozen=True, kw_only=True)
class Point:
    """Calls a second that were served and the 99th percentile (microseconds) at one size;
    `refused` where calls were turned away instead."""

    size: int
    calls_per_second: float
    p99_us: float
    refused: bool = False


@dataclass(frozen=True, kw_only=True)
class Knee:
    """`size` is where the curve bends. `at_edge`: that is the largest size measured, and the bend
    may lie beyond. `overloaded`: every size turned calls away, so the engine is the limit."""

    size: int
    best: float
    p99_us: float
    at_edge: bool
    overloaded: bool = False


def find(points: Sequence[Point]) -> Knee | None:
    """The smallest size with ENOUGH of the best throughput; None of no points.

    Sizes that turned calls away are candidates only where all did.
    """
    ordered = sorted(points, key=lambda point: point.size)
    served = [point for point in ordered if not point.refused]
    candidates = served or ordered
    if not candidates:
        return None
    best = max(point.calls_per_second for point in candidates)
    chosen = next(each for each in candidates if each.calls_per_second >= ENOUGH * best)
    return Knee(
        size=chosen.size,
        best=best,
        p99_us=chosen.p99_us,
        at_edge=chosen is ordered[-1] and len(ordered) > 1,
        overloaded=not served,
    )


def middle(rounds: Sequence[Point]) -> Point:
    """One size measured several times: the median of each figure."""
    refused = sum(point.refused for point in rounds)
    return Point(
        size=rounds[0].size,
        calls_per_second=median(point.calls_per_second for point in rounds),
        p99_us=median(point.p99_us for point in rounds),
        refused=refused * 2 > len(rounds),
    )


def holds(points: Sequence[Point], default: int) -> bool:
    """Whether the default size gives nearly the best, without a much longer tail.

    Judged at the largest size measured that is not above the default.
    """
    knee = find(points)
    if knee is None:
        return False
    below = [point for point in points if point.size <= default]
    if not below:
        return False
    at = max(below, key=lambda point: point.size)
    return (
        (knee.overloaded or not at.refused)
        and at.calls_per_second >= HOLDS * knee.best
        and at.p99_us <= LATENCY_SLACK * max(knee.p99_us, _p99_of_best(points))
    )


def _p99_of_best(points: Sequence[Point]) -> float:
    served = [point for point in points if not point.refused]
    return max(served or points, key=lambda point: point.calls_per_second).p99_us


def drawn(points: Sequence[Point], knee: Knee | None, default: int | None = None) -> str:
    """The curve, a line a size."""
    most = max((point.calls_per_second for point in points), default=1.0) or 1.0
    lines = []
    for point in sorted(points, key=lambda p: p.size):
        bar = "#" * round(40 * point.calls_per_second / most)
        marks = [
            name
            for name, told in (
                ("knee", knee is not None and point.size == knee.size),
                ("default", point.size == default),
                ("turned calls away", point.refused),
            )
            if told
        ]
        said = f"  <- {', '.join(marks)}" if marks else ""
        figures = f"{point.calls_per_second:>9,.0f}/s  p99 {point.p99_us / 1000:>8.2f} ms"
        lines.append(f"{point.size:>6}  {figures}  {bar}{said}")
    return "\n".join(lines)
