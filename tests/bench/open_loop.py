"""Calls at a fixed rate over keep-alive connections; prints one object of JSON.

    open_loop.py CALLS_JSON RATE CONNECTIONS SECONDS

A call leaves when it is due whether or not earlier ones were answered, and its latency counts
from then: a server that stalls is not measured only when it is quick.
"""

import asyncio
import json
import sys
import time
from collections import deque
from typing import Any


class Connection(asyncio.Protocol):
    """Answers come in order, so the oldest call is the one that was answered."""

    def __init__(self, status: bytes, latencies: list[float]) -> None:
        self.due: deque[float] = deque()
        self.wrong = 0
        self._status = status
        self._latencies = latencies
        self._held = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        data = self._held + data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                break
            head = data[:end].lower()
            at = head.find(b"content-length: ")
            length = int(head[at + 16 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(data) < end + 4 + length:
                break
            self.wrong += not data.startswith(b"HTTP/1.1 " + self._status)
            self._latencies.append(now - self.due.popleft())
            data = data[end + 4 + length :]
        self._held = data


def requests(calls: dict[str, Any]) -> list[bytes]:
    made = []
    for key in range(1, calls["keys"] + 1):
        body = calls["body"].replace("%d", str(key)).encode()
        path = calls["path"].replace("%d", str(key))
        headers = {"Host": "127.0.0.1", **calls["headers"]}
        if body:
            headers["Content-Length"] = str(len(body))
        lines = [f"{calls['method']} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in headers.items())]
        made.append("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return made


async def main(calls: dict[str, Any], rate: int, connections: int, seconds: float) -> None:
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    opened: list[Connection] = []
    for _ in range(connections):
        _, connection = await loop.create_connection(
            lambda: Connection(str(calls["status"]).encode(), latencies), "127.0.0.1", calls["port"]
        )
        opened.append(connection)
    made = requests(calls)
    started = time.perf_counter()
    total = int(rate * seconds)
    for number in range(total):
        due = started + number / rate
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        connection = opened[number % connections]
        connection.due.append(due)
        assert connection.transport is not None
        connection.transport.write(made[number % len(made)])
    for _ in range(500):
        if len(latencies) == total:
            break
        await asyncio.sleep(0.01)
    ordered = sorted(latencies)
    answered = len(ordered)
    wrong = sum(connection.wrong for connection in opened) + total - answered
    print(
        json.dumps(
            {
                "calls": answered,
                "seconds": time.perf_counter() - started,
                "p50_us": ordered[answered // 2] * 1e6 if ordered else 0,
                "p99_us": ordered[answered * 99 // 100] * 1e6 if ordered else 0,
                "wrong": wrong,
            }
        )
    )


if __name__ == "__main__":
    import uvloop

    uvloop.run(
        main(json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    )
