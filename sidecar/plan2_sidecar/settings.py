"""The sidecar's own settings, read once from `PLAN2_*`.

The engines' connections are not here: see `connections`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from plan2_contract import engines, environment, names
from plan2_contract.engines import Engine
from plan2_contract.environment import InvalidVariable

# Kubernetes ends a pod's grace at 30 s unless told otherwise; the pools want the last few.
STOP_GRACE_SECONDS = 25.0
MAX_BODY_BYTES = 4 * 1024 * 1024
CACHE_MAX_BYTES = 32 * 1024 * 1024
# A sidecar that died keeps its cross-database operations from the others for so long.
SAGA_LEASE_MS = 15_000


class V1Mode(StrEnum):
    """Whether `/api/v1` asks for the token."""

    TOKEN = "token"
    OPEN = "open"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where to listen, whom to let in, and where the connections come from."""

    host: str = "127.0.0.1"
    port: int = names.SIDECAR_PORT
    socket: Path | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: int = names.METRICS_PORT
    connection_file: Path | None = None
    api_token: str | None = None
    api_token_file: Path | None = None
    allowed_hosts: frozenset[str] = frozenset()
    max_body_bytes: int = MAX_BODY_BYTES
    cache_max_bytes: int = CACHE_MAX_BYTES
    required_engines: frozenset[Engine] = frozenset()
    v1: V1Mode = V1Mode.TOKEN
    service_account: str | None = None
    stop_grace_seconds: float = STOP_GRACE_SECONDS
    saga_lease_ms: int = SAGA_LEASE_MS

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """What the variables say; raises InvalidVariable, which names the bad one."""
        return cls(
            host=environ.get(environment.HOST) or cls.host,
            port=environment.integer(environ, environment.PORT, cls.port, low=0, high=65535),
            socket=_path(environ, environment.SOCKET),
            metrics_host=environ.get(environment.METRICS_HOST) or cls.metrics_host,
            metrics_port=environment.integer(
                environ, environment.METRICS_PORT, cls.metrics_port, low=0, high=65535
            ),
            connection_file=_path(environ, environment.CONNECTION_FILE),
            api_token=_given(environ, environment.API_TOKEN),
            api_token_file=_token_file(environ),
            allowed_hosts=frozenset(
                host.lower() for host in _items(environ, environment.ALLOWED_HOSTS)
            ),
            max_body_bytes=environment.integer(
                environ,
                environment.MAX_BODY_BYTES,
                cls.max_body_bytes,
                low=environment.SMALLEST_BODY_BYTES,
                high=environment.LARGEST_BODY_BYTES,
            ),
            cache_max_bytes=environment.integer(
                environ,
                environment.CACHE_MAX_BYTES,
                cls.cache_max_bytes,
                low=0,
                high=environment.LARGEST_CACHE_BYTES,
            ),
            required_engines=frozenset(
                _engine(environment.REQUIRED_ENGINES, name)
                for name in _items(environ, environment.REQUIRED_ENGINES)
            ),
            v1=_v1(environ.get(environment.V1_MODE) or cls.v1),
            saga_lease_ms=environment.integer(
                environ, environment.SAGA_LEASE_MS, cls.saga_lease_ms, low=100, high=600_000
            ),
            service_account=environ.get(environment.SERVICE_ACCOUNT, "").strip() or None,
        )


def _given(environ: Mapping[str, str], name: str) -> str | None:
    """The value; one that is set and blank would open the API to everybody, so it is refused."""
    text = environ.get(name)
    if text is None:
        return None
    if not text.strip():
        raise InvalidVariable(f"{name} is set and empty; leave it out to ask for no token")
    return text.strip()


def _token_file(environ: Mapping[str, str]) -> Path | None:
    _given(environ, environment.API_TOKEN_FILE)
    return _path(environ, environment.API_TOKEN_FILE)


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    text = environ.get(name)
    if not text:
        return None
    path = Path(text)
    if not path.is_absolute():
        raise InvalidVariable(f"{name}={text!r} is not an absolute path")
    return path


def _items(environ: Mapping[str, str], name: str) -> list[str]:
    return [item for part in environ.get(name, "").split(",") if (item := part.strip())]


def _engine(variable: str, name: str) -> Engine:
    engine = engines.parse(name)
    if engine is None:
        raise InvalidVariable(f"{variable}: no engine is called {name!r}")
    return engine


def _v1(text: str) -> V1Mode:
    if text not in V1Mode.__members__.values():
        raise InvalidVariable(f"{environment.V1_MODE}={text!r} is neither token nor open")
    return V1Mode(text)
