"""Follows the databases' pods, so that nobody has to ask every two seconds how they do.

kopf has one watch for each kind, and that of the pods follows the applications'. An end, a cut
and an event too old to go on from are all mended here; until then the queue's own looks serve.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from plan2_contract import names
from plan2_operator import kinds
from plan2_operator.cluster import Cluster, ClusterError
from plan2_operator.observe import DATABASE
from plan2_operator.work_queue import Key

LABELS: Final = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_COMPONENT: DATABASE}
PAUSE_SECONDS: Final = 5.0
_LOG: Final = logging.getLogger(__name__)


async def follow(
    cluster: Cluster, namespaces: tuple[str, ...], touched: Callable[[Key], None]
) -> None:
    """Call `touched` with the resource of each pod that changes; runs until cancelled.

    `namespaces` empty means all.
    """
    async with asyncio.TaskGroup() as group:
        for scope in namespaces or (None,):
            group.create_task(_follow(cluster, scope, touched))


async def _follow(cluster: Cluster, scope: str | None, touched: Callable[[Key], None]) -> None:
    version = ""
    while True:
        try:
            async for event in cluster.watch(kinds.POD, scope, LABELS, version):
                meta = event.object.metadata
                version = meta.resourceVersion
                if names.LABEL_INSTANCE in meta.labels:
                    touched(Key(meta.namespace, meta.labels[names.LABEL_INSTANCE]))
        except ClusterError as error:
            _LOG.warning("pods in %s: %s", scope or "all namespaces", error)
            # Begun anew, a watch starts with every pod that is there.
            version = ""
            await asyncio.sleep(PAUSE_SECONDS)
