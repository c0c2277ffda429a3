"""The spine: one function for a resource that is new, changed, drifted, or only looked at again.

decode → each engine by itself (credentials, objects) → the connection document → prune →
how the engines do → status, written once and only if it changed.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random, SystemRandom
from time import monotonic
from typing import Any, Final, Self

from plan2_contract import names
from plan2_contract.engines import Engine
from plan2_operator import (
    desired,
    events,
    kinds,
    observe,
    passwords,
    provision,
    spec,
    status,
)
from plan2_operator.cluster import WRITTEN, Cluster, ClusterError, Conflict, Identity, Manifest
from plan2_operator.credentials import Credentials
from plan2_operator.injector import sidecar
from plan2_operator.injector.settings import Settings as InjectorSettings
from plan2_operator.observe import Observed, Sidecars
from plan2_operator.provisioning import Provisioning
from plan2_operator.prune import prune
from plan2_operator.rollout import Placed, Provision, Rollout
from plan2_operator.settings import Settings
from plan2_operator.sight import Sight
from plan2_operator.spec import InvalidSpec, Platform
from plan2_operator.status import Facts, Phase
from plan2_operator.work_queue import Key

MISSED_SIDECAR: Final = "SidecarMissed"
_LOG: Final = logging.getLogger(__name__)


@dataclass
class Reconciler:
    """Brings resources to their specs. Holds nothing that a restart would miss."""

    cluster: Cluster
    settings: Settings
    provisioning: Provisioning
    provision: Provision = provision.provision
    generate: Callable[[], str] = passwords.generate
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sight: Sight = field(default_factory=Sight)
    _missed: dict[Key, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def connected(cls, cluster: Cluster, settings: Settings, random: Random | None = None) -> Self:
        """One for a real cluster."""
        provisioning = Provisioning(clock=monotonic, random=random or SystemRandom())
        return cls(cluster, settings, provisioning)

    async def run(self, key: Key) -> float | None:
        """Bring one resource on; seconds until the next look, None when it is gone."""
        written: set[Identity] = set()
        WRITTEN.set(written)
        try:
            pause = await self._run(key)
        except Exception:
            self.sight.lose(key)
            raise
        # Seen before it was written: the watches tell of that too, but later. And whoever waits
        # for an engine looks for itself, so that a watch that hangs holds up nobody.
        if written or pause != self.settings.resync_seconds:
            self.sight.lose(key)
        return pause

    async def _run(self, key: Key) -> float | None:
        body = await self.cluster.get(kinds.PLATFORM, *key)
        if body is None or body["metadata"].get("deletionTimestamp"):
            # What it owns goes by its owner references; nothing waits for the operator.
            self._forget(key)
            return None
        observed = await self.sight.resource(self.cluster, key)
        sidecars = observe.sidecars(
            observed.applications,
            fingerprint=self._sidecar_fingerprint(body),
            operator_namespace=self.settings.operator_namespace,
            excluded_namespaces=self.settings.excluded_namespaces,
        )
        try:
            platform = spec.decode(body, self.settings.catalog)
        except InvalidSpec as error:
            return await self._say(body, Facts(engines={}, sidecars=_counts(sidecars), error=error))
        facts, problem = await self._bring_on(platform, observed, sidecars)
        pause = await self._say(body, facts)
        await self._report_missed(key, sidecars)
        if problem is not None:
            raise problem
        return pause

    async def _bring_on(
        self, platform: Platform, observed: Observed, sidecars: Sidecars
    ) -> tuple[Facts, ClusterError | None]:
        """What is known of the engines afterwards, and what went wrong outside of them."""
        credentials = Credentials(self.cluster, platform, self.generate)
        rollout = Rollout(
            self.cluster,
            platform,
            observed,
            credentials,
            provisioning=self.provisioning,
            provision=self.provision,
        )
        specs = platform.engines.values()
        if platform.paused:
            looks = {each.engine: rollout.look(each) for each in specs}
            return Facts(engines=looks, sidecars=_counts(sidecars)), None
        await credentials.load()
        placed = await asyncio.gather(*(rollout.place(each) for each in specs))
        problem: ClusterError | None = None
        try:
            await self._share(platform, observed, credentials, placed, sidecars)
            await prune(self.cluster, platform, observed, placed)
        except ClusterError as error:
            problem = error
        reports = await asyncio.gather(*(rollout.report(each) for each in placed))
        engines = {facts.engine: facts for facts in reports}
        usable = replace(
            platform,
            engines={each.spec.engine: each.spec for each in placed if each.usable},
        )
        facts = Facts(
            engines=engines,
            sidecars=_counts(sidecars),
            low_budgets=tuple(desired.low_budgets(usable, sidecars.injected)),
        )
        return facts, problem

    async def _share(
        self,
        platform: Platform,
        observed: Observed,
        credentials: Credentials,
        placed: list[Placed],
        sidecars: Sidecars,
    ) -> None:
        """What belongs to no single engine; the sidecars' document before any engine is ready."""
        for made in desired.shared_objects(platform):
            if kinds.BY_NAME[made["kind"]] in self.cluster.served():
                live = observed.objects.get((made["kind"], made["metadata"]["name"]))
                await self.cluster.apply(made, live)
        await credentials.api_token()
        admin = {
            each.spec.engine: each.admin
            for each in placed
            if each.admin is not None and each.usable
        }
        document = desired.document(platform, admin, max(1, sidecars.injected))
        unsure = [each.spec.engine for each in placed if each.spec.enabled and not each.usable]
        await credentials.connection(document, keep=unsure)

    async def _say(self, body: Manifest, facts: Facts) -> float:
        previous = body.get("status") or {}
        current = status.of(body, facts, previous, self.now())
        if current != previous:
            try:
                await self.cluster.patch_status(body, current)
            except Conflict:
                return 0.0
            key = Key(body["metadata"]["namespace"], body["metadata"]["name"])
            for event in events.transitions(previous, current):
                _LOG.info("%s: %s: %s", key, event.reason, event.message)
                await self._tell(body, event.type, event.reason, event.message)
        return self._pause(body, facts, current["phase"])

    def _pause(self, body: Manifest, facts: Facts, phase: str) -> float:
        if phase in ("Ready", "Paused", "Hibernated"):
            return self.settings.resync_seconds
        if phase == "Degraded":
            return self.settings.failed_poll_seconds
        phases = {each.phase for each in facts.engines.values()}
        if phases & {Phase.PENDING, Phase.PROVISIONING}:
            key = Key(body["metadata"]["namespace"], body["metadata"]["name"])
            busy = self.provisioning.busy(key)
            return self.settings.poll_seconds if busy else self.settings.waiting_seconds
        return self.settings.resync_seconds

    async def _report_missed(self, key: Key, sidecars: Sidecars) -> None:
        told = self._missed.get(key, frozenset())
        self._missed[key] = frozenset(pod["metadata"]["uid"] for pod in sidecars.missed)
        for pod in sidecars.missed:
            if pod["metadata"]["uid"] in told:
                continue
            message = (
                f"The pod carries the label {names.LABEL_INJECT} and has no sidecar: "
                "the injector did not answer when it was made. Delete it to have it made anew."
            )
            once = f"{pod['metadata']['uid']}.sidecar-missed"
            await self._tell(pod, events.WARNING, MISSED_SIDECAR, message, once=once)

    async def _tell(
        self, body: Manifest, kind: str, reason: str, message: str, *, once: str = ""
    ) -> None:
        try:
            await self.cluster.event(body, kind, reason, message, once=once)
        except ClusterError as error:
            _LOG.warning("event %s on %s: %s", reason, body["metadata"]["name"], error)

    def _sidecar_fingerprint(self, body: Manifest) -> str:
        injector = InjectorSettings(
            namespace=self.settings.operator_namespace,
            sidecar_image=self.settings.catalog.sidecar_image,
            sidecar_pull_policy=self.settings.sidecar_pull_policy,
        )
        return sidecar.fingerprint(injector, sidecar.options(body))

    def _forget(self, key: Key) -> None:
        for engine in Engine:
            self.provisioning.forget(key, engine)
        self._missed.pop(key, None)
        self.sight.lose(key)
        self.cluster.forget(key.namespace, key.name)


def _counts(sidecars: Sidecars) -> dict[str, Any]:
    return {
        "injected": sidecars.injected,
        "outdated": sidecars.outdated,
        "missed": len(sidecars.missed),
    }
