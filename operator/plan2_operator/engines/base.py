"""What the operator asks of an engine's module: what to deploy, and how to reach it.

The modules hold no state and do no I/O. `admin` is always the data of the engine's admin
Secret, decoded to text; for an external engine it is the data of the Secret that
`external.credentialsSecretRef` names (keys username, password, api-key, ca.crt; MongoDB may
give a whole `uri`), empty if it names none.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from plan2_contract.connection import KeyValue, MongoDB, Sql, Weaviate
from plan2_operator.model import EngineSpec, Manifest, Platform

__all__ = ["Connection", "EngineModule", "Manifest"]

Connection = Sql | KeyValue | Weaviate | MongoDB


class EngineModule(Protocol):
    """A module of this package, as `MODULES` holds it."""

    def objects(self, platform: Platform, spec: EngineSpec) -> list[Manifest]:
        """Everything but Secrets, in the order to apply; raises InvalidSpec."""

    def admin_secret(
        self,
        platform: Platform,
        spec: EngineSpec,
        previous: Mapping[str, str],
        generate: Callable[[], str],
    ) -> dict[str, str]:
        """The whole admin Secret: every value of `previous` kept, missing ones generated.

        Files made of passwords (users.acl, users.xml) are written anew each time.
        """

    def app_secret(
        self, platform: Platform, spec: EngineSpec, admin: Mapping[str, str]
    ) -> dict[str, str]:
        """The servicebinding.io Secret of the application role."""

    def connection(
        self, platform: Platform, spec: EngineSpec, admin: Mapping[str, str], pool_max: int
    ) -> Connection:
        """The engine's member of the connection document."""

    def max_connections(self, spec: EngineSpec) -> int | None:
        """How many connections the engine takes in all, where that is a narrow number."""
