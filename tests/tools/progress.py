"""Running a long command and saying, every quarter of a minute, what is being waited for."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

REPORT_SECONDS = 15.0
KEPT_LINES = 40


class CommandFailed(Exception):
    """A command ended with another code than 0; the message carries its last lines."""


def say(text: str) -> None:
    """One line of progress, on stderr so that stdout stays for answers."""
    with suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)


def run(
    what: str,
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    describe: Callable[[str, int], str] | None = None,
) -> None:
    """Run `command` to its end; `describe` words the last line and the count of lines so far."""
    started = time.monotonic()
    lines: deque[str] = deque(maxlen=KEPT_LINES)
    counted = [0]
    process = subprocess.Popen(
        list(command),
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    reader = threading.Thread(target=_collect, args=(process, lines, counted), daemon=True)
    reader.start()
    try:
        while True:
            try:
                process.wait(timeout=REPORT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                last = lines[-1] if lines else ""
                detail = describe(last, counted[0]) if describe else last[:100]
                say(f"  {what}: {time.monotonic() - started:.0f} s, {detail}")
    except BaseException:
        process.terminate()
        process.wait()
        raise
    reader.join(timeout=5)
    if process.returncode != 0:
        tail = "\n".join(lines)
        raise CommandFailed(f"{what}: `{' '.join(command)}` ended {process.returncode}\n{tail}")


def _collect(process: subprocess.Popen[str], lines: deque[str], counted: list[int]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.append(line.rstrip())
            counted[0] += 1
