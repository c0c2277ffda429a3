"""Start PostgreSQL as the official image does: its variables, its first start, then the server.

The server is Debian's own; only the first start (initdb, the password, the database, scripts in
/docker-entrypoint-initdb.d) is here. Run as root it drops to the `postgres` user, as the official
image does with gosu; as any other user it stays that user.
"""

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPTS = Path("/docker-entrypoint-initdb.d")
DEFAULT_DATA = "/var/lib/postgresql/data"


def main(arguments: list[str]) -> None:
    """Initialise an empty PGDATA, then become the server; anything else is run as it stands."""
    if not arguments or arguments[0].startswith("-"):
        arguments = ["postgres", *arguments]
    if arguments[0] == "postgres":
        data = Path(os.environ.setdefault("PGDATA", DEFAULT_DATA))
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        _drop_privileges(data)
        data.chmod(0o700)
        if not (data / "PG_VERSION").exists():
            _initialise(data, arguments[1:])
    os.execvp(arguments[0], arguments)


def _drop_privileges(data: Path) -> None:
    if os.getuid() != 0:
        return
    user = pwd.getpwnam("postgres")
    for place in [data, *data.rglob("*")]:
        os.chown(place, user.pw_uid, user.pw_gid)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ["HOME"] = user.pw_dir


def _initialise(data: Path, server_arguments: list[str]) -> None:
    user = _variable("POSTGRES_USER", "postgres")
    password = _variable("POSTGRES_PASSWORD", "")
    database = _variable("POSTGRES_DB", user)
    method = os.environ.get("POSTGRES_HOST_AUTH_METHOD", "scram-sha-256")
    if not password and method != "trust":
        sys.exit(
            "Error: Database is uninitialized and superuser password is not specified.\n"
            "       You must specify POSTGRES_PASSWORD to a non-empty value for the superuser."
        )
    with tempfile.NamedTemporaryFile("w", suffix=".pw") as password_file:
        password_file.write(password + "\n")
        password_file.flush()
        _run(
            "initdb",
            f"--username={user}",
            f"--pwfile={password_file.name}",
            *_variable("POSTGRES_INITDB_ARGS", "").split(),
        )
    with (data / "pg_hba.conf").open("a") as access:
        access.write(f"\nhost all all all {method}\n")
    _with_temporary_server(data, server_arguments, user, password, database)


def _with_temporary_server(
    data: Path, server_arguments: list[str], user: str, password: str, database: str
) -> None:
    # Only a socket listens, in a place of its own: a probe over TCP must not see the server before
    # it is finished, and whatever the configuration says of ports must not matter here.
    with tempfile.TemporaryDirectory(prefix="init-") as sockets:
        last = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={sockets}"]
        options = [*server_arguments, *last, "-c", "port=5432"]
        _run("pg_ctl", "-D", str(data), "-o", _quoted(options), "-w", "start")
        environment = os.environ | {"PGPASSWORD": password, "PGUSER": user, "PGHOST": sockets}
        try:
            _create(database, environment | {"PGPORT": "5432"})
        finally:
            _run("pg_ctl", "-D", str(data), "-m", "fast", "-w", "stop")


def _create(database: str, environment: dict[str, str]) -> None:
    psql = ["psql", "-v", "ON_ERROR_STOP=1", "--no-password", "--no-psqlrc"]
    if database != "postgres":
        create = [*psql, "--dbname", "postgres", "--set", f"db={database}"]
        statement = 'CREATE DATABASE :"db"'
        subprocess.run(create, input=statement, text=True, env=environment, check=True)
    for script in sorted(SCRIPTS.glob("*")) if SCRIPTS.is_dir() else []:
        command = ["sh", str(script)] if script.suffix == ".sh" else [*psql, "-f", str(script)]
        subprocess.run(command, env=environment | {"PGDATABASE": database}, check=True)


def _variable(name: str, default: str) -> str:
    """The variable's value, or what the file named by its _FILE form holds."""
    direct, file = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if direct and file:
        sys.exit(f"error: both {name} and {name}_FILE are set (but are exclusive)")
    if file:
        return Path(file).read_text().rstrip("\n")
    return direct or default


def _quoted(options: list[str]) -> str:
    return " ".join("'" + option.replace("'", "'\\''") + "'" for option in options)


def _run(*command: str) -> None:
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    finished = subprocess.run(command, check=False, stdin=subprocess.DEVNULL)
    if finished.returncode:
        sys.exit(finished.returncode)


if __name__ == "__main__":
    main(sys.argv[1:])
