"""Deletes what is ours and no longer wanted: a disabled engine, a policy that was turned off.

Ours is what carries our labels and is owned by this very resource. Volumes and Secrets are
never pruned.
"""

from collections.abc import Iterable

from plan2_contract.engines import Engine
from plan2_operator import desired, kinds, observe, storage
from plan2_operator.cluster import Cluster, Manifest
from plan2_operator.observe import Observed
from plan2_operator.rollout import Placed
from plan2_operator.spec import Platform


async def prune(
    cluster: Cluster, platform: Platform, observed: Observed, placed: Iterable[Placed]
) -> None:
    """Delete the observed objects that no engine wants; those of an unsure engine stay."""
    shared = {(made["kind"], made["metadata"]["name"]) for made in desired.shared_objects(platform)}
    wanted = {each.spec.engine: each.wanted for each in placed}
    for identity, live in observed.objects.items():
        if not _is_ours(live, platform) or storage.going(live):
            continue
        engine = observe.engine_of(live)
        kept = shared if engine is None else wanted[engine]
        if kept is not None and identity not in kept:
            await _delete(cluster, platform, live, engine)


def _is_ours(live: Manifest, platform: Platform) -> bool:
    owners = live["metadata"].get("ownerReferences") or []
    return any(owner["uid"] == platform.uid for owner in owners)


async def _delete(
    cluster: Cluster, platform: Platform, live: Manifest, engine: Engine | None
) -> None:
    kind = kinds.BY_NAME[live["kind"]]
    free = True
    if kind is kinds.STATEFUL_SET and engine is not None:
        free = await _volume_is_free(cluster, platform, live, engine)
    if free:
        await cluster.delete(kind, live)


async def _volume_is_free(
    cluster: Cluster, platform: Platform, live: Manifest, engine: Engine
) -> bool:
    """Whether the volume outlives the StatefulSet. Turning an engine off must not cost its data.

    Under `deletionPolicy: Delete` the StatefulSet takes its claim along; it is told not to, and
    deleted only once its controller has let go of the claim.
    """
    policy = live["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    if policy.get("whenDeleted") == "Delete":
        retain = {"whenDeleted": "Retain", "whenScaled": policy.get("whenScaled", "Retain")}
        await cluster.patch(
            kinds.STATEFUL_SET, live, {"spec": {"persistentVolumeClaimRetentionPolicy": retain}}
        )
        return False
    volume = await storage.claim(cluster, platform.namespace, platform.name, engine)
    owners = ((volume or {}).get("metadata") or {}).get("ownerReferences") or []
    return not any(owner["uid"] == live["metadata"]["uid"] for owner in owners)
