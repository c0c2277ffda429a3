"""One engine of one resource, brought on as far as it goes this time.

`place` writes what the engine is made of; `report` says how it does, and provisions it once it
runs. Both keep an engine's failure to that engine.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from plan2_contract import names, schema
from plan2_contract.engines import Engine
from plan2_operator import engines, failures, kinds, manifests, metrics, observe, storage, versions
from plan2_operator.cluster import Cluster, ClusterError, Manifest, Refused, fingerprint
from plan2_operator.credentials import Credentials
from plan2_operator.failures import EngineFailure
from plan2_operator.observe import Observed
from plan2_operator.provisioning import Outcome, Provisioning
from plan2_operator.spec import Bootstrap, EngineSpec, InvalidSpec, Platform, with_scripts
from plan2_operator.status import EngineFacts, Phase, engine_facts
from plan2_operator.work_queue import Key

Provision = Callable[[EngineSpec, str, int, Mapping[str, str], Bootstrap], Awaitable[None]]

_READS_AT_START: Final = frozenset(
    {Engine.DRAGONFLYDB, Engine.CLICKHOUSE, Engine.WEAVIATE, Engine.REDIS}
)
"""The engines that take their users from a file or a variable; the others keep them as data."""
_LOG: Final = logging.getLogger(__name__)


@dataclass
class Placed:
    """What `place` came to. `admin` is None while the credentials are not known.

    `wanted` holds the (kind, name) of the engine's objects; None: they could not be worked out.
    """

    spec: EngineSpec
    wanted: frozenset[tuple[str, str]] | None = None
    stateful_set: Manifest | None = None
    volume: Manifest | None = None
    admin: Mapping[str, str] | None = field(default=None, repr=False)
    provisioned: str | None = None
    failure: EngineFailure | None = None

    @property
    def usable(self) -> bool:
        """Whether the sidecars' document can be made anew of what is known of the engine."""
        return self.admin is not None and self.wanted is not None


class Rollout:
    """The engines of `platform` during one reconcile."""

    def __init__(
        self,
        cluster: Cluster,
        platform: Platform,
        observed: Observed,
        credentials: Credentials,
        *,
        provisioning: Provisioning,
        provision: Provision,
    ) -> None:
        self._cluster = cluster
        self._platform = platform
        self._observed = observed
        self._credentials = credentials
        self._provisioning = provisioning
        self._provision = provision
        self._key = Key(platform.namespace, platform.name)

    async def place(self, spec: EngineSpec) -> Placed:
        """Write the engine's Secrets and objects; what fails stands in the answer."""
        placed = Placed(spec, stateful_set=self._stateful_set(spec))
        try:
            if spec.managed:
                await self._deploy(placed)
            else:
                await self._wire(placed)
        except Exception as error:  # noqa: BLE001  one engine's trouble is never the others'
            placed.failure = _failure(placed.spec, error)
        return placed

    async def report(self, placed: Placed) -> EngineFacts:
        """How the engine does; provisions it when it runs and needs it."""
        spec, pod = placed.spec, self._observed.pods.get(placed.spec.engine)
        outcome = Outcome(done=not spec.managed)
        if placed.failure is None and placed.admin is not None and self._runs(spec):
            try:
                outcome = await self._provisioned(placed, placed.admin, pod)
            except Exception as error:  # noqa: BLE001  as above
                placed.failure = _failure(spec, error)
        if not self._runs(spec):
            self._provisioning.forget(self._key, spec.engine)
        message = outcome.error.message if outcome.error else ""
        facts = engine_facts(spec, placed.stateful_set, pod, outcome.done, message)
        if placed.failure is not None:
            return _failed(facts, placed.failure)
        if outcome.error is not None and not outcome.error.retry:
            refusal = outcome.error
            return _failed(facts, EngineFailure(refusal.reason, refusal.message, stalled=True))
        if facts.phase is Phase.READY and placed.volume is not None:
            await storage.note_image(self._cluster, placed.volume, spec.image)
        return facts

    def look(self, spec: EngineSpec) -> EngineFacts:
        """How the engine does; nothing is written and nothing provisioned."""
        pod = self._observed.pods.get(spec.engine)
        return engine_facts(spec, self._stateful_set(spec), pod, True, "")

    def _runs(self, spec: EngineSpec) -> bool:
        return spec.managed and not self._platform.hibernate

    def _stateful_set(self, spec: EngineSpec) -> Manifest | None:
        name = names.engine_object(spec.cr, spec.engine)
        return self._observed.objects.get((kinds.STATEFUL_SET.name, name))

    async def _wire(self, placed: Placed) -> None:
        """A disabled engine has nothing; an external one the user's Secret and ours for apps."""
        placed.wanted = frozenset()
        if placed.spec.enabled:
            placed.admin = await self._credentials.given(placed.spec)
            await self._credentials.application(placed.spec, placed.admin)

    async def _deploy(self, placed: Placed) -> None:
        spec, module = placed.spec, engines.MODULES[placed.spec.engine]
        placed.volume = await storage.claim(self._cluster, spec.namespace, spec.cr, spec.engine)
        placed.admin, placed.provisioned = await self._credentials.admin(
            spec, volume=placed.volume is not None
        )
        await self._credentials.application(spec, placed.admin)
        module.max_connections(spec)
        objects = module.objects(self._platform, spec)
        placed.wanted = frozenset((made["kind"], made["metadata"]["name"]) for made in objects)
        written_by = storage.written_by(placed.volume)
        if written_by is not None:
            versions.check(spec, written_by)
        replaced = not await storage.fit(self._cluster, spec, placed.volume, placed.stateful_set)
        # The StatefulSet last: its pod finds its Services, its ConfigMap and its policy.
        for made in sorted(objects, key=_is_stateful_set):
            if _is_stateful_set(made):
                if not replaced:
                    placed.stateful_set = await self._apply(_stamped(made, spec, placed.admin))
            else:
                await self._apply(made)

    async def _apply(self, made: Manifest) -> Manifest | None:
        """Apply `made`, unless its kind is optional and not served here."""
        kind = kinds.BY_NAME[made["kind"]]
        if kind not in self._cluster.served():
            return None
        live = self._observed.objects.get((kind.name, made["metadata"]["name"]))
        return await self._cluster.apply(made, live)

    async def _provisioned(
        self, placed: Placed, admin: Mapping[str, str], pod: Manifest | None
    ) -> Outcome:
        spec = placed.spec
        bootstrap = await self._bootstrap(spec)
        wanted = fingerprint(
            {
                "engine": spec.engine,
                "database": spec.database,
                "admin": dict(admin),
                "bootstrap": bootstrap,
                "schema": schema.NEWEST if spec.engine is Engine.POSTGRESQL else 0,
                # An empty volume in place of the old one has to be provisioned again.
                "volume": placed.volume["metadata"]["uid"] if placed.volume else "",
            }
        )
        if placed.provisioned == wanted:
            return Outcome(done=True)
        if not observe.is_up(pod):
            return Outcome(done=False)
        host = names.pod_host(spec.cr, spec.engine, spec.namespace)
        outcome = self._provisioning.look(
            self._key,
            spec.engine,
            wanted,
            lambda: self._provision(spec, host, spec.port, admin, bootstrap),
        )
        if outcome.done:
            await self._credentials.mark_provisioned(spec, wanted)
        return outcome

    async def _bootstrap(self, spec: EngineSpec) -> Bootstrap:
        name = spec.bootstrap.config_map
        if name is None:
            return spec.bootstrap
        live = await self._cluster.get(kinds.CONFIG_MAP, spec.namespace, name)
        if live is None:
            message = f"{spec.path}.bootstrap.configMapRef: there is no ConfigMap {name}"
            raise EngineFailure(failures.BOOTSTRAP_MISSING, message)
        return with_scripts(spec.bootstrap, live.get("data") or {})


def _stamped(made: Manifest, spec: EngineSpec, admin: Mapping[str, str]) -> Manifest:
    """A change of the user's Secret reaches an engine that reads it at its start by a new pod."""
    if spec.credentials_secret is None or spec.engine not in _READS_AT_START:
        return made
    # Generated passwords go in too, so that nobody can guess the user's by the digest.
    return manifests.with_credentials(made, fingerprint(dict(admin)))


def _is_stateful_set(made: Manifest) -> bool:
    return bool(made["kind"] == kinds.STATEFUL_SET.name)


def _failed(facts: EngineFacts, failure: EngineFailure) -> EngineFacts:
    """An API server that is away says nothing about the engine: its phase stays as it was seen."""
    metrics.engine_errors.labels(facts.engine.value, failure.reason).inc()
    phase = facts.phase if failure.reason == failures.API_UNAVAILABLE else Phase.FAILED
    return replace(
        facts,
        phase=phase,
        reason=failure.reason,
        message=failure.message,
        stalled=failure.stalled,
    )


def _failure(spec: EngineSpec, error: Exception) -> EngineFailure:
    match error:
        case EngineFailure():
            return error
        case InvalidSpec():
            return EngineFailure(error.reason, str(error), stalled=True)
        case Refused():
            return EngineFailure(failures.REFUSED, str(error))
        case ClusterError():
            return EngineFailure(failures.API_UNAVAILABLE, str(error))
        case _:
            _LOG.error("%s of %s/%s", spec.engine, spec.namespace, spec.cr, exc_info=error)
            return EngineFailure(failures.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
