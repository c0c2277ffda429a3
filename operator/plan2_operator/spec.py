"""From a resource's body to a Platform: every default filled in, every rule checked.

`decode` repeats the rules of the CRD, since a resource can be older than a rule, and adds
those that a CRD cannot say. It reads nothing but the body it is given. What depends on live
objects (a volume that would shrink) has a check here and is called by `reconcile`.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec

from plan2_contract import environment, names
from plan2_contract.engines import DATABASES, PORTS, WEAVIATE_GRPC_PORT, Engine
from plan2_operator import catalog, quantities, resource
from plan2_operator.catalog import Catalog
from plan2_operator.errors import InvalidSpec
from plan2_operator.model import (
    Bootstrap,
    Collection,
    EngineSpec,
    External,
    Monitoring,
    NetworkPolicy,
    Platform,
    Resources,
    Scheduling,
    Sidecar,
    Storage,
)

__all__ = [
    "Bootstrap",
    "Collection",
    "EngineSpec",
    "External",
    "InvalidSpec",
    "Monitoring",
    "NetworkPolicy",
    "Platform",
    "Resources",
    "Scheduling",
    "Sidecar",
    "Storage",
    "check_storage",
    "decode",
    "with_scripts",
]

NAME_LENGTH_MESSAGE: Final = f"must be at most {names.MAX_NAME_LENGTH} characters"
NAME_LABEL_MESSAGE: Final = "must be a DNS label that begins with a letter"
EXTERNAL_MESSAGE: Final = "cannot be set together with external: nothing is deployed"
SHRINK_MESSAGE: Final = "cannot shrink: a volume only grows"
SIZE_MESSAGE: Final = "must be a quantity above nothing, such as 10Gi"
REQUEST_MESSAGE: Final = "a request is above its limit"
SQL_MESSAGE: Final = "give either sql or configMapRef"
HOST_MESSAGE: Final = "must be a name or an address alone, without a scheme, a login or a port"
PEER_MESSAGE: Final = "must be either an ipBlock or selectors"
REQUIRED_MESSAGE: Final = "names an engine that is not enabled"
# What only a deployed engine has; `database` and `pool` go with an external one too.
DEPLOYED_FIELDS: Final = (
    "image",
    "imagePullPolicy",
    "imagePullSecrets",
    "storage",
    "resources",
    "configuration",
    "credentialsSecretRef",
    "scheduling",
    "bootstrap",
    "collections",
    "port",
)
DATABASE_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_-]*$"
MAX_DATABASE_LENGTH: Final = 63
_LABEL: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DATABASE: Final = re.compile(DATABASE_PATTERN)
_HOST: Final = re.compile(r"[^\s/@:]+|[0-9A-Fa-f.:]*:[0-9A-Fa-f.:]*:[0-9A-Fa-f.:]*")
_PATH: Final = re.compile(r"(?P<message>.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?", re.DOTALL)


def decode(body: Mapping[str, Any], known: Catalog = catalog.BUILT_IN) -> Platform:
    """The resource in `body`, defaults taken from `known`; raises InvalidSpec."""
    metadata = body["metadata"]
    _check_name(metadata["name"])
    written = _convert(body.get("spec") or {})
    return Platform(
        name=metadata["name"],
        namespace=metadata.get("namespace") or "default",
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        deletion_policy=written.deletion_policy,
        paused=written.paused,
        hibernate=written.hibernate,
        engines={engine: _engine(engine, metadata, written, known) for engine in Engine},
        sidecar=_sidecar(written, known),
        network_policy=_network_policy(written.network_policy),
        monitoring=Monitoring(
            service_monitor=written.monitoring.service_monitor,
            prometheus_rule=written.monitoring.prometheus_rule,
        ),
        operator_namespace=known.operator_namespace,
        deleting=bool(metadata.get("deletionTimestamp")),
        raw=body,
    )


def check_storage(spec: EngineSpec, live_size: str) -> None:
    """Refuse a size below that of the live volume; raises InvalidSpec."""
    if spec.storage.size_bytes < quantities.to_bytes(live_size):
        raise InvalidSpec(
            f"{spec.path}.storage.size",
            f"{SHRINK_MESSAGE}; the live one has {live_size}",
            reason="StorageShrinkRefused",
        )


def with_scripts(bootstrap: Bootstrap, data: Mapping[str, str]) -> Bootstrap:
    """The bootstrap with its ConfigMap's scripts behind its own, in the order of their keys."""
    return replace(bootstrap, sql=(*bootstrap.sql, *(data[key] for key in sorted(data))))


def _check_name(name: str) -> None:
    if len(name) > names.MAX_NAME_LENGTH:
        raise InvalidSpec("metadata.name", NAME_LENGTH_MESSAGE)
    if not _LABEL.fullmatch(name):
        raise InvalidSpec("metadata.name", NAME_LABEL_MESSAGE)


def _convert(written: Mapping[str, Any]) -> resource.Spec:
    try:
        return msgspec.convert(written, resource.Spec)
    except msgspec.ValidationError as error:
        match = _PATH.fullmatch(str(error))
        path = (match["path"] if match else None) or ""
        message = match["message"] if match else str(error)
        raise InvalidSpec(f"spec{path}", message) from error


def _engine(
    engine: Engine, metadata: Mapping[str, Any], written: resource.Spec, known: Catalog
) -> EngineSpec:
    block: resource.EngineBlock = getattr(written, engine.value)
    path = f"spec.{engine.value}"
    external = _external(engine, block, path)
    return EngineSpec(
        engine=engine,
        cr=metadata["name"],
        namespace=metadata.get("namespace") or "default",
        enabled=block.enabled,
        image=_text(block.image, f"{path}.image") or known.image(engine),
        image_pull_policy=block.image_pull_policy or known.image_pull_policy,
        image_pull_secrets=tuple(secret.name for secret in block.image_pull_secrets or ()),
        database=_database(engine, block, path),
        port=_port(getattr(block, "port", None), f"{path}.port") or PORTS[engine],
        storage=_storage(engine, block, path),
        resources=_engine_resources(engine, block, path),
        configuration=_configuration(block),
        bootstrap=_bootstrap(block, path),
        credentials_secret=_name(block.credentials_secret_ref),
        external=external,
        pool_max=_pool_max(block, path),
        scheduling=_scheduling(block),
    )


def _external(engine: Engine, block: resource.EngineBlock, path: str) -> External | None:
    given = block.external
    if given is None:
        return None
    for name in DEPLOYED_FIELDS:
        if getattr(block, _attribute(name), None) is not None:
            raise InvalidSpec(f"{path}.{name}", EXTERNAL_MESSAGE)
    if not given.host:
        raise InvalidSpec(f"{path}.external.host", "must not be empty")
    if not _HOST.fullmatch(given.host):
        raise InvalidSpec(f"{path}.external.host", HOST_MESSAGE)
    grpc_port = _port(getattr(given, "grpc_port", None), f"{path}.external.grpcPort")
    return External(
        host=given.host,
        port=_port(given.port, f"{path}.external.port") or PORTS[engine],
        tls=given.tls,
        credentials_secret=_name(given.credentials_secret_ref),
        grpc_port=grpc_port or WEAVIATE_GRPC_PORT,
    )


def _name(reference: resource.Reference | None) -> str | None:
    return None if reference is None else reference.name


def _attribute(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def _text(value: str | None, path: str) -> str | None:
    if value is not None and not value.strip():
        raise InvalidSpec(path, "must not be empty")
    return value


def _port(value: int | None, path: str) -> int | None:
    if value is not None and not 1 <= value <= 65535:
        raise InvalidSpec(path, f"{value} is not between 1 and 65535")
    return value


def _at_least(low: int, value: int | None, path: str) -> int | None:
    if value is not None and value < low:
        raise InvalidSpec(path, f"{value} is less than {low}")
    return value


def _pool_max(block: resource.EngineBlock, path: str) -> int:
    given = block.pool or resource.Pool()
    return _at_least(1, given.max, f"{path}.pool.max") or catalog.POOL_MAX


def _quantity(value: resource.Quantity, path: str) -> str:
    text = str(value)
    try:
        quantities.parse(text)
    except quantities.BadQuantity as error:
        raise InvalidSpec(path, str(error)) from None
    return text


def _database(engine: Engine, block: resource.EngineBlock, path: str) -> str:
    name: str = getattr(block, "database", None) or DATABASES.get(engine, "")
    if engine in DATABASES and not (_DATABASE.fullmatch(name) and len(name) <= MAX_DATABASE_LENGTH):
        raise InvalidSpec(f"{path}.database", f"{name!r} is not the name of a database")
    return name


def _storage(engine: Engine, block: resource.EngineBlock, path: str) -> Storage:
    given = block.storage or resource.Storage()
    size = given.size or catalog.ENGINES[engine].storage
    try:
        too_small = quantities.to_bytes(size) < 1
    except quantities.BadQuantity:
        too_small = True
    if too_small:
        raise InvalidSpec(f"{path}.storage.size", SIZE_MESSAGE)
    return Storage(size=size, storage_class_name=given.storage_class_name)


def _engine_resources(engine: Engine, block: resource.EngineBlock, path: str) -> Resources:
    defaults = catalog.ENGINES[engine]
    return _resources(
        block.resources,
        requests={"cpu": defaults.cpu_request, "memory": defaults.memory_request},
        limits={"memory": defaults.memory_limit},
        path=f"{path}.resources",
    )


def _resources(
    given: resource.Resources | None,
    *,
    requests: Mapping[str, str],
    limits: Mapping[str, str],
    path: str,
) -> Resources:
    """The user's word over the defaults; a default gives way where it would contradict it."""
    given = given or resource.Resources()
    asked = {
        key: _quantity(value, f"{path}.requests.{key}") for key, value in given.requests.items()
    }
    capped = {key: _quantity(value, f"{path}.limits.{key}") for key, value in given.limits.items()}
    for key in sorted(asked.keys() & capped.keys()):
        if quantities.parse(asked[key]) > quantities.parse(capped[key]):
            raise InvalidSpec(f"{path}.requests", f"{REQUEST_MESSAGE}: {key}")
    merged_requests = {
        key: asked.get(key) or _smaller(value, capped.get(key)) for key, value in requests.items()
    }
    merged_limits = {
        key: capped.get(key) or _larger(value, asked.get(key)) for key, value in limits.items()
    }
    return Resources(requests={**merged_requests, **asked}, limits={**merged_limits, **capped})


def _smaller(default: str, bound: str | None) -> str:
    return min((default, bound), key=quantities.parse) if bound else default


def _larger(default: str, bound: str | None) -> str:
    return max((default, bound), key=quantities.parse) if bound else default


def _configuration(block: resource.EngineBlock) -> dict[str, str]:
    return {key: str(value) for key, value in sorted((block.configuration or {}).items())}


def _bootstrap(block: resource.EngineBlock, path: str) -> Bootstrap:
    match block:
        case resource.PostgreSQL(bootstrap=given) | resource.ClickHouse(bootstrap=given) if given:
            if given.sql is not None and given.config_map_ref is not None:
                raise InvalidSpec(f"{path}.bootstrap", SQL_MESSAGE)
            return Bootstrap(sql=tuple(given.sql or ()), config_map=_name(given.config_map_ref))
        case resource.ArangoDB(collections=collections) if collections:
            return Bootstrap(
                collections=tuple(Collection(name=c.name, type=c.type) for c in collections)
            )
        case resource.Weaviate(collections=classes) if classes:
            for index, body in enumerate(classes):
                if not isinstance(body.get("class"), str):
                    raise InvalidSpec(f"{path}.collections[{index}].class", "must be a name")
            return Bootstrap(classes=tuple(classes))
    return Bootstrap()


def _scheduling(block: resource.EngineBlock) -> Scheduling:
    fields = msgspec.to_builtins(block.scheduling or resource.Scheduling())
    return Scheduling(fields={key: value for key, value in fields.items() if value is not None})


def _network_policy(written: resource.NetworkPolicy) -> NetworkPolicy:
    for index, peer in enumerate(written.allow_from):
        selects = "namespaceSelector" in peer or "podSelector" in peer
        if ("ipBlock" in peer) == selects:
            raise InvalidSpec(f"spec.networkPolicy.from[{index}]", PEER_MESSAGE)
    return NetworkPolicy(mode=written.mode, allow_from=tuple(written.allow_from))


def _sidecar(spec: resource.Spec, known: Catalog) -> Sidecar:
    written = spec.sidecar
    required = [
        _engine_id(name, "spec.sidecar.requiredEngines") for name in written.required_engines
    ]
    for engine in required:
        if not getattr(spec, engine.value).enabled:
            # Its sidecars would wait for it for ever, and the applications with them.
            raise InvalidSpec("spec.sidecar.requiredEngines", f"{REQUIRED_MESSAGE}: {engine}")
    routing = written.routing or resource.SidecarRouting()
    limits = written.limits or resource.SidecarLimits()
    cache = written.cache or resource.SidecarCache()
    return Sidecar(
        image=_text(written.image, "spec.sidecar.image") or known.sidecar_image,
        resources=_resources(
            written.resources,
            requests=catalog.SIDECAR_REQUESTS,
            limits=catalog.SIDECAR_LIMITS,
            path="spec.sidecar.resources",
        ),
        required_engines=tuple(required),
        max_body_bytes=_body_bytes(limits),
        cache_max_bytes=_cache_bytes(cache),
        tables={
            table: _engine_id(name, f"spec.sidecar.routing.tables.{table}")
            for table, name in (routing.tables or {}).items()
        },
    )


def _body_bytes(limits: resource.SidecarLimits) -> int | None:
    low, high = environment.SMALLEST_BODY_BYTES, environment.LARGEST_BODY_BYTES
    if limits.max_body_bytes is not None and not low <= limits.max_body_bytes <= high:
        path = "spec.sidecar.limits.maxBodyBytes"
        raise InvalidSpec(path, f"{limits.max_body_bytes} is not between {low} and {high}")
    return limits.max_body_bytes


def _cache_bytes(cache: resource.SidecarCache) -> int | None:
    high = environment.LARGEST_CACHE_BYTES
    if cache.max_bytes is not None and not 0 <= cache.max_bytes <= high:
        path = "spec.sidecar.cache.maxBytes"
        raise InvalidSpec(path, f"{cache.max_bytes} is not between 0 and {high}")
    return cache.max_bytes


def _engine_id(name: str, path: str) -> Engine:
    try:
        return Engine(name)
    except ValueError:
        known = ", ".join(engine.value for engine in Engine)
        raise InvalidSpec(path, f"{name!r} is none of {known}") from None
