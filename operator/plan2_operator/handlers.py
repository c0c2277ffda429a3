"""Every kopf decorator: each event only says which resource to look at again.

Nothing here reads what changed. The low-level `on.event` writes no annotation and no finalizer,
so a namespace can be deleted while the operator is away.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, cast

import kopf

from plan2_contract import names
from plan2_operator import kinds
from plan2_operator.settings import Settings
from plan2_operator.work_queue import Key

OWNED_SELECTOR: Final = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"


def register(
    registry: kopf.OperatorRegistry,
    enqueue: Callable[[Key], None],
    touched: Callable[[Key], None],
) -> None:
    """Fill `registry` with the handlers.

    They call `enqueue` when the resource itself changed, `touched` when an object of its did.
    """

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**kwargs) or _by_service_account(**kwargs)

    @kopf.on.event(names.GROUP, names.API_VERSION, names.PLURAL, registry=registry)
    async def platform(namespace: str | None, name: str | None, **_: Any) -> None:
        enqueue(Key(namespace or "", name or ""))

    async def owned(namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
        touched(Key(namespace or "", labels[names.LABEL_INSTANCE]))

    for kind in kinds.OWNED:
        kopf.on.event(
            kind.group,
            kind.version,
            kind.plural,
            id=f"owned-{kind.plural}",
            labels={names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_INSTANCE: kopf.PRESENT},
            registry=registry,
        )(owned)

    @kopf.on.event("v1", "pods", labels={names.LABEL_INJECT: kopf.PRESENT}, registry=registry)
    async def sidecar(namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
        touched(Key(namespace or "", labels[names.LABEL_INJECT]))


def _by_service_account(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """By the API server's address: its name would need the cluster's DNS to be up first."""
    info = kopf.login_with_service_account(**kwargs)
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if info is None or not host:
        return info
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    bracketed = f"[{host}]" if ":" in host else host
    return replace(info, server=f"https://{bracketed}:{port}")


class _NoDifferences(kopf.DiffBaseStorage):
    """Nobody asks here what changed: kopf need not copy each object to find out."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return cast(kopf.BodyEssence, {})

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """Nothing is written to an object."""


def kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """kopf told to keep to itself: no events of its own, no peering, narrow watches."""
    configured = kopf.OperatorSettings()
    configured.posting.enabled = False
    configured.posting.loggers = False
    configured.peering.standalone = True
    configured.persistence.diffbase_storage = _NoDifferences()
    # Neither namespaces nor CRDs are watched: both would need rights over the whole cluster.
    configured.scanning.disabled = True
    configured.watching.server_timeout = 300
    configured.watching.client_timeout = 310
    configured.watching.chunk_size = 500
    for kind in kinds.OWNED:
        configured.watching.label_selectors[kind.group, kind.version, kind.plural] = OWNED_SELECTOR
    configured.watching.label_selectors["", "v1", "pods"] = names.LABEL_INJECT
    return configured
