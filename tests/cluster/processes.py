"""Programs that outlive the command that started them, ended by process id and by nothing else.

A process is known by its id, the moment it started and the boot it started in, so that a
recycled id is never taken for ours. Each carries its owner's mark in its environment too:
that finds what was started a moment before its starter was killed, and containerd's shims.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

MARK = "PLAN2_CLUSTER_OWNER"
TAIL_LINES = 15


class ProgramFailed(Exception):
    """A program ended by itself or never became ready; the message carries its last lines."""


@dataclass(frozen=True)
class Identity:
    """One process of one boot: `started` is in clock ticks since that boot."""

    pid: int
    started: int
    boot: str


@dataclass(frozen=True)
class Program:
    """A program of a cluster: its command, its log, and the file that names its process."""

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]

    @property
    def log(self) -> Path:
        return self.folder / "logs" / f"{self.name}.log"

    @property
    def record(self) -> Path:
        return record_of(self.folder, self.name)


def record_of(folder: Path, name: str) -> Path:
    """The file that names the process of a program of the cluster in `folder`."""
    return folder / "run" / f"{name}.json"


def identify(pid: int) -> Identity | None:
    """Who runs under this id now; None when nobody does, or only a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    if fields[0] in "ZX":
        return None
    return Identity(pid, int(fields[19]), _boot())


def is_alive(identity: Identity) -> bool:
    """Whether this very process still runs, not another one under the same id."""
    return identify(identity.pid) == identity


def start(program: Program) -> Identity:
    """Start a program in a session of its own, its output in its log; write its record."""
    program.log.parent.mkdir(parents=True, exist_ok=True)
    program.record.parent.mkdir(parents=True, exist_ok=True)
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        program.command[0],
        list(program.command),
        {**program.environment, MARK: str(program.folder)},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(program.log), append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    identity = identify(pid)
    if identity is None:
        raise ProgramFailed(f"{program.name} ended at once\n{tail(program.log)}")
    write_record(program.record, identity)
    return identity


def write_record(path: Path, identity: Identity) -> None:
    """Name a process in a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(identity)))
    partial.rename(path)


def read_record(path: Path) -> Identity | None:
    """The process that a record names; None when there is no record or a broken one."""
    try:
        return Identity(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def running(record: Path) -> Identity | None:
    """The process that a record names, if it still runs."""
    identity = read_record(record)
    return identity if identity is not None and is_alive(identity) else None


def wait_until(
    program: Program, ready: Callable[[], bool], *, timeout_seconds: float, pause: float = 0.1
) -> None:
    """Wait until `ready()`; a program that ends meanwhile, or is too slow, is a failure."""
    limit = time.monotonic() + timeout_seconds
    while not ready():
        if running(program.record) is None:
            raise ProgramFailed(f"{program.name} ended by itself\n{tail(program.log)}")
        if time.monotonic() > limit:
            raise ProgramFailed(
                f"{program.name} was not ready in {timeout_seconds:.0f} s\n{tail(program.log)}"
            )
        time.sleep(pause)


def stop(identities: Iterable[Identity], *, grace_seconds: float = 5.0) -> None:
    """End these processes: SIGTERM to all, SIGKILL to those that stay after the grace."""
    left = [identity for identity in identities if is_alive(identity)]
    for sent, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 10.0)):
        for identity in left:
            send(identity, sent)
        left = _outliving(left, seconds)
    if left:
        pids = ", ".join(str(identity.pid) for identity in left)
        raise ProgramFailed(f"processes {pids} did not end, not even by SIGKILL")


def marked(owner: Path) -> list[Identity]:
    """Every process that carries this owner's mark, recorded or not."""
    wanted = f"{MARK}={owner}".encode()
    return [identity for identity in everybody() if wanted in _environment(identity.pid)]


def everybody() -> Iterator[Identity]:
    """Every process that can be seen from here, this one left out."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            identity = identify(int(entry.name))
            if identity is not None:
                yield identity


def tail(log: Path) -> str:
    """The last lines of a log, with its path."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    except OSError:
        lines = []
    return "\n".join([f"the end of {log}:", *lines])


def send(identity: Identity, number: signal.Signals) -> None:
    """Signal this very process, if it still runs."""
    if is_alive(identity):
        with suppress(ProcessLookupError):  # it may end between the two lines
            os.kill(identity.pid, number)


def _outliving(identities: list[Identity], seconds: float) -> list[Identity]:
    limit = time.monotonic() + seconds
    left = identities
    while left and time.monotonic() < limit:
        for identity in left:
            _reap(identity.pid)
        left = [identity for identity in left if is_alive(identity)]
        if left:
            time.sleep(0.05)
    return left


def _reap(pid: int) -> None:
    """Collect the exit code where the process is our own child, or it stays a zombie."""
    with suppress(ChildProcessError):  # another process may have started it
        os.waitpid(pid, os.WNOHANG)


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
