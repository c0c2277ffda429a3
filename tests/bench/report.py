"""What a run of the benchmarks says: a table for the terminal and the page, JSON, a chart."""

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

from bench.load import Sample


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison at one size. Samples stand in the order of the rounds, peer and product.

    `by` is the member of the samples that is compared; the ratio says how many times better we
    are, so for one of which less is better it is peer against product.
    """

    name: str
    size: str
    peer: str
    reach: float | None
    peer_samples: Sequence[Sample]
    product_samples: Sequence[Sample]
    by: str = "calls_per_second"
    p99_below: bool = False

    @property
    def ratio(self) -> float:
        """The median of the rounds' own ratios."""
        pairs = [
            (getattr(ours, self.by), getattr(theirs, self.by))
            for theirs, ours in zip(self.peer_samples, self.product_samples, strict=True)
        ]
        if self.by in LESS_IS_BETTER:
            pairs = [(theirs, ours) for ours, theirs in pairs]
        return median(above / max(below, 1e-9) for above, below in pairs)

    @property
    def reached(self) -> bool | None:
        """None where nothing was promised for this size."""
        if self.reach is None:
            return None
        theirs, ours = (
            median(sample.p99_us for sample in samples)
            for samples in (self.peer_samples, self.product_samples)
        )
        served = middle(self.product_samples, "refused") <= FEW_REFUSED
        return served and self.ratio >= self.reach and not (self.p99_below and ours >= theirs)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number with its upper bound: memory, CPU seconds, a latency."""

    name: str
    value: float
    unit: str
    bound: float | None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        # Clock ticks in floating point: what is as much as the bound is a trillionth above it.
        return None if self.bound is None else round(self.value, 6) <= self.bound


FEW_REFUSED = 0.01
LESS_IS_BETTER = frozenset({"p50_us", "p99_us", "cpu_us_per_call", "memory_mb"})
HEAD = ("what", "size", "peer", "ratio", "reach", "calls/s", "p50 us", "p99 us", "CPU us", "MB")


def table(rows: Sequence[Row], figures: Sequence[Figure]) -> str:
    """Markdown; in each cell peer first, then ours."""
    lines = []
    if rows:
        lines += ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
        lines += [line(row) for row in rows]
    if figures:
        lines += ["", "| figure | value | bound | |", "|---|---|---|---|"]
        for figure in figures:
            bound = "" if figure.bound is None else f"{figure.bound:g} {figure.unit}"
            mark = _mark(figure.reached)
            value = f"{figure.value:.4g} {figure.unit}"
            lines.append(f"| {figure.name} | {value} | {bound}{mark} | {figure.note} |")
    return "\n".join(lines) + "\n"


def middle(samples: Sequence[Sample], name: str) -> float:
    """The median of one member of the samples."""
    return median(getattr(sample, name) for sample in samples)


def line(row: Row) -> str:
    """A row of the table."""
    return "| " + " | ".join(_cells(row)) + " |"


def verdict(rows: Sequence[Row], figures: Sequence[Figure]) -> str:
    """Which promises were kept and which were not, a line each."""
    lines = []
    for row in rows:
        if row.reached is not None:
            also = ", p99 below" if row.p99_below else ""
            what = f"{row.name}, {row.size}, against {row.peer}: {row.ratio:.2f}x"
            lines.append((row.reached, f"{what} (at least {row.reach:g}x{also})"))
    for figure in figures:
        if figure.reached is not None:
            value = f"{figure.name}: {figure.value:.4g} {figure.unit}"
            lines.append((figure.reached, f"{value} (at most {figure.bound:g} {figure.unit})"))
    kept = sum(reached for reached, _ in lines)
    said = [f"{'reached' if reached else 'MISSED ':8} {text}" for reached, text in lines]
    return "\n".join([*said, f"{kept} of {len(lines)} reached"]) + "\n"


def _cells(row: Row) -> list[str]:
    def pair(name: str, form: str = "{:,.0f}") -> str:
        return " → ".join(
            form.format(median(getattr(sample, name) for sample in samples))
            for samples in (row.peer_samples, row.product_samples)
        )

    reach = "" if row.reach is None else f"{row.reach:g}x{_mark(row.reached)}"
    streamed = row.by == "bytes_per_second"
    return [
        row.name,
        row.size,
        row.peer,
        f"{row.ratio:.2f}x" + (" by CPU" if row.by == "cpu_us_per_call" else ""),
        reach,
        _megabytes(row) if streamed else pair("calls_per_second") + _refused(row),
        pair("p50_us"),
        pair("p99_us"),
        pair("cpu_us_per_call", "{:.1f}"),
        pair("memory_mb", "{:.0f}"),
    ]


def _refused(row: Row) -> str:
    said = [
        f"{who} turned away {middle(samples, 'refused'):.2%}"
        for who, samples in (("peer", row.peer_samples), ("Plan2", row.product_samples))
        if middle(samples, "refused")
    ]
    return f" ({', '.join(said)})" if said else ""


def _megabytes(row: Row) -> str:
    return " → ".join(
        f"{median(sample.bytes_per_second for sample in samples) / 1e6:,.0f} MB/s"
        for samples in (row.peer_samples, row.product_samples)
    )


def _mark(reached: bool | None) -> str:
    return "" if reached is None else " yes" if reached else " NO"


def document(rows: Sequence[Row], figures: Sequence[Figure], seconds: float) -> dict[str, Any]:
    """The whole run, every sample in it."""
    return {
        "machine": {"cpu": _cpu(), "cores": _cores(), "kernel": platform.release()},
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(seconds, 1),
        "rows": [
            {
                "name": row.name,
                "size": row.size,
                "peer": row.peer,
                "ratio": round(row.ratio, 3),
                "reach": row.reach,
                "reached": row.reached,
                "by": row.by,
                "peerSamples": [asdict(sample) for sample in row.peer_samples],
                "productSamples": [asdict(sample) for sample in row.product_samples],
            }
            for row in rows
        ],
        "figures": [asdict(figure) | {"reached": figure.reached} for figure in figures],
    }


def write(
    folder: Path,
    name: str,
    rows: Sequence[Row],
    figures: Sequence[Figure],
    seconds: float,
) -> None:
    """`<name>.json`, `<name>.md` and `<name>.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    said = document(rows, figures, seconds)
    (folder / f"{name}.json").write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")
    machine = said["machine"]
    head = (
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python "
        f"{said['python']}, {said['date']}, {seconds:.0f} s in all. In each cell the peer first, "
        "then Plan2; medians of the rounds.\n\n"
    )
    (folder / f"{name}.md").write_text(head + table(rows, figures))
    (folder / f"{name}.svg").write_text(chart(rows))


def chart(rows: Sequence[Row]) -> str:
    """One bar a row, its length the ratio; a tick where the reach is, a line at the peer's 1."""
    width, left, bar, gap = 900, 420, 16, 8
    most = max([1.5, *(max(row.ratio, row.reach or 0) for row in rows)])
    scale = (width - left - 80) / most
    height = len(rows) * (bar + gap) + 50
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="10" y="20" font-weight="bold">Plan2 against each peer, same run '
        "(1 = the peer)</text>",
    ]
    for number, row in enumerate(rows):
        y = 36 + number * (bar + gap)
        colour = "#b33" if row.reached is False else "#2a7"
        label = escape(f"{row.name} · {row.size} · {row.peer}")
        out.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{label}</text>')
        out.append(
            f'<rect x="{left}" y="{y}" width="{row.ratio * scale:.1f}" height="{bar}" '
            f'fill="{colour}"/>'
        )
        x = left + row.ratio * scale + 5
        out.append(f'<text x="{x:.1f}" y="{y + 12}">{row.ratio:.2f}</text>')
        if row.reach is not None:
            x = left + row.reach * scale
            out.append(
                f'<path d="M{x:.1f} {y - 3}V{y + bar + 3}" stroke="black" stroke-width="2"/>'
            )
    x = left + scale
    out.append(f'<path d="M{x:.1f} 30V{height - 8}" stroke="#888" stroke-dasharray="4 3"/>')
    return "\n".join([*out, "</svg>"]) + "\n"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _cores() -> int:
    return sum(
        line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines()
    )
