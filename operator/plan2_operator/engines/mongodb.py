"""MongoDB: a replica set of one member, since transactions and change streams need one."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from plan2_contract.connection import Login, MongoDB
from plan2_contract.engines import PORTS, Engine
from plan2_operator import manifests
from plan2_operator.engines import access, configuration
from plan2_operator.manifests import Pod, Port, exec_probe, mount, scratch, tcp_probe, variable
from plan2_operator.model import EngineSpec, Manifest, Platform

PORT: Final = PORTS[Engine.MONGODB]
ROOT: Final = "root"
KEY_FILE: Final = "keyfile"
KEY_DIRECTORY: Final = "/etc/plan2/keyfile"
REPLICA_SET: Final = "rs0"
URI: Final = "uri"
OWNED: Final = (
    "auth",
    "bind_ip",
    "bind_ip_all",
    "config",
    "dbpath",
    "fork",
    "keyFile",
    "noauth",
    "port",
    "replSet",
)
_GIB: Final = 2**30
_WRITABLE: Final = "quit(db.hello().isWritablePrimary || db.hello().secondary ? 0 : 1)"


def objects(platform: Platform, spec: EngineSpec) -> list[Manifest]:
    """Everything but Secrets; raises InvalidSpec."""
    return manifests.workload(platform, spec, _pod(spec))


def admin_secret(
    platform: Platform, spec: EngineSpec, previous: Mapping[str, str], generate: Callable[[], str]
) -> dict[str, str]:
    made = access.passwords(previous, generate, username=ROOT)
    return made | {KEY_FILE: previous.get(KEY_FILE) or generate()}


def app_secret(platform: Platform, spec: EngineSpec, admin: Mapping[str, str]) -> dict[str, str]:
    return access.binding(spec.engine, connection(platform, spec, admin, spec.pool_max))


def connection(
    platform: Platform, spec: EngineSpec, admin: Mapping[str, str], pool_max: int
) -> MongoDB:
    if spec.external is not None:
        return _external(spec, admin, pool_max)
    return MongoDB(
        uri=_uri(spec, Login(username=access.APP_USER, password=admin[access.APP_PASSWORD])),
        ro_uri=_uri(spec, Login(username=access.RO_USER, password=admin[access.RO_PASSWORD])),
        database=spec.database,
        pool_max=pool_max,
    )


def max_connections(spec: EngineSpec) -> int | None:
    return None


def _uri(spec: EngineSpec, login: Login) -> str:
    # Directly: the member's own name in the set is another one, and there is only it.
    return (
        f"mongodb://{access.userinfo(login)}{access.service_host(spec)}:{PORT}/{spec.database}"
        f"?authSource={spec.database}&directConnection=true"
    )


def _external(spec: EngineSpec, admin: Mapping[str, str], pool_max: int) -> MongoDB:
    """The Secret's own `uri` if it has one: a set of hosts, or a name to look up."""
    external = spec.external
    uri = admin.get(URI, "")
    if external is not None and not uri:
        password = admin.get(access.PASSWORD, "")
        login = Login(username=admin.get(access.USERNAME) or ROOT, password=password)
        options = [
            *(["authSource=admin"] if password else []),
            *(["tls=true"] if external.tls else []),
        ]
        uri = (
            f"mongodb://{access.userinfo(login) if password else ''}"
            f"{external.host}:{external.port}/{spec.database}"
        )
        uri += f"?{'&'.join(options)}" if options else ""
    return MongoDB(
        uri=uri,
        database=spec.database,
        ca_pem=admin.get(access.CA) or None,
        pool_max=pool_max,
    )


def _pod(spec: EngineSpec) -> Pod:
    return Pod(
        ports=(Port(name="mongodb", number=PORT),),
        data_path="/data/db",
        args=("mongod", *_arguments(spec)),
        env=(
            manifests.admin_variable(spec, "MONGO_INITDB_ROOT_USERNAME", access.USERNAME),
            variable(
                "MONGO_INITDB_ROOT_PASSWORD_FILE",
                f"{manifests.ADMIN_DIRECTORY}/{access.PASSWORD}",
            ),
            variable("HOME", "/data/db"),
        ),
        mounts=(
            mount("configdb", "/data/configdb"),
            mount("keyfile", KEY_DIRECTORY, read_only=True),
        ),
        volumes=(scratch("configdb"), scratch("keyfile", memory_bytes=2**20)),
        init=(_key_container(spec),),
        # From outside the pod: while the image initialises, mongod listens on loopback alone.
        startup=tcp_probe(PORT, periodSeconds=2, timeoutSeconds=5, failureThreshold=900),
        readiness=exec_probe(
            "mongosh",
            "--quiet",
            "--norc",
            "--eval",
            _WRITABLE,
            periodSeconds=10,
            timeoutSeconds=20,
            failureThreshold=3,
        ),
        # mongosh costs a second of CPU each time: too dear to ask twice as often.
        liveness=tcp_probe(PORT, periodSeconds=10, timeoutSeconds=5, failureThreshold=6),
        grace_seconds=120,
    )


def _arguments(spec: EngineSpec) -> list[str]:
    half = (spec.memory_limit_bytes - _GIB) / 2 / _GIB
    ours = {"wiredTigerCacheSizeGB": f"{max(0.25, half):.2f}"}
    settings = configuration.merged(spec, ours, owned=OWNED, pattern=r"[A-Za-z][A-Za-z0-9_]*")
    return [
        f"--replSet={REPLICA_SET}",
        f"--keyFile={KEY_DIRECTORY}/{KEY_FILE}",
        "--bind_ip_all",
        *(f"--{key}={value}" for key, value in settings.items()),
    ]


def _key_container(spec: EngineSpec) -> dict[str, Any]:
    """mongod takes no key that its group may read, and a Secret's files are always so."""
    source = f"{manifests.ADMIN_DIRECTORY}/{KEY_FILE}"
    made: dict[str, Any] = {
        "name": "keyfile",
        "image": spec.image,
        "command": ["/bin/sh", "-c", f"install -m 0400 {source} {KEY_DIRECTORY}/{KEY_FILE}"],
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"memory": "64Mi"},
        },
        "securityContext": dict(manifests.container_security()),
        "volumeMounts": [
            dict(mount("admin", manifests.ADMIN_DIRECTORY, read_only=True)),
            dict(mount("keyfile", KEY_DIRECTORY)),
        ],
    }
    if spec.image_pull_policy:
        made["imagePullPolicy"] = spec.image_pull_policy
    return made
