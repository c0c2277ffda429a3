"""What a run of the benchmarks says: a table for the terminal and the page, JSON, a chart."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

from bench.load import Sample


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison at one size. Samples stand in the order of the rounds, peer and product."""

    name: str
    size: str
    peer: str
    reach: float | None
    peer_samples: Sequence[Sample]
    product_samples: Sequence[Sample]
    by: str = "calls_per_second"

    @property
    def ratio(self) -> float:
        """Product against peer: the median of the rounds' own ratios."""
        pairs = zip(self.peer_samples, self.product_samples, strict=True)
        return median(getattr(ours, self.by) / getattr(theirs, self.by) for theirs, ours in pairs)

    @property
    def reached(self) -> bool | None:
        """None where nothing was promised for this size."""
        return None if self.reach is None else self.ratio >= self.reach


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number with its bound: memory, CPU seconds, a latency."""

    name: str
    value: float
    unit: str
    bound: float | None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        return None if self.bound is None else self.value <= self.bound


HEAD = ("what", "size", "peer", "ratio", "reach", "calls/s", "p50 us", "p99 us", "CPU us", "MB")


def table(rows: Sequence[Row], figures: Sequence[Figure]) -> str:
    """Markdown; in each cell peer first, then ours."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    if figures:
        lines += ["", "| figure | value | bound | |", "|---|---|---|---|"]
        for figure in figures:
            bound = "" if figure.bound is None else f"{figure.bound:g} {figure.unit}"
            mark = _mark(figure.reached)
            value = f"{figure.value:.4g} {figure.unit}"
            lines.append(f"| {figure.name} | {value} | {bound}{mark} | {figure.note} |")
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    def pair(name: str, form: str = "{:,.0f}") -> str:
        return " → ".join(
            form.format(median(getattr(sample, name) for sample in samples))
            for samples in (row.peer_samples, row.product_samples)
        )

    reach = "" if row.reach is None else f"{row.reach:g}x{_mark(row.reached)}"
    return [
        row.name,
        row.size,
        row.peer,
        f"{row.ratio:.2f}x",
        reach,
        pair("calls_per_second"),
        pair("p50_us"),
        pair("p99_us"),
        pair("cpu_us_per_call", "{:.1f}"),
        pair("memory_mb", "{:.0f}"),
    ]


def _mark(reached: bool | None) -> str:
    return "" if reached is None else " yes" if reached else " NO"


def document(rows: Sequence[Row], figures: Sequence[Figure], seconds: float) -> dict[str, Any]:
    """The whole run, every sample in it."""
    return {
        "machine": {"cpu": _cpu(), "cores": _cores(), "kernel": platform.release()},
        "python": platform.python_version(),
        "seconds": round(seconds, 1),
        "rows": [
            {
                "name": row.name,
                "size": row.size,
                "peer": row.peer,
                "ratio": round(row.ratio, 3),
                "reach": row.reach,
                "peerSamples": [asdict(sample) for sample in row.peer_samples],
                "productSamples": [asdict(sample) for sample in row.product_samples],
            }
            for row in rows
        ],
        "figures": [asdict(figure) for figure in figures],
    }


def write(folder: Path, rows: Sequence[Row], figures: Sequence[Figure], seconds: float) -> None:
    """`results.json`, `results.md` and `ratios.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document(rows, figures, seconds), indent=1, sort_keys=True)
    (folder / "results.json").write_text(text + "\n")
    (folder / "results.md").write_text(table(rows, figures))
    (folder / "ratios.svg").write_text(chart(rows))


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
