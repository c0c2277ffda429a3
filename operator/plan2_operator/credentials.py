"""The Secrets of one resource: each password generated once, and never over live data.

A generated value stands in two Secrets: in `<cr>-recovery`, which holds those of every engine,
and in the engine's own `<cr>-<engine>-admin`, which its pod mounts. Each restores the other.

The order of writes is recovery first, then admin, then (in `reconcile`) the StatefulSet.
  - Killed after the recovery Secret: the next run finds the value there and only copies it.
  - Killed before it: nobody has seen the value, no pod can have started with it.
  - Admin first would be worse: a pod that waits for its admin Secret could initialise its
    volume in the moment before the recovery Secret is written.
A request of a killed process may still arrive later, so nothing is overwritten blindly: Secrets
are made by POST and changed with the resourceVersion that was read; whoever comes second gets
409, reads again, and takes what it finds. Both Secrets gone while the volume is there means the
password is lost: a new one would lock everybody out of the data, so none is made.

A user's own Secret goes before both, and is believed only once the engine was provisioned with
it: until then `UNPROVEN` names what it replaced, and giving it up brings the generated value
back from the recovery Secret.
"""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec

from plan2_contract import connection, names
from plan2_contract.engines import Engine
from plan2_operator import engines, kinds
from plan2_operator.cluster import Cluster, Conflict, Manifest, Unavailable
from plan2_operator.engines.access import BINDING_KEYS, CA
from plan2_operator.failures import (
    CREDENTIALS_INVALID,
    CREDENTIALS_LOST,
    CREDENTIALS_MISSING,
    EngineFailure,
)
from plan2_operator.spec import EngineSpec, Platform

PROVISIONED: Final = "plan2.io/provisioned"
"""Annotation on the admin Secret: the fingerprint of the last provisioning that succeeded."""
UNPROVEN: Final = "plan2.io/unproven"
"""Annotation on the admin Secret: the keys whose given value no provisioning has used yet."""
ATTEMPTS: Final = 5
RETAIN: Final = "Retain"

_TOKEN: Final = "api-token"
_MADE_OF_OTHERS: Final = frozenset({"username", "users.acl", "users.xml"})
"""Keys of an admin Secret that are written anew from the others, so not worth recovering."""
_IN_THE_VOLUME: Final = frozenset({"password", "api-key", "keyfile"})
"""What an initialised volume knows: made anew, it would not open the volume."""
_ONE_LINE: Final = ("username", "password", "app-password", "ro-password", "api-key", "uri")


class Credentials:
    """The Secrets of `platform` during one reconcile. Every call may raise ClusterError."""

    def __init__(self, cluster: Cluster, platform: Platform, generate: Callable[[], str]) -> None:
        self._cluster = cluster
        self._platform = platform
        self._generate = generate
        self._recovery: Manifest | None = None
        self._recovery_lock = asyncio.Lock()

    async def load(self) -> None:
        """Read the recovery Secret; call it once before anything else."""
        self._recovery = await self._get(names.recovery_secret(self._platform.name))

    async def admin(self, spec: EngineSpec, *, volume: bool) -> tuple[dict[str, str], str | None]:
        """The data of a managed engine's admin Secret, made or mended, and `PROVISIONED`.

        The latter is None while a value of the user's Secret is still to be proven.
        `volume` says whether the engine's volume is there. Raises EngineFailure.
        """
        for _ in range(ATTEMPTS):
            try:
                return await self._admin(spec, volume)
            except Conflict:
                await self._reload()
        raise Unavailable(f"{names.admin_secret(spec.cr, spec.engine)} changes all the time")

    async def given(self, spec: EngineSpec) -> dict[str, str]:
        """What the user's own Secret says, {} when the spec names none; raises EngineFailure."""
        name = spec.external.credentials_secret if spec.external else spec.credentials_secret
        if name is None:
            return {}
        live = await self._get(name)
        if live is None:
            raise EngineFailure(
                CREDENTIALS_MISSING, f"the Secret {name} of {spec.path} does not exist"
            )
        data = decoded(live)
        for key, value in data.items():
            fault = _fault(key, value, external=spec.external is not None)
            if fault:
                message = f"the {key} of the Secret {name} of {spec.path} {fault}"
                raise EngineFailure(CREDENTIALS_INVALID, message, stalled=True)
        return data

    async def application(self, spec: EngineSpec, admin: Mapping[str, str]) -> None:
        """Write `<cr>-<engine>-app`, which an application binds to."""
        data = engines.MODULES[spec.engine].app_secret(self._platform, spec, admin)
        await self._keep(
            names.app_secret(spec.cr, spec.engine),
            data,
            labels=names.labels(spec.cr, spec.engine),
            kind=f"servicebinding.io/{data['type']}",
            without=BINDING_KEYS - data.keys(),
        )

    async def connection(
        self, document: connection.Document, *, keep: Collection[Engine] = ()
    ) -> None:
        """Write `<cr>-connection`, which the sidecars mount.

        The members of `keep` stay as they were written last: an engine whose credentials or
        spec cannot be read just now still runs, and no sidecar should close its pool.
        """
        cr = self._platform.name
        name = names.connection_secret(cr)
        live = await self._get(name)
        before = _document(live)
        if before is not None and keep:
            kept = {engine.value: getattr(before.engines, engine.value) for engine in keep}
            members = msgspec.structs.replace(document.engines, **kept)
            document = msgspec.structs.replace(document, engines=members)
        data = {connection.KEY: connection.encode(document).decode()}
        await self._put(name, live, data, labels=names.shared_labels(cr))

    async def api_token(self) -> None:
        """Write `<cr>-api-token` if it is gone; a user may add lines to it."""
        cr = self._platform.name
        for _ in range(ATTEMPTS):
            try:
                live = await self._get(names.api_token_secret(cr))
                token = decoded(live or {}).get(names.TOKEN_KEY) or self._recovered(_TOKEN).get(
                    names.TOKEN_KEY
                )
                data = {names.TOKEN_KEY: token or self._generate()}
                await self._remember(_TOKEN, data)
                await self._keep(names.api_token_secret(cr), data, labels=names.shared_labels(cr))
            except Conflict:
                await self._reload()
            else:
                return
        raise Unavailable(f"{names.api_token_secret(cr)} changes all the time")

    async def mark_provisioned(self, spec: EngineSpec, fingerprint: str) -> None:
        """Note on the admin Secret what was provisioned; a conflict is left to the next run."""
        live = await self._get(names.admin_secret(spec.cr, spec.engine))
        if live is not None:
            annotations = {PROVISIONED: fingerprint, UNPROVEN: None}
            change = {"metadata": {"annotations": annotations}}
            with contextlib.suppress(Conflict):
                await self._cluster.patch(kinds.SECRET, live, change)

    async def _admin(self, spec: EngineSpec, volume: bool) -> tuple[dict[str, str], str | None]:
        name = names.admin_secret(spec.cr, spec.engine)
        live, given = await asyncio.gather(self._get(name), self.given(spec))
        # The admin Secret before the recovery Secret: it is what the pod was started with.
        recovered, present = self._recovered(spec.engine), decoded(live or {})
        unproven = _unproven(live)
        given_up = {key: recovered[key] for key in unproven - given.keys() if key in recovered}
        previous = {**recovered, **present, **given_up, **given}
        module = engines.MODULES[spec.engine]
        data = module.admin_secret(self._platform, spec, previous, self._generate)
        lost = sorted((data.keys() - previous.keys()) & _IN_THE_VOLUME)
        if lost and volume:
            raise EngineFailure(
                CREDENTIALS_LOST,
                f"{' and '.join(lost)} of the volume {names.volume_claim(spec.cr, spec.engine)} "
                f"stand neither in {name} nor in {names.recovery_secret(spec.cr)}: "
                "restore one of the two Secrets, or delete the volume to begin without its data",
                stalled=True,
            )
        generated = data.keys() - given.keys() - _MADE_OF_OTHERS
        await self._remember(spec.engine, {key: data[key] for key in generated})
        new = {key for key, value in given.items() if present.get(key) != value}
        pending = (unproven & given.keys()) | new
        live = await self._put(
            name,
            live,
            data,
            labels=names.labels(spec.cr, spec.engine),
            annotations={UNPROVEN: ",".join(sorted(pending)) or None},
        )
        return data, None if pending else _annotations(live).get(PROVISIONED)

    def _recovered(self, part: Engine | str) -> dict[str, str]:
        prefix = f"{part}."
        return {
            key.removeprefix(prefix): value
            for key, value in decoded(self._recovery or {}).items()
            if key.startswith(prefix)
        }

    async def _remember(self, part: Engine | str, data: Mapping[str, str]) -> None:
        """Put `data` into the recovery Secret; raises Conflict if another process wrote it."""
        cr = self._platform.name
        # One at a time: the engines share this Secret, and would only conflict with each other.
        async with self._recovery_lock:
            self._recovery = await self._put(
                names.recovery_secret(cr),
                self._recovery,
                {f"{part}.{key}": value for key, value in data.items()},
                labels=names.shared_labels(cr),
            )

    async def _reload(self) -> None:
        async with self._recovery_lock:
            await self.load()

    async def _keep(
        self,
        name: str,
        data: Mapping[str, str],
        *,
        labels: Mapping[str, str],
        kind: str = "Opaque",
        without: Collection[str] = (),
    ) -> Manifest:
        live = await self._get(name)
        return await self._put(name, live, data, labels=labels, kind=kind, without=without)

    async def _put(
        self,
        name: str,
        live: Manifest | None,
        data: Mapping[str, str],
        *,
        labels: Mapping[str, str],
        kind: str = "Opaque",
        annotations: Mapping[str, str | None] | None = None,
        without: Collection[str] = (),
    ) -> Manifest:
        """Bring the Secret to hold `data` beside whatever else it holds; raises Conflict.

        The keys of `without` go, and so does an annotation whose value is None.
        """
        if live is None:
            made = self._manifest(name, data, labels, kind)
            made["metadata"]["annotations"] = {
                key: value for key, value in (annotations or {}).items() if value is not None
            }
            return await self._cluster.create(made)
        change = self._change(live, data, labels, annotations or {}, without)
        return await self._cluster.patch(kinds.SECRET, live, change) if change else live

    def _manifest(
        self, name: str, data: Mapping[str, str], labels: Mapping[str, str], kind: str
    ) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": kind,
            "metadata": {
                "name": name,
                "namespace": self._platform.namespace,
                "labels": dict(labels),
                "ownerReferences": self._owners([]),
            },
            "data": {key: _encoded(value) for key, value in data.items()},
        }

    def _change(
        self,
        live: Manifest,
        data: Mapping[str, str],
        labels: Mapping[str, str],
        annotations: Mapping[str, str | None],
        without: Collection[str],
    ) -> Manifest:
        present = live.get("data") or {}
        wanted: dict[str, str | None] = dict.fromkeys(without)
        wanted |= {key: _encoded(value) for key, value in data.items()}
        differing = {key: value for key, value in wanted.items() if present.get(key) != value}
        change: Manifest = {"data": differing} if differing else {}
        meta: dict[str, Any] = {}
        if labels.items() - (live["metadata"].get("labels") or {}).items():
            meta["labels"] = dict(labels)
        noted = _annotations(live)
        if any(noted.get(key) != value for key, value in annotations.items()):
            meta["annotations"] = dict(annotations)
        owners = live["metadata"].get("ownerReferences") or []
        if owners != self._owners(owners):
            meta["ownerReferences"] = self._owners(owners)
        return {**change, "metadata": meta} if meta else change

    def _owners(self, present: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Owned by the resource under Delete, by nobody under Retain; others' stay."""
        others = [
            owner
            for owner in present
            if (owner.get("kind"), owner.get("name")) != (names.KIND, self._platform.name)
        ]
        if self._platform.deletion_policy == RETAIN:
            return others
        return [*others, self._platform.owner_reference]

    async def _get(self, name: str) -> Manifest | None:
        return await self._cluster.get(kinds.SECRET, self._platform.namespace, name)


def _fault(key: str, value: str, *, external: bool) -> str:
    """Why a value of the user's cannot be used, empty if it can; the value is not in it."""
    if key in _ONE_LINE and value.endswith(("\n", "\r")):
        return "ends in a line break, which echo adds and printf does not"
    if key == CA and external:
        try:
            ssl.create_default_context(cadata=value)
        except ssl.SSLError:
            return "holds no certificate that can be used"
    return ""


def decoded(secret: Mapping[str, Any]) -> dict[str, str]:
    """The data of a Secret as text; empty values and what is not text are left out."""
    data: dict[str, str] = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            text = base64.b64decode(value).decode()
        except ValueError:
            continue
        if text:
            data[key] = text
    return data


def _annotations(live: Manifest) -> Mapping[str, str]:
    return live["metadata"].get("annotations") or {}


def _unproven(live: Manifest | None) -> frozenset[str]:
    noted = "" if live is None else _annotations(live).get(UNPROVEN, "")
    return frozenset(key for key in noted.split(",") if key)


def _document(live: Manifest | None) -> connection.Document | None:
    try:
        return connection.decode(decoded(live or {}).get(connection.KEY, "").encode())
    except connection.UnreadableDocument:
        return None


def _encoded(value: str) -> str:
    return base64.b64encode(value.encode()).decode()
