"""What is called: one kind of request, or a list of them, as the bytes that go on the wire."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Calls:
    """`%d` in `path` and `body` becomes a number from 1 to `keys`, the next one each time.

    `status` is what each answer must be.
    """

    port: int
    path: str
    method: str = "GET"
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    keys: int = 1
    status: int = 200
    host: str = "127.0.0.1"

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.method} {self.path}"


def requests(calls: Calls) -> list[bytes]:
    """One whole request a key."""
    return [
        raw(
            calls.method,
            calls.path.replace("%d", str(key)),
            calls.headers,
            calls.body.replace("%d", str(key)).encode(),
        )
        for key in range(1, calls.keys + 1)
    ]


def raw(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """HTTP/1.1, with the length of the body where there is one."""
    fields = {"Host": "127.0.0.1", **headers}
    if body:
        fields.setdefault("Content-Type", "application/json")
        fields["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def write(file: Path, made: Iterable[bytes]) -> None:
    """The requests for wrk.lua: each after its length on a line of its own."""
    with file.open("wb") as out:
        for request in made:
            out.write(b"%d\n" % len(request) + request)


def query(text: object, database: str | None, params: object = None, **options: Any) -> str:
    """The body of POST /api/v2/query; `"%d"` in the params is a key."""
    asked: dict[str, object] = {"query": text}
    if database is not None:
        asked["targetDatabase"] = database
    if params is not None:
        asked["params"] = params
    if options:
        asked["options"] = options
    return json.dumps(asked).replace('"%d"', "%d")
