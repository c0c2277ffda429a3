"""Which run of the store's process this is: one that restarted may have lost what it had said.

The key `p2:epoch` in the store holds the run and the epoch that were last agreed upon. Another
run means that what the store holds is older than somebody knows, so the epoch is raised.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MARKER: Final = b"p2:epoch"
# Two whole seconds, both rounded down, and a node's clock that was put right.
START_TOLERANCE_SECONDS: Final = 3

QUESTIONS: Final = (("INFO", "server"), ("INFO", "replication"), ("TIME",), ("GET", MARKER))
"""What to ask; `read` takes the replies."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a server: the id it gave itself, and when it began where the id may return."""

    identity: str
    started: int = 0

    def same(self, other: "Run") -> bool:
        """Whether it is the same process."""
        apart = abs(self.started - other.started)
        return self.identity == other.identity and apart <= START_TOLERANCE_SECONDS


@dataclass(frozen=True, slots=True)
class Marker:
    """What `p2:epoch` holds."""

    run: Run
    epoch: int

    def encode(self) -> bytes:
        """As it stands in the store."""
        return f"{self.epoch} {self.run.started} {self.run.identity}".encode()


def decode(held: bytes | None) -> Marker | None:
    """The marker; None where there is none, or something else stands there."""
    parts = (held or b"").decode(errors="replace").split(" ")
    if len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return None
    return Marker(Run(parts[2], int(parts[1])), int(parts[0]))


def read(replies: list[Any]) -> tuple[Run, Marker | None]:
    """The run, and the marker it holds."""
    server, replication = _fields(replies[0]), _fields(replies[1])
    if run_id := server.get("run_id"):
        return Run(run_id), decode(replies[3])
    # Dragonfly: the replication id is made at the start; the time guards against one restored.
    uptime = server.get("uptime_in_seconds", "0")
    started = int(replies[2][0]) - int(uptime) if uptime.isdecimal() else 0
    return Run(replication.get("master_replid") or "-", started), decode(replies[3])


def _fields(info: Any) -> Mapping[str, str]:
    text = info.decode(errors="replace") if isinstance(info, bytes) else str(info)
    return dict(line.partition(":")[::2] for line in text.splitlines() if ":" in line)
