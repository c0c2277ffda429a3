"""The variables both programs know: the classic contract, and the sidecar's own `PLAN2_*`.

Names and defaults of the classic contract are fixed; services have used them for years.
`document()` reads them as a sidecar started by hand does. `CLASSIC` says, for each variable,
where its value stands in an engine's application Secret, which is how the injector offers the
same names to an app container.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from plan2_contract import connection
from plan2_contract.connection import Document, Engines, KeyValue, Login, MongoDB, Sql, Weaviate
from plan2_contract.engines import DATABASES, PORTS, Engine

URL: Final = "PLAN2_URL"
HOST: Final = "PLAN2_HOST"
PORT: Final = "PLAN2_PORT"
SOCKET: Final = "PLAN2_SOCKET"
METRICS_HOST: Final = "PLAN2_METRICS_HOST"
METRICS_PORT: Final = "PLAN2_METRICS_PORT"
CONNECTION_FILE: Final = "PLAN2_CONNECTION_FILE"
API_TOKEN: Final = "PLAN2_API_TOKEN"
API_TOKEN_FILE: Final = "PLAN2_API_TOKEN_FILE"
ALLOWED_HOSTS: Final = "PLAN2_ALLOWED_HOSTS"
MAX_BODY_BYTES: Final = "PLAN2_MAX_BODY_BYTES"
CACHE_MAX_BYTES: Final = "PLAN2_CACHE_MAX_BYTES"
REQUIRED_ENGINES: Final = "PLAN2_REQUIRED_ENGINES"
V1_MODE: Final = "PLAN2_V1"
SAGA_LEASE_MS: Final = "PLAN2_SAGA_LEASE_MS"
SERVICE_ACCOUNT: Final = "PLAN2_SERVICE_ACCOUNT"

SMALLEST_BODY_BYTES: Final = 1024
LARGEST_BODY_BYTES: Final = 1 << 30
"""What PLAN2_MAX_BODY_BYTES may be; a sidecar does not start with anything else."""

LARGEST_CACHE_BYTES: Final = 1 << 30
"""What PLAN2_CACHE_MAX_BYTES may be at most; 0 keeps nothing in the process."""

CLASSIC: Final = MappingProxyType(
    {
        Engine.POSTGRESQL: MappingProxyType(
            {
                "POSTGRES_HOST": "host",
                "POSTGRES_PORT": "port",
                "POSTGRES_DB": "database",
                "POSTGRES_USER": "username",
                "POSTGRES_PASSWORD": "password",
            }
        ),
        Engine.DRAGONFLYDB: MappingProxyType(
            {
                "DRAGONFLY_HOST": "host",
                "DRAGONFLY_PORT": "port",
                "DRAGONFLY_USER": "username",
                "DRAGONFLY_PASSWORD": "password",
            }
        ),
        Engine.CLICKHOUSE: MappingProxyType(
            {
                "CLICKHOUSE_HOST": "host",
                "CLICKHOUSE_PORT": "port",
                "CLICKHOUSE_DB": "database",
                "CLICKHOUSE_USER": "username",
                "CLICKHOUSE_PASSWORD": "password",
            }
        ),
        Engine.WEAVIATE: MappingProxyType(
            {
                "WEAVIATE_SCHEME": "scheme",
                "WEAVIATE_HOST": "host",
                "WEAVIATE_PORT": "port",
                "WEAVIATE_API_KEY": "api-key",
            }
        ),
        Engine.ARANGODB: MappingProxyType(
            {
                "ARANGO_URL": "uri",
                "ARANGO_DB": "database",
                "ARANGO_USER": "username",
                "ARANGO_PASSWORD": "password",
            }
        ),
        Engine.MONGODB: MappingProxyType({"MONGODB_URL": "uri", "MONGODB_DB": "database"}),
        Engine.REDIS: MappingProxyType(
            {
                "REDIS_HOST": "host",
                "REDIS_PORT": "port",
                "REDIS_USER": "username",
                "REDIS_PASSWORD": "password",
            }
        ),
    }
)


class InvalidVariable(ValueError):
    """A variable whose value cannot be used; the message names it."""


def document(environ: Mapping[str, str]) -> Document:
    """What the classic variables say; an engine with no host (or URL) is not configured."""
    return Document(
        version=connection.VERSION,
        engines=Engines(
            postgresql=_sql(environ, "POSTGRES", Engine.POSTGRESQL, user="postgres"),
            dragonflydb=_key_value(environ, "DRAGONFLY", Engine.DRAGONFLYDB),
            clickhouse=_sql(environ, "CLICKHOUSE", Engine.CLICKHOUSE, user="default"),
            weaviate=_weaviate(environ),
            arangodb=_arangodb(environ),
            mongodb=_mongodb(environ),
            redis=_key_value(environ, "REDIS", Engine.REDIS),
        ),
    )


def integer(environ: Mapping[str, str], name: str, default: int, *, low: int, high: int) -> int:
    """The variable as a number from `low` to `high`; raises InvalidVariable."""
    text = environ.get(name) or str(default)
    try:
        number = int(text)
    except ValueError:
        raise InvalidVariable(f"{name}={text!r} is not a number") from None
    if not low <= number <= high:
        raise InvalidVariable(f"{name}={number} is not between {low} and {high}")
    return number


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    return integer(environ, name, default, low=1, high=65535)


def _sql(environ: Mapping[str, str], prefix: str, engine: Engine, *, user: str) -> Sql | None:
    host = environ.get(f"{prefix}_HOST")
    if not host:
        return None
    return Sql(
        host=host,
        port=_port(environ, f"{prefix}_PORT", PORTS[engine]),
        database=environ.get(f"{prefix}_DB") or DATABASES[engine],
        rw=Login(
            username=environ.get(f"{prefix}_USER") or user,
            password=environ.get(f"{prefix}_PASSWORD", ""),
        ),
        pool_max=integer(environ, f"{prefix}_POOL_MAX", 20, low=1, high=10_000),
    )


def _key_value(environ: Mapping[str, str], prefix: str, engine: Engine) -> KeyValue | None:
    host = environ.get(f"{prefix}_HOST")
    if not host:
        return None
    password = environ.get(f"{prefix}_PASSWORD", "")
    user = environ.get(f"{prefix}_USER") or "default"
    return KeyValue(
        host=host,
        port=_port(environ, f"{prefix}_PORT", PORTS[engine]),
        rw=Login(username=user, password=password) if password else None,
    )


def _weaviate(environ: Mapping[str, str]) -> Weaviate | None:
    host = environ.get("WEAVIATE_HOST")
    if not host:
        return None
    scheme = environ.get("WEAVIATE_SCHEME") or "http"
    if scheme not in ("http", "https"):
        raise InvalidVariable(f"WEAVIATE_SCHEME={scheme!r} is neither http nor https")
    return Weaviate(
        host=host,
        port=_port(environ, "WEAVIATE_PORT", PORTS[Engine.WEAVIATE]),
        scheme=scheme,
        api_key=environ.get("WEAVIATE_API_KEY") or None,
    )


def _arangodb(environ: Mapping[str, str]) -> Sql | None:
    url = environ.get("ARANGO_URL")
    if not url:
        return None
    # The address is not repeated: it may hold a password.
    refusal = InvalidVariable("ARANGO_URL is not of the form http://host:8529")
    try:
        parts = urlsplit(url)
        port = PORTS[Engine.ARANGODB] if parts.port is None else parts.port
    except ValueError:
        raise refusal from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise refusal
    return Sql(
        host=parts.hostname,
        port=port,
        tls=parts.scheme == "https",
        database=environ.get("ARANGO_DB") or DATABASES[Engine.ARANGODB],
        rw=Login(
            username=environ.get("ARANGO_USER") or "root",
            password=environ.get("ARANGO_PASSWORD", ""),
        ),
    )


def _mongodb(environ: Mapping[str, str]) -> MongoDB | None:
    uri = environ.get("MONGODB_URL")
    if not uri:
        return None
    if not uri.startswith(("mongodb://", "mongodb+srv://")):
        raise InvalidVariable("MONGODB_URL does not begin with mongodb:// or mongodb+srv://")
    return MongoDB(uri=uri, database=environ.get("MONGODB_DB") or DATABASES[Engine.MONGODB])
