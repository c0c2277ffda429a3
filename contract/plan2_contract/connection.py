"""The connection document: all that a sidecar needs to reach the engines of one resource.

The operator writes it under the key `connection.json` of the Secret `<cr>-connection`; the
sidecar reads it from the mounted file, or builds the same document from the classic
environment (`environment.document`). Unknown keys are ignored, so that an older sidecar reads
a newer operator's document of the same version.
"""

from collections.abc import Iterator
from typing import Annotated, Final

import msgspec

from plan2_contract import engines
from plan2_contract.engines import PORTS, WEAVIATE_GRPC_PORT, Engine

VERSION: Final = 1
KEY: Final = "connection.json"

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class UnreadableDocument(ValueError):
    """The document is not JSON, misses a field, or has a version this program does not know."""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """A user of an engine."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Login(username={self.username!r})"


class Sql(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """PostgreSQL, ClickHouse or ArangoDB: an address, a database and its roles."""

    host: str
    port: Port
    database: str
    rw: Login
    ro: Login | None = None
    tls: bool = False
    ca_pem: str | None = None
    pool_max: int = 20


class KeyValue(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """DragonflyDB or Redis. `rw` is None where the server asks for no password."""

    host: str
    port: Port
    rw: Login | None = None
    ro: Login | None = None
    tls: bool = False
    ca_pem: str | None = None
    pool_max: int = 20


class Weaviate(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Weaviate: HTTP for GraphQL and objects, gRPC for structured search."""

    host: str
    port: Port = PORTS[Engine.WEAVIATE]
    scheme: str = "http"
    grpc_port: Port = WEAVIATE_GRPC_PORT
    api_key: str | None = None
    ca_pem: str | None = None
    pool_max: int = 20

    def __repr__(self) -> str:
        return f"Weaviate(host={self.host!r}, port={self.port})"


class MongoDB(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """MongoDB by its own connection string, user and password in it."""

    uri: str
    database: str
    ro_uri: str | None = None
    ca_pem: str | None = None
    pool_max: int = 20

    def __repr__(self) -> str:
        return f"MongoDB(database={self.database!r})"


class Engines(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One optional member an engine; None is "not configured"."""

    postgresql: Sql | None = None
    dragonflydb: KeyValue | None = None
    clickhouse: Sql | None = None
    weaviate: Weaviate | None = None
    arangodb: Sql | None = None
    mongodb: MongoDB | None = None
    redis: KeyValue | None = None

    def configured(self) -> Iterator[tuple[Engine, Sql | KeyValue | Weaviate | MongoDB]]:
        """The configured engines with their connections, in the order of `Engine`."""
        for engine in Engine:
            connection = getattr(self, engine.value)
            if connection is not None:
                yield engine, connection


class Document(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The whole document. `sidecars` is how many share the engines' connections."""

    version: int
    engines: Engines
    sidecars: int = 1
    required_engines: tuple[str, ...] = ()

    def required(self) -> frozenset[Engine]:
        """The required engines this program knows; a newer operator may name others."""
        known = (engines.parse(name) for name in self.required_engines)
        return frozenset(engine for engine in known if engine is not None)


class _Versioned(msgspec.Struct):
    version: int


_DECODER: Final = msgspec.json.Decoder(Document)
_VERSION_DECODER: Final = msgspec.json.Decoder(_Versioned)
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


def decode(data: bytes) -> Document:
    """The document in `data`; raises UnreadableDocument, which names the field."""
    try:
        version = _VERSION_DECODER.decode(data).version
        if version > VERSION:
            raise UnreadableDocument(
                f"connection document version {version} is newer than {VERSION}, "
                "the newest this program reads"
            )
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableDocument(f"connection document: {error}") from error


def encode(document: Document) -> bytes:
    """The document as JSON: the same bytes for an equal document."""
    return _ENCODER.encode(document)
