"""The folder of `--embedded`: who uses it, the engines' passwords, ports and data.

Two locks tell a folder in use from one whose sidecar was killed: the sidecar holds both, and each
engine inherits the second, which is therefore free only when the last of them has ended.
"""

import fcntl
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

from plan2_sidecar.embedded.errors import CannotStart

PASSWORD_BYTES: Final = 24


def default_folder(environ: Mapping[str, str]) -> Path:
    """`plan2` in the user's data home, as the XDG base directories have it."""
    base = environ.get("XDG_DATA_HOME", "")
    home = Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "share"
    return home / "plan2"


class Child(msgspec.Struct, frozen=True):
    """A process as the system knows it: a pid is used again, with another start."""

    pid: int
    started: float


class State(msgspec.Struct):
    """`state.json`, by engine."""

    passwords: dict[str, str] = msgspec.field(default_factory=dict)
    ports: dict[str, int] = msgspec.field(default_factory=dict)
    children: dict[str, Child] = msgspec.field(default_factory=dict)


@dataclass(frozen=True)
class Home:
    """What one engine is given. `lock` is to be inherited by every process that writes there."""

    path: Path
    port: int
    password: str
    lock: int


class Folder:
    """Open from `open()` to `close()`."""

    def __init__(self, path: Path, state: State, locks: tuple[int, int]) -> None:
        self.path = path
        self.state = state
        self._own, self.engines_lock = locks

    @classmethod
    def open(cls, path: Path) -> Self:
        """Take the folder; raises CannotStart when another sidecar has it, or it is not ours."""
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            own = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise CannotStart(f"{path} cannot be used: {error.strerror}") from error
        if not locked(own):
            holder = os.pread(own, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(own)
            raise CannotStart(
                f"{path} is in use by another plan2-sidecar --embedded (process {holder}); "
                "stop that one, or give this one a folder of its own with --data"
            )
        os.truncate(own, 0)
        os.pwrite(own, str(os.getpid()).encode(), 0)
        engines = os.open(path / "engines.lock", os.O_RDWR | os.O_CREAT, 0o600)
        return cls(path, _read(path / "state.json"), (own, engines))

    def home(self, engine: str) -> Home:
        """The engine's folder, made; the password of the first time; the last port if it is free.

        A port that stays makes an address that was written down last until it is taken.
        """
        path = self.path / engine
        path.mkdir(mode=0o700, exist_ok=True)
        password = self.state.passwords.setdefault(engine, secrets.token_hex(PASSWORD_BYTES))
        port = free_port(self.state.ports.get(engine, 0))
        self.state.ports[engine] = port
        self.save()
        return Home(path, port, password, self.engines_lock)

    def save(self) -> None:
        """Write `state.json` whole or not at all, for the user's eyes alone."""
        fresh = self.path / "state.json.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self.state)))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path / "state.json")

    def close(self) -> None:
        """Give both locks back."""
        os.close(self.engines_lock)
        os.close(self._own)


def locked(descriptor: int) -> bool:
    """Take the lock; False when somebody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def free_port(wanted: int) -> int:
    """`wanted` if nobody has it on 127.0.0.1, else another."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            # As servers bind: connections of the last run that are still ending do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise CannotStart("no port is free on 127.0.0.1")


def _read(file: Path) -> State:
    try:
        return msgspec.json.decode(file.read_bytes(), type=State)
    except FileNotFoundError:
        return State()
    except msgspec.DecodeError as error:
        raise CannotStart(f"{file} cannot be read: {error}") from error
