"""The only door to the Kubernetes API, and the only writer.

Server-side apply for what the operator owns, POST for what must never be overwritten, merge
patches with a resourceVersion for the rest. Errors of the API come out as the few words the
loop can act on. What to write is decided elsewhere.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from kubernetes.aio import client as api
from kubernetes.aio import config, dynamic

from plan2_contract import names
from plan2_operator import kinds, metrics
from plan2_operator.kinds import Kind

Manifest = dict[str, Any]
Identity = tuple[str, str, str]
"""Kind, namespace and name of an object."""

REQUEST_TIMEOUT: Final = aiohttp.ClientTimeout(total=20, sock_connect=5)
WRITTEN: Final[ContextVar[set[Identity] | None]] = ContextVar("written", default=None)
"""Where a caller puts a set, each watched object is noted that it, or a task of its, wrote."""
PAGE_SIZE: Final = 500
WATCH_SECONDS: Final = 300
CONNECTIONS: Final = 16
"""As many requests at a time: each TLS connection of asyncio's holds a buffer of 256 KiB."""
MESSAGE_LENGTH: Final = 1024
"""The API server refuses an Event with a longer message."""
# The client ships without types; named Any, it can be called from typed code.
_config: Final[Any] = config
_dynamic: Final[Any] = dynamic
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


class ClusterError(Exception):
    """The API did not do what was asked; the message is the API server's own."""


class Refused(ClusterError):
    """The API server will never accept this (400, 403, 405, 422): the same request is useless."""


class Conflict(ClusterError):
    """Somebody was faster (409): read again and decide anew."""


class Missing(ClusterError):
    """The object, or its kind, is not there (404)."""


class Unavailable(ClusterError):
    """The API server cannot be reached or is overloaded: the same request may work later."""


class Meta(msgspec.Struct, frozen=True):
    """What a watch's event is read for; the rest of the object is not decoded."""

    resourceVersion: str
    namespace: str = ""
    labels: Mapping[str, str] = {}


class Live(msgspec.Struct, frozen=True):
    """An object of an event."""

    metadata: Meta


class Event(msgspec.Struct, frozen=True):
    """One line of a watch: `type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Live


_EVENTS: Final = msgspec.json.Decoder(Event)


class NoCluster(Exception):
    """There is no usable kubeconfig, nor a service account of a pod."""


class Cluster:
    """A connection to one cluster. Every call may raise ClusterError."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._dynamic = _dynamic.DynamicClient(client)
        self._applied: dict[Identity, tuple[str, str, str]] = {}
        self._optional: frozenset[Kind] = frozenset()

    @classmethod
    async def connect(cls, kubeconfig: str | None = None, *, watches: int = 0) -> Self:
        """By `kubeconfig`, else `$KUBECONFIG`, else the pod's own service account.

        `watches` is how many connections watches will hold for good. Raises NoCluster.
        """
        configuration = api.Configuration()
        path = kubeconfig or os.environ.get("KUBECONFIG")
        try:
            if path or not os.environ.get("KUBERNETES_SERVICE_HOST"):
                await _config.load_kube_config(
                    config_file=path, client_configuration=configuration, persist_config=False
                )
            else:
                _config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException as error:
            raise NoCluster(f"{path or 'the cluster'}: {error}") from error
        # Found once: the client would look for a proxy and a .netrc in a thread, at each request.
        configuration.client_session_kwargs = {"trust_env": False}
        configuration.connection_pool_maxsize = CONNECTIONS + watches
        configuration.proxy = configuration.proxy or _proxy(configuration.host)
        return cls(api.ApiClient(configuration))

    async def close(self) -> None:
        await self._client.close()

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """The object, or None when there is none of that name."""
        try:
            return await self._request("get", _path(kind, namespace, name))
        except Missing:
            return None

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str]
    ) -> list[Manifest]:
        """The objects that carry all of `labels`, read in pages."""
        items: list[Manifest] = []
        more: str | None = None
        while True:
            page = await self._request(
                "get",
                _path(kind, namespace),
                label_selector=_selector(labels),
                limit=PAGE_SIZE,
                _continue=more,
            )
            items += [
                {**item, "kind": kind.name, "apiVersion": kind.api_version}
                for item in page["items"]
            ]
            more = page["metadata"].get("continue")
            if not more:
                return items

    async def watch(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str], version: str
    ) -> AsyncIterator[Event]:
        """What happens after `version`; with "" first every object that is there, as ADDED.

        Ends by itself after `WATCH_SECONDS`; raises Missing when `version` is too old.
        """
        limit = aiohttp.ClientTimeout(total=WATCH_SECONDS + 30, sock_connect=5)
        rest = b""
        try:
            response = await self._dynamic.request(
                "get",
                _path(kind, namespace),
                serialize=False,
                _request_timeout=limit,
                label_selector=_selector(labels),
                resource_version=version or None,
                timeout_seconds=WATCH_SECONDS,
                query_params=[("watch", "true"), ("allowWatchBookmarks", "true")],
            )
            try:
                # Not by readline: that refuses objects longer than its buffer.
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield _event(line)
            finally:
                response.close()
        except api.ApiException as error:
            raise _translated(error) from error
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError) as error:
            raise Unavailable(f"the watch ended: {error!r}") from error

    async def apply(self, manifest: Manifest, live: Manifest | None = None) -> Manifest:
        """Server-side apply. Writes nothing when `live` is what the last equal apply returned."""
        kind = kinds.BY_NAME[manifest["kind"]]
        meta = manifest["metadata"]
        identity = (kind.name, meta["namespace"], meta["name"])
        digest = fingerprint(manifest)
        if live is not None and self._applied.get(identity) == (digest, *_version(live)):
            return live
        try:
            applied = await self._apply(kind, manifest)
        except Refused:
            if live is None:
                raise
            # Lists merged by a key, as a Service's ports are by number, keep an entry whose key
            # was edited beside ours, and the two together are invalid: put ours in their place.
            await self.patch(kind, live, {**manifest, "metadata": {}})
            applied = await self._apply(kind, manifest)
        self._applied[identity] = (digest, *_version(applied))
        return applied

    async def _apply(self, kind: Kind, manifest: Manifest) -> Manifest:
        meta = manifest["metadata"]
        _note(kind, manifest)
        return await self._request(
            "patch",
            _path(kind, meta["namespace"], meta["name"]),
            body=manifest,
            content_type="application/apply-patch+yaml",
            field_manager=names.FIELD_MANAGER,
            force_conflicts=True,
        )

    async def create(self, manifest: Manifest) -> Manifest:
        """POST: raises Conflict when an object of that name is there already."""
        kind = kinds.BY_NAME[manifest["kind"]]
        return await self._request(
            "post",
            _path(kind, manifest["metadata"]["namespace"]),
            body=manifest,
            field_manager=names.FIELD_MANAGER,
        )

    async def patch(self, kind: Kind, live: Manifest, change: Manifest) -> Manifest:
        """Merge `change` into `live`; raises Conflict when `live` is no longer the newest."""
        _note(kind, live)
        meta = {
            **change.get("metadata", {}),
            "uid": live["metadata"]["uid"],
            "resourceVersion": live["metadata"]["resourceVersion"],
        }
        return await self._request(
            "patch",
            _path(kind, live["metadata"]["namespace"], live["metadata"]["name"]),
            body={**change, "metadata": meta},
            content_type="application/merge-patch+json",
            field_manager=names.FIELD_MANAGER,
        )

    async def patch_status(self, body: Mapping[str, Any], status: Manifest) -> None:
        """Replace the status of a resource; raises Conflict when `body` is stale."""
        meta = body["metadata"]
        await self._request(
            "put",
            _path(kinds.PLATFORM, meta["namespace"], meta["name"]) + "/status",
            body={**body, "status": status},
            field_manager=names.FIELD_MANAGER,
        )

    async def event(
        self, body: Mapping[str, Any], kind: str, reason: str, message: str, *, once: str = ""
    ) -> None:
        """An Event on `body`; with `once`, a second one of that key is not made."""
        meta = body["metadata"]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = {"name": f"{meta['name']}.{once}"} if once else {"generateName": f"{meta['name']}."}
        event = {
            "apiVersion": kinds.EVENT.api_version,
            "kind": kinds.EVENT.name,
            "metadata": {**name, "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": body["apiVersion"],
                "kind": body["kind"],
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            },
            "type": kind,
            "reason": reason,
            "message": message[:MESSAGE_LENGTH],
            "source": {"component": names.FIELD_MANAGER},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self.create(event)
        except Conflict:
            return

    async def delete(self, kind: Kind, live: Manifest, *, orphan: bool = False) -> None:
        """Delete exactly `live` (by uid); gone already is well. `orphan` keeps what it owns."""
        _note(kind, live)
        meta = live["metadata"]
        options = {
            "propagationPolicy": "Orphan" if orphan else "Background",
            "preconditions": {"uid": meta["uid"]},
        }
        try:
            await self._request(
                "delete", _path(kind, meta["namespace"], meta["name"]), body=options
            )
        except (Missing, Conflict):
            return

    async def has(self, kind: Kind) -> bool:
        """Whether the cluster serves `kind` at all."""
        try:
            found = await self._request("get", f"/apis/{kind.api_version}")
        except Missing:
            return False
        return any(resource["name"] == kind.plural for resource in found["resources"])

    async def refresh_optional(self) -> None:
        """Look anew which of the optional kinds the cluster serves."""
        served = await asyncio.gather(*(self.has(kind) for kind in kinds.OPTIONAL))
        self._optional = frozenset(
            kind for kind, there in zip(kinds.OPTIONAL, served, strict=True) if there
        )

    def retire(self, kind: Kind) -> None:
        """An optional kind has gone from the cluster."""
        self._optional -= {kind}

    def served(self) -> Sequence[Kind]:
        """The owned kinds, and the optional ones found by `refresh_optional`."""
        return (*kinds.OWNED, *(kind for kind in kinds.OPTIONAL if kind in self._optional))

    def forget(self, namespace: str, cr: str) -> None:
        """Drop what is remembered about the applied objects of one resource."""
        for identity in [key for key in self._applied if key[1] == namespace]:
            if identity[2] == cr or identity[2].startswith(f"{cr}-"):
                del self._applied[identity]

    async def _request(self, method: str, path: str, **options: Any) -> Manifest:
        if method != "get":
            metrics.writes.labels(method).inc()
        try:
            response = await self._dynamic.request(
                method, path, serialize=False, _request_timeout=REQUEST_TIMEOUT, **options
            )
            return msgspec.json.decode(await response.read(), type=dict[str, Any])
        except api.ApiException as error:
            raise _translated(error) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"the API server cannot be reached: {error!r}") from error


def fingerprint(value: Any) -> str:
    """A short digest of plain data, the same for equal data."""
    return hashlib.sha256(_ENCODER.encode(value)).hexdigest()[:32]


def _note(kind: Kind, written: Manifest) -> None:
    noted = WRITTEN.get()
    if noted is not None and kind in kinds.OWNED:
        noted.add((kind.name, written["metadata"]["namespace"], written["metadata"]["name"]))


def _version(live: Manifest) -> tuple[str, str]:
    return live["metadata"]["uid"], live["metadata"]["resourceVersion"]


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _event(line: bytes) -> Event:
    event = _EVENTS.decode(line)
    if event.type == "ERROR":
        raise Missing("the watch cannot go on from where it was")
    return event


def _proxy(server: str) -> str | None:
    """The proxy the environment names for this server."""
    parts = urlsplit(server)
    if proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get(parts.scheme)


def _path(kind: Kind, namespace: str | None, name: str | None = None) -> str:
    resource = _dynamic.Resource(
        prefix="apis" if kind.group else "api",
        group=kind.group,
        api_version=kind.version,
        kind=kind.name,
        name=kind.plural,
        namespaced=True,
    )
    return str(resource.path(name=name, namespace=namespace))


def _translated(error: api.ApiException) -> ClusterError:
    message = _message(error)
    match error.status:
        case 404 | 410:
            return Missing(message)
        case 409:
            return Conflict(message)
        case 400 | 403 | 405 | 413 | 415 | 422:
            return Refused(message)
        case _:
            return Unavailable(message)


def _message(error: api.ApiException) -> str:
    try:
        status = msgspec.json.decode(error.body or b"", type=dict[str, Any])
    except msgspec.DecodeError:
        return f"{error.status} {error.reason}"
    return str(status.get("message") or error.reason)
