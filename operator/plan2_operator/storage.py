"""An engine's volume against its spec: it grows in place, it never shrinks.

A StatefulSet's claim template cannot change, so a grown volume means patching the claim and
replacing the StatefulSet; its pod is orphaned meanwhile and keeps running.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

from plan2_contract import names
from plan2_contract.engines import Engine
from plan2_operator import kinds, quantities, spec
from plan2_operator.cluster import Cluster, ClusterError, Manifest, Refused
from plan2_operator.failures import STORAGE_EXPANSION_REFUSED, EngineFailure
from plan2_operator.spec import EngineSpec

IMAGE: Final = "plan2.io/image"
"""Annotation on a volume claim: the image that was ready on it last."""
_LOG: Final = logging.getLogger(__name__)


async def claim(cluster: Cluster, namespace: str, cr: str, engine: Engine) -> Manifest | None:
    """The engine's volume claim, or None; one that is on its way out can never be used again."""
    live = await cluster.get(kinds.VOLUME_CLAIM, namespace, names.volume_claim(cr, engine))
    return None if live is None or going(live) else live


async def fit(
    cluster: Cluster, wanted: EngineSpec, volume: Manifest | None, stateful_set: Manifest | None
) -> bool:
    """Grow the volume to `wanted`; False while the StatefulSet is being replaced.

    Raises InvalidSpec for a shrink, EngineFailure when the cluster cannot expand the volume.
    """
    if volume is not None:
        size = _size(volume["spec"])
        spec.check_storage(wanted, size)
        if quantities.to_bytes(size) < wanted.storage.size_bytes:
            await _grow(cluster, wanted, volume)
    if stateful_set is None:
        return True
    if going(stateful_set):
        return False
    template = stateful_set["spec"]["volumeClaimTemplates"][0]["spec"]
    if quantities.to_bytes(_size(template)) == wanted.storage.size_bytes:
        return True
    await cluster.delete(kinds.STATEFUL_SET, stateful_set, orphan=True)
    return False


def written_by(volume: Manifest | None) -> str | None:
    """The image whose data the volume holds, as far as that was noted."""
    annotations = ((volume or {}).get("metadata") or {}).get("annotations") or {}
    return annotations.get(IMAGE)


async def note_image(cluster: Cluster, volume: Manifest, image: str) -> None:
    """Note on the volume that `image` is ready on it; a failure is left to the next look."""
    if written_by(volume) == image:
        return
    try:
        await cluster.patch(
            kinds.VOLUME_CLAIM, volume, {"metadata": {"annotations": {IMAGE: image}}}
        )
    except ClusterError as error:
        _LOG.warning("%s: its image is not noted: %s", volume["metadata"]["name"], error)


def going(live: Mapping[str, Any]) -> bool:
    """Being deleted."""
    return live["metadata"].get("deletionTimestamp") is not None


async def _grow(cluster: Cluster, wanted: EngineSpec, volume: Manifest) -> None:
    change = {"spec": {"resources": {"requests": {"storage": wanted.storage.size}}}}
    try:
        await cluster.patch(kinds.VOLUME_CLAIM, volume, change)
    except Refused as error:
        message = f"{wanted.path}.storage.size: the volume cannot grow: {error}"
        raise EngineFailure(STORAGE_EXPANSION_REFUSED, message, stalled=True) from error


def _size(claim_spec: Mapping[str, Any]) -> str:
    return str(claim_spec["resources"]["requests"]["storage"])
