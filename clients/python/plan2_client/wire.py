"""JSON and headers as both clients send them.

Integers have all their digits both ways. A number with a fraction becomes a float, or whatever
`parse_float` makes of its text (`decimal.Decimal` keeps every digit). What is sent may hold
Decimal, UUID, date, time and datetime: they travel as text, which the engines take for their own
types.
"""

import json
from collections.abc import Callable
from datetime import date, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from plan2_client.call import LONGEST_TIMEOUT_MS, Call
from plan2_client.errors import ConnectionLost

DEFAULT_TIMEOUT_MS = 5000
# The sidecar's own word that the deadline passed says more than our clock: it goes first.
GRACE_SECONDS = 0.5


def encode(value: Any) -> bytes:
    """As JSON; raises TypeError or ValueError for what has no place there."""
    return json.dumps(value, default=_text, allow_nan=False, separators=(",", ":")).encode()


def decoder(parse_float: Callable[[str], Any] | None) -> Callable[[bytes], Any]:
    """A function for the JSON of answers."""
    if parse_float is None:
        return json.loads

    def loads(content: bytes) -> Any:
        return json.loads(content, parse_float=parse_float)

    return loads


def document(loads: Callable[[bytes], Any], status: int, content: bytes) -> Any:
    """The body; None where there is none, the error's text where an error is not JSON."""
    if not content:
        return None
    try:
        return loads(content)
    except ValueError as error:
        if status >= 400:
            return {"detail": content[:200].decode(errors="replace")}
        raise ConnectionLost(f"the answer is not JSON: {error}", status=status) from error


def headers(call: Call[Any], token: str | None, timeout_ms: int) -> dict[str, str]:
    """What goes with the call."""
    sent = {"Accept": "application/json", "X-Deadline-Ms": str(timeout_ms), **call.headers}
    if call.body is not None:
        sent["Content-Type"] = "application/json"
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    return sent


def timeout_ms(call: Call[Any], default: int) -> int:
    """The call's deadline; raises ValueError outside 1 to 60000."""
    asked = default if call.timeout_ms is None else call.timeout_ms
    if not 1 <= asked <= LONGEST_TIMEOUT_MS:
        raise ValueError(f"timeout_ms is 1 to {LONGEST_TIMEOUT_MS}, not {asked}")
    return asked


def _text(value: Any) -> str:
    match value:
        case Decimal() | UUID():
            return str(value)
        case date() | time():
            return value.isoformat()
        case _:
            raise TypeError(f"{type(value).__name__} has no place in JSON")
