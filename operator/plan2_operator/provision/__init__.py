"""Databases, roles, grants and `bootstrap` inside the running engines.

`provision()` is the door: it picks the engine's module (whose driver is imported on first use),
holds the whole to one deadline and keeps passwords out of what it raises.
"""

import asyncio
import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, cast

from plan2_contract.engines import Engine
from plan2_operator.errors import ProvisionError
from plan2_operator.provision.base import (
    CONNECT_SECONDS,
    Provision,
    Provisioner,
    Reason,
    unavailable,
)
from plan2_operator.spec import Bootstrap, EngineSpec

__all__ = ["DEADLINE_SECONDS", "MODULES", "ProvisionError", "Reason", "provision"]

DEADLINE_SECONDS: Final = CONNECT_SECONDS
BOOTSTRAP_SECONDS: Final = 300.0
"""More where the user's own statements are to run: one that is cut short begins anew."""

MODULES: Final = MappingProxyType(
    {
        Engine.POSTGRESQL: "plan2_operator.provision.postgresql",
        Engine.DRAGONFLYDB: "plan2_operator.provision.dragonflydb",
        Engine.CLICKHOUSE: "plan2_operator.provision.clickhouse",
        Engine.WEAVIATE: "plan2_operator.provision.weaviate",
        Engine.ARANGODB: "plan2_operator.provision.arangodb",
        Engine.MONGODB: "plan2_operator.provision.mongodb",
        Engine.REDIS: "plan2_operator.provision.dragonflydb",
    }
)


async def provision(
    spec: EngineSpec,
    host: str,
    port: int,
    admin: Mapping[str, str],
    bootstrap: Bootstrap,
    *,
    seconds: float | None = None,
) -> None:
    """Bring the engine at `host`:`port` to `spec`; raises ProvisionError.

    `seconds` is the deadline of the whole, by default what fits the work.
    """
    if seconds is None:
        seconds = DEADLINE_SECONDS + (BOOTSTRAP_SECONDS if bootstrap.sql else 0)
    request = Provision(
        engine=spec.engine,
        host=host,
        port=port,
        database=spec.database or "",
        admin=admin,
        bootstrap=bootstrap,
        seconds=seconds,
    )
    module = cast(Provisioner, importlib.import_module(MODULES[spec.engine]))
    try:
        async with asyncio.timeout(seconds):
            await module.provision(request)
    except TimeoutError:
        step = f", it was at: {request.step}" if request.step else ""
        raise unavailable(f"provisioning took longer than {seconds:g} s{step}") from None
    except ProvisionError as error:
        message = request.without_secrets(error.message)
        raise ProvisionError(message, reason=error.reason, retry=error.retry) from None
