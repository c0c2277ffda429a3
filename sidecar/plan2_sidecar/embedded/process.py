"""One engine as a child process: started, waited for, asked to end, ended.

It ends with the sidecar even when that is killed: the kernel asks it to (Linux), and elsewhere
the next start over the folder does.
"""

import asyncio
import contextlib
import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from plan2_sidecar.embedded.errors import CannotStart

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Program:
    """How an engine is started; `ready` answers whether the process with this pid serves."""

    name: str
    command: tuple[str, ...]
    address: str
    log: Path
    lock: int
    ready: Callable[[int], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    configuration: str = ""
    stop_signal: signal.Signals = signal.SIGTERM


class Process:
    """A running program. Made on the main thread: the kernel watches the thread that forks."""

    def __init__(self, program: Program) -> None:
        self.program = program
        with program.log.open("wb") as log:
            self._process = subprocess.Popen(
                program.command,
                env=dict(program.environment),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=program.log.parent,
                pass_fds=(program.lock,),
                # Ctrl-C is the sidecar's to hear: it lets calls finish first.
                start_new_session=True,
                preexec_fn=lambda: _end_with_parent(program.stop_signal),
            )
        if self._process.stdin is not None:
            # What a child that ended at once said is in its log.
            with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
                stdin.write(program.configuration.encode())

    @property
    def pid(self) -> int:
        """The child's."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._process.poll() is not None

    async def ready(self) -> None:
        """Return when it serves; raises CannotStart with the log's end."""
        until = time.monotonic() + READY_SECONDS
        while not await asyncio.to_thread(self.program.ready, self.pid):
            if self.ended or time.monotonic() > until:
                said = self.program.log.read_text(errors="replace")[-2000:].strip()
                raise CannotStart(
                    f"{self.program.name} did not start ({self.program.log}):\n{said}"
                )
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Ask it to end, wait, and insist."""
        if not self.ended:
            self._process.send_signal(self.program.stop_signal)
        until = time.monotonic() + STOP_SECONDS
        while not self.ended:
            if time.monotonic() > until:
                self._process.kill()
            await asyncio.sleep(0.02)


def _end_with_parent(number: signal.Signals) -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(number))
