"""What calls return. Members that a newer sidecar adds are passed over.

Where an answer came from: `source`, `degraded` (another engine or a stale copy stood in) and
`fallback_from` stand on every answer of data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Meta:
    """Where a query's answer came from."""

    database: str
    route: str
    cache: str = "off"
    degraded: bool = False
    fallback_from: str | None = None
    attempts: int = 1
    took_us: int = 0
    truncated: bool = False

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """From the wire."""
        return cls(
            database=document.get("database", ""),
            route=document.get("route", ""),
            cache=document.get("cache", "off"),
            degraded=document.get("degraded", False),
            fallback_from=document.get("fallbackFrom"),
            attempts=document.get("attempts", 1),
            took_us=document.get("tookUs", 0),
            truncated=document.get("truncated", False),
        )


@dataclass(frozen=True)
class QueryResult:
    """`data` as the engine's kind of answer has it; rows returned, else rows affected."""

    data: Any
    row_count: int
    meta: Meta
    upserted_id: Any = None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """From the wire."""
        return cls(
            data=document.get("data"),
            row_count=document.get("rowCount", 0),
            meta=Meta.of(document.get("meta", {})),
            upserted_id=document.get("upsertedId"),
        )


@dataclass(frozen=True)
class StreamEnd:
    """The last line of a stream that ended well."""

    row_count: int
    meta: Meta


@dataclass(frozen=True)
class Route:
    """Where a query would go, and why."""

    database: str
    route: str
    write: bool
    candidates: list[str]
    reason: str


@dataclass(frozen=True)
class Written:
    """Where a write went."""

    source: str | None = None
    degraded: bool = False
    fallback_from: str | None = None


@dataclass(frozen=True)
class CacheEntry(Written):
    """`ttl`: seconds left, None without an end."""

    value: Any = None
    ttl: int | None = None


@dataclass(frozen=True)
class Session(Written):
    """`ttl`: seconds left."""

    id: str = ""
    data: Any = None
    ttl: int | None = None


@dataclass(frozen=True)
class ConfigEntry(Written):
    """`version` is None for a value of `config.cache()`, which PostgreSQL does not have."""

    value: Any = None
    version: int | None = None


@dataclass(frozen=True)
class RateLimit:
    """A decision. `headers` are those to hand on: RateLimit, RateLimit-Policy, Retry-After."""

    allowed: bool
    limit: int
    remaining: int
    total_hits: int
    reset_ms: int
    retry_after_ms: int | None = None
    source: str = ""
    degraded: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Service:
    """The live instances of a service."""

    name: str
    instances: list[dict[str, Any]]


@dataclass(frozen=True)
class Page:
    """One page of a list; `next` is the cursor of the one after it."""

    items: list[dict[str, Any]]
    next: str | None = None


@dataclass(frozen=True)
class CrossDbResult:
    """`state`: running, committed, compensating, compensated, failed or dead."""

    id: str
    mode: str
    state: str
    operations: list[dict[str, Any]]

    @property
    def finished(self) -> bool:
        """Nothing is left to wait for."""
        return self.state not in ("running", "compensating")


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One query of a batch, one compensation."""

    query: Any
    params: Any = None
    target_database: str | None = None
    operation: str | None = None
    read_only: bool | None = None
    cache_ttl_ms: int | None = None
    max_rows: int | None = None

    def wire(self) -> dict[str, Any]:
        """The body that the API takes."""
        options = {
            "readOnly": self.read_only,
            "cache": None if self.cache_ttl_ms is None else {"ttlMs": self.cache_ttl_ms},
            "maxRows": self.max_rows,
        }
        return given(
            query=self.query,
            params=self.params,
            targetDatabase=self.target_database,
            operation=self.operation,
            options=given(**options) or None,
        )


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation across databases; `depends_on` names the ids that come first."""

    id: str
    query: Any
    params: Any = None
    target_database: str | None = None
    depends_on: list[str] | None = None
    compensate: Statement | None = None
    idempotent: bool | None = None

    def wire(self) -> dict[str, Any]:
        """The member of `operations` that the API takes."""
        return given(
            id=self.id,
            query=self.query,
            params=self.params,
            targetDatabase=self.target_database,
            dependsOn=self.depends_on,
            compensate=self.compensate.wire() if self.compensate else None,
            idempotent=self.idempotent,
        )


def given(**members: Any) -> dict[str, Any]:
    """The members that are not None."""
    return {name: value for name, value in members.items() if value is not None}
