"""Calls at a fixed rate over keep-alive connections; prints one object of JSON.

    open_loop.py REQUESTS PORT STATUS RATE CONNECTIONS SECONDS

A call leaves when it is due whether or not earlier ones were answered, and its latency counts
from then: a server that stalls is not measured only when it is quick. Plain sockets and
select(), whose timeout is in microseconds; an event loop's timers go by whole milliseconds.
"""

import ctypes
import gc
import json
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

if __package__ in (None, ""):  # started as a script
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.percentile import percentile

PR_SET_TIMERSLACK = 29
LATE_SECONDS = 5.0


class Answers:
    """The answers of one connection, in order: the oldest call is the one that was answered."""

    def __init__(self, status: int) -> None:
        self.due: deque[float] = deque()
        self.wrong = 0
        self._start = b"HTTP/1.1 %d" % status
        self._held = b""

    def received(self, data: bytes, now: float) -> list[float]:
        """The latencies, in seconds, of the calls that `data` completes."""
        data = self._held + data
        latencies = []
        while (end := data.find(b"\r\n\r\n")) >= 0:
            whole = end + 4 + length_of(data[:end])
            if len(data) < whole:
                break
            self.wrong += not data.startswith(self._start)
            latencies.append(now - self.due.popleft())
            data = data[whole:]
        self._held = data
        return latencies


def length_of(head: bytes) -> int:
    """What Content-Length says; 0 where there is none."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


def read(file: Path) -> list[bytes]:
    """The requests that `calls.write` wrote."""
    content, found, at = file.read_bytes(), [], 0
    while at < len(content):
        end = content.index(b"\n", at)
        length = int(content[at:end])
        found.append(content[end + 1 : end + 1 + length])
        at = end + 1 + length
    return found


def drive(
    requests: list[bytes], port: int, status: int, rate: int, connections: int, seconds: float
) -> dict[str, float]:
    """Send `rate` calls a second, and read what comes between."""
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    answers = {each: Answers(status) for each in sockets}
    for each in sockets:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    latencies: list[float] = []
    clock, total, sent = time.perf_counter, int(rate * seconds), 0
    started = clock()
    until = started + seconds + LATE_SECONDS
    while len(latencies) < total and (now := clock()) < until:
        due = started + sent / rate
        if sent < total and due <= now:
            link = sockets[sent % connections]
            answers[link].due.append(due)
            link.sendall(requests[sent % len(requests)])
            sent += 1
            continue
        wait = due - now if sent < total else until - now
        for link in select.select(sockets, (), (), wait)[0]:
            data = link.recv(65536)
            if not data:
                raise ConnectionError("the server hung up")
            latencies += answers[link].received(data, clock())
    elapsed = clock() - started
    for each in sockets:
        each.close()
    ordered = sorted(latencies)
    return {
        "calls": len(ordered),
        "seconds": elapsed,
        "p50_us": percentile(ordered, 0.50) * 1e6,
        "p99_us": percentile(ordered, 0.99) * 1e6,
        "wrong": sum(each.wrong for each in answers.values()) + total - len(ordered),
    }


def main() -> None:
    file, port, status, rate, connections, seconds = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    gc.disable()
    print(
        json.dumps(
            drive(
                read(Path(file)),
                int(port),
                int(status),
                int(rate),
                int(connections),
                float(seconds),
            )
        )
    )


if __name__ == "__main__":
    main()
