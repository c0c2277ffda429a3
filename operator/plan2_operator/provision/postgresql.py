"""PostgreSQL: the database, the roles plan2_app and plan2_ro, grants, the schema `plan2`.

Everything is read first and written only where it differs. Passwords travel as SCRAM verifiers.
The administrator's sessions look names up in pg_catalog alone: the application owns the schema
public and must not be able to slip its own functions under the administrator's statements.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import asyncpg

from plan2_contract import schema
from plan2_operator.engines.access import (
    APP_PASSWORD,
    APP_USER,
    PASSWORD,
    RO_PASSWORD,
    RO_USER,
    USERNAME,
)
from plan2_operator.provision import postgresql_schema, scram, statements
from plan2_operator.provision.base import (
    Provision,
    bad_bootstrap,
    failed,
    refused_login,
    unavailable,
)

MAINTENANCE_DATABASE: Final = "postgres"

_UNAVAILABLE: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


async def provision(request: Provision) -> None:
    """Roles, database, grants, migrations, bootstrap; raises ProvisionError."""
    with _translated(request):
        async with _session(request, MAINTENANCE_DATABASE) as server:
            # Freed when the session ends; two operators then never write at once.
            await server.execute("SELECT pg_advisory_lock($1)", schema.LOCK)
            await _role(server, APP_USER, request.secret(APP_PASSWORD))
            await _role(server, RO_USER, request.secret(RO_PASSWORD))
            await _database(server, request.database)
            async with _session(request, request.database) as database:
                await _grants(database, request.database)
                await postgresql_schema.migrate(database)
                await _bootstrap(request, database)


def identifier(name: str) -> str:
    """The name quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


@asynccontextmanager
async def _session(
    request: Provision, database: str, *, app: bool = False
) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the administrator, or as the application with its own search path."""
    settings = {
        "application_name": "plan2-operator",
        # Nothing goes on in the server once this side has given up.
        "statement_timeout": str(int(request.seconds * 1000)),
    }
    connection = await asyncpg.connect(
        host=request.host,
        port=request.port,
        user=APP_USER if app else request.secret(USERNAME),
        password=request.secret(APP_PASSWORD if app else PASSWORD),
        database=database,
        ssl=False,
        timeout=request.connect_seconds,
        server_settings=settings if app else settings | {"search_path": "pg_catalog"},
    )
    try:
        yield connection
        await connection.close()
    finally:
        connection.terminate()


async def _role(server: asyncpg.Connection, name: str, password: str) -> None:
    role = await server.fetchrow(
        "SELECT rolpassword, rolcanlogin AND NOT (rolsuper OR rolcreatedb OR rolcreaterole "
        "OR rolreplication OR rolbypassrls) AS is_plain FROM pg_authid WHERE rolname = $1",
        name,
    )
    if role is not None and role["is_plain"] and scram.matches(role["rolpassword"], password):
        return
    verb = "CREATE" if role is None else "ALTER"
    rights = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
    # A verifier is base64, colons and dollars: it needs no escape.
    verifier = scram.new_verifier(password)
    await server.execute(f"{verb} ROLE {identifier(name)} {rights} PASSWORD '{verifier}'")


async def _database(server: asyncpg.Connection, name: str) -> None:
    if not await server.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
        await server.execute(f"CREATE DATABASE {identifier(name)}")


async def _grants(database: asyncpg.Connection, name: str) -> None:
    for holds, statement in _rights(identifier(name)):
        if not await database.fetchval(f"SELECT {holds}"):
            await database.execute(statement)


def _rights(database: str) -> Iterator[tuple[str, str]]:
    """Pairs of a condition and the statement that makes it true, in the order that works."""
    here = "current_database()"
    yield (
        f"NOT has_database_privilege('public', {here}, 'CONNECT, TEMPORARY')",
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
    )
    yield (
        f"has_database_privilege('{APP_USER}', {here}, 'CONNECT') "
        f"AND has_database_privilege('{APP_USER}', {here}, 'TEMPORARY')",
        f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {APP_USER}",
    )
    yield (
        f"has_database_privilege('{RO_USER}', {here}, 'CONNECT')",
        f"GRANT CONNECT ON DATABASE {database} TO {RO_USER}",
    )
    yield (
        "EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public' "
        f"AND pg_get_userbyid(nspowner) = '{APP_USER}')",
        f"CREATE SCHEMA IF NOT EXISTS public; ALTER SCHEMA public OWNER TO {APP_USER}",
    )
    yield (
        "NOT has_schema_privilege('public', 'public', 'CREATE')",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    )
    yield (
        f"has_schema_privilege('{RO_USER}', 'public', 'USAGE')",
        f"GRANT USAGE ON SCHEMA public TO {RO_USER}",
    )
    for kind, kinds, plural in (("r", "rpvmf", "TABLES"), ("S", "S", "SEQUENCES")):
        yield (
            "EXISTS (SELECT FROM pg_default_acl, aclexplode(defaclacl) AS given "
            f"WHERE defaclrole = '{APP_USER}'::regrole AND defaclnamespace = 0 "
            f"AND defaclobjtype = '{kind}' AND given.grantee = '{RO_USER}'::regrole "
            "AND given.privilege_type = 'SELECT')",
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {APP_USER} GRANT SELECT ON {plural} TO {RO_USER}",
        )
        yield (
            "NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            f"AND relkind = ANY (string_to_array('{kinds}', NULL)) "
            f"AND NOT has_table_privilege('{RO_USER}', oid, 'SELECT'))",
            f"GRANT SELECT ON ALL {plural} IN SCHEMA public TO {RO_USER}",
        )


async def _bootstrap(request: Provision, database: asyncpg.Connection) -> None:
    wanted = statements.fingerprints(request.bootstrap.sql)
    done = await postgresql_schema.applied_statements(database)
    start = statements.first_pending(wanted, done)
    if start == len(wanted):
        return
    async with _session(request, request.database, app=True) as application:
        for index in range(start, len(wanted)):
            place = f"bootstrap statement {index + 1} of {len(wanted)}"
            request.begin(place)
            try:
                # Without parameters the server runs the text as one transaction of its own,
                # and still allows what refuses a transaction block.
                await application.execute(request.bootstrap.sql[index])
            except _UNAVAILABLE:
                raise
            except asyncpg.PostgresError as error:
                raise bad_bootstrap(f"{place}: {error}") from error
            await postgresql_schema.record_statement(database, index, wanted[index])


@contextmanager
def _translated(request: Provision) -> Iterator[None]:
    try:
        yield
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise refused_login(f"{request.secret(USERNAME)!r}", str(error)) from error
    except _UNAVAILABLE as error:
        raise unavailable(error) from error
    except asyncpg.PostgresError as error:
        raise failed(str(error)) from error
