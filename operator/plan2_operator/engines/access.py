"""The Secrets and connections that engines have in common: roles, URIs, servicebinding keys."""

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote

from plan2_contract import names
from plan2_contract.connection import KeyValue, Login, MongoDB, Sql, Weaviate
from plan2_contract.engines import Engine
from plan2_operator.engines.base import Connection
from plan2_operator.errors import InvalidSpec
from plan2_operator.model import EngineSpec

APP_USER: Final = "plan2_app"
RO_USER: Final = "plan2_ro"
USERNAME: Final = "username"
PASSWORD: Final = "password"
APP_PASSWORD: Final = "app-password"
RO_PASSWORD: Final = "ro-password"
CA: Final = "ca.crt"
PROVIDER: Final = "plan2"
BINDING_KEYS: Final = frozenset(
    {
        *("type", "provider", "host", "port", "database", "username", "password", "uri"),
        *("scheme", "grpc-port", "api-key", CA),
    }
)
"""Every key that `binding` may write: one that it does not is what is left of another time."""
# What servicebinding.io calls them; clients of Redis speak to Dragonfly.
_TYPES: Final = {Engine.DRAGONFLYDB: "redis"}
_SCHEMES: Final = {
    Engine.POSTGRESQL: ("postgresql", "postgresql"),
    Engine.DRAGONFLYDB: ("redis", "rediss"),
    Engine.REDIS: ("redis", "rediss"),
    Engine.CLICKHOUSE: ("clickhouse", "clickhouses"),
    Engine.ARANGODB: ("http", "https"),
}


def passwords(
    previous: Mapping[str, str], generate: Callable[[], str], *, username: str
) -> dict[str, str]:
    """The admin's and both roles' passwords; whatever stands in `previous` stays as it is."""
    made = dict(previous)
    made[USERNAME] = previous.get(USERNAME) or username
    for key in (PASSWORD, APP_PASSWORD, RO_PASSWORD):
        made[key] = previous.get(key) or generate()
    return made


def fixed_username(spec: EngineSpec, previous: Mapping[str, str], username: str) -> None:
    """Refuse another name where the engine has only that one; raises InvalidSpec."""
    given = previous.get(USERNAME) or username
    if given != username:
        raise InvalidSpec(
            f"{spec.path}.credentialsSecretRef",
            f"the administrator is called {username}, its Secret says {given!r}",
        )


def sql(spec: EngineSpec, admin: Mapping[str, str], pool_max: int, *, superuser: str) -> Sql:
    """The application role of a managed engine, or the one login of an external one."""
    external = spec.external
    if external is not None:
        return Sql(
            host=external.host,
            port=external.port,
            tls=external.tls,
            ca_pem=admin.get(CA) or None,
            database=spec.database,
            rw=Login(username=admin.get(USERNAME) or superuser, password=admin.get(PASSWORD, "")),
            pool_max=pool_max,
        )
    return Sql(
        host=service_host(spec),
        port=spec.port,
        database=spec.database,
        rw=Login(username=APP_USER, password=admin[APP_PASSWORD]),
        ro=Login(username=RO_USER, password=admin[RO_PASSWORD]),
        pool_max=pool_max,
    )


def key_value(spec: EngineSpec, admin: Mapping[str, str], pool_max: int, *, ro: str) -> KeyValue:
    """As `sql`; an external server without a password is asked for none."""
    external = spec.external
    if external is not None:
        password = admin.get(PASSWORD, "")
        user = admin.get(USERNAME) or "default"
        return KeyValue(
            host=external.host,
            port=external.port,
            tls=external.tls,
            ca_pem=admin.get(CA) or None,
            rw=Login(username=user, password=password) if password else None,
            pool_max=pool_max,
        )
    return KeyValue(
        host=service_host(spec),
        port=spec.port,
        rw=Login(username="default", password=admin[APP_PASSWORD]),
        ro=Login(username=ro, password=admin[RO_PASSWORD]),
        pool_max=pool_max,
    )


def binding(engine: Engine, connection: Connection) -> dict[str, str]:
    """The keys of a servicebinding.io Secret; `environment.CLASSIC` reads them too."""
    made = {"type": _TYPES.get(engine, engine.value), "provider": PROVIDER}
    match connection:
        case Sql():
            made |= _sql_keys(engine, connection)
        case KeyValue():
            made |= _key_value_keys(engine, connection)
        case Weaviate():
            made |= _weaviate_keys(connection)
        case MongoDB():
            made |= {"uri": connection.uri, "database": connection.database}
    if connection.ca_pem:
        made[CA] = connection.ca_pem
    return made


def service_host(spec: EngineSpec) -> str:
    return names.service_host(spec.cr, spec.engine, spec.namespace)


def userinfo(login: Login) -> str:
    return f"{quote(login.username, safe='')}:{quote(login.password, safe='')}@"


def _sql_keys(engine: Engine, connection: Sql) -> dict[str, str]:
    address = f"{connection.host}:{connection.port}"
    scheme = _SCHEMES[engine][connection.tls]
    # Clients of ArangoDB take the database and the login apart from the address.
    uri = f"{scheme}://{address}"
    if engine is not Engine.ARANGODB:
        uri = f"{scheme}://{userinfo(connection.rw)}{address}/{connection.database}"
    if engine is Engine.POSTGRESQL and connection.tls:
        uri += "?sslmode=require"
    return {
        "host": connection.host,
        "port": str(connection.port),
        "database": connection.database,
        "username": connection.rw.username,
        "password": connection.rw.password,
        "uri": uri,
    }


def _key_value_keys(engine: Engine, connection: KeyValue) -> dict[str, str]:
    made = {"host": connection.host, "port": str(connection.port)}
    login = ""
    if connection.rw is not None:
        made |= {"username": connection.rw.username, "password": connection.rw.password}
        login = userinfo(connection.rw)
    scheme = _SCHEMES[engine][connection.tls]
    return made | {"uri": f"{scheme}://{login}{connection.host}:{connection.port}"}


def _weaviate_keys(connection: Weaviate) -> dict[str, str]:
    made = {
        "scheme": connection.scheme,
        "host": connection.host,
        "port": str(connection.port),
        "grpc-port": str(connection.grpc_port),
        "uri": f"{connection.scheme}://{connection.host}:{connection.port}",
    }
    return made | ({"api-key": connection.api_key} if connection.api_key else {})
