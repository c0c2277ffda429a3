"""What a caller asks for in one cross-database operation, as it comes over the wire."""

from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from plan2_sidecar.query import Params, Text
from plan2_sidecar.routing import Operation

MOST_OPERATIONS = 50
LONGEST_TIMEOUT_MS = 60_000


class Mode(StrEnum):
    """What is promised."""

    READ = "read"
    OUTBOX = "outbox"
    SAGA = "saga"
    ATOMIC = "atomic"


class _Request(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    pass


class CompensationRequest(_Request, frozen=True):
    """What undoes an operation, on the same engine unless another is named."""

    query: Text
    params: Params | None = None
    target_database: str | None = None
    idempotent: bool = False


class OperationRequest(_Request, frozen=True):
    """One statement on one engine.

    `{"$ref": "<id>.data.0.<member>"}` and `{"$opId": true}` may stand anywhere in `params` and
    in a query that is a list or an object. `idempotent`: it may be run twice.
    """

    id: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]
    query: Text
    params: Params | None = None
    target_database: str | None = None
    operation: Operation | None = None
    depends_on: list[str] = []
    compensate: CompensationRequest | None = None
    idempotent: bool = False


class CrossDbRequest(_Request, frozen=True):
    """The body of POST /api/v2/cross-db."""

    operations: Annotated[list[OperationRequest], Meta(min_length=1, max_length=MOST_OPERATIONS)]
    mode: Mode | None = None
    timeout_ms: Annotated[int, Meta(ge=1, le=LONGEST_TIMEOUT_MS)] | None = None
    idempotency_key: str | None = None


_SORTED = msgspec.json.Encoder(order="deterministic", decimal_format="number")


def fingerprint_of(request: CrossDbRequest) -> bytes:
    """What two requests under one key must have in common; how long each waits is not of it."""
    alike: Any = msgspec.structs.replace(request, timeout_ms=None, idempotency_key=None)
    return _SORTED.encode(alike)
