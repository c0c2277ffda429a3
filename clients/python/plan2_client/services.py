"""The data-access classes that services have today, by today's method names.

A service keeps its calls and changes one import. Everything else that the client can do is at
`.client`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from plan2_client.client import Client
from plan2_client.models import Page, RateLimit, Written


class _DatabaseConfig:
    """`client` to share one, else everything is found in the environment."""

    def __init__(self, client: Client | None = None) -> None:
        self.client = client or Client()

    async def initialize(self, timeout: float = 30.0) -> None:
        """Wait until the sidecar serves; raises TimeoutError after `timeout` seconds."""
        await self.client.ready(timeout)

    async def healthCheck(self) -> dict[str, Any]:
        """`status` and each engine's state."""
        return await self.client.health()

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class ConfigServiceDatabaseConfig(_DatabaseConfig):
    """What the configuration service calls."""

    async def storeConfig(self, user: str, key: str, data: Any) -> int:
        """Write, and the new version."""
        return await self.client.config.put(user, key, data)

    async def getConfig(self, user: str, key: str) -> Any:
        """The value, None when there is none."""
        entry = await self.client.config.get(user, key)
        return None if entry is None else entry.value

    async def deleteConfig(self, user: str, key: str) -> None:
        """Gone afterwards."""
        await self.client.config.delete(user, key)

    async def cacheConfig(self, user: str, key: str, data: Any, ttl: int | None = None) -> Written:
        """What `getConfig` says for `ttl` seconds; PostgreSQL is not touched."""
        return await self.client.config.cache(user, key, data, ttl=ttl)

    async def logConfigChange(self, user: str, key: str, old: Any, new: Any) -> None:
        """Add to the history a change that was made elsewhere."""
        await self.client.config.log_change(user, key, old, new)

    async def getConfigHistory(self, user: str, key: str, limit: int = 100) -> Page:
        """Newest first."""
        return await self.client.config.history(user, key, limit=limit)


class ApiGatewayDatabaseConfig(_DatabaseConfig):
    """What the API gateway calls."""

    async def storeSession(self, id: str, data: Any, ttl: int = 3600) -> Written:
        """Keep a session for `ttl` seconds."""
        return await self.client.sessions.store(id, data, ttl=ttl)

    async def getSession(self, id: str) -> Any:
        """The session's data, None when there is none."""
        session = await self.client.sessions.get(id)
        return None if session is None else session.data

    async def deleteSession(self, id: str) -> None:
        """Gone afterwards."""
        await self.client.sessions.delete(id)

    async def checkRateLimit(
        self, clientId: str, windowMs: int = 900_000, limit: int = 100
    ) -> RateLimit:
        """Count one hit, unless it is over the limit: then `allowed` is False."""
        return await self.client.rate_limit.check(clientId, window_ms=windowMs, limit=limit)

    async def logApiRequest(self, data: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> int:
        """Hand over requests that were served, and how many were taken."""
        return await self.client.analytics.log(data)
