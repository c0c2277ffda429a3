"""PostgreSQL from the package index: a cluster made on the first start, then the server.

PostgreSQL refuses to run as root, so root starts it in a user namespace in which it is not: its
files stay root's, and no account has to exist. Where that is not allowed, the start says so.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from plan2_contract.engines import DATABASES, Engine
from plan2_sidecar.embedded import packages
from plan2_sidecar.embedded.errors import CannotStart
from plan2_sidecar.embedded.folder import Home
from plan2_sidecar.embedded.process import Program

NAME: Final = "postgresql"
USER: Final = "postgres"
NOT_ROOT: Final = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


def prepare(home: Home) -> Program:
    """Make the cluster if there is none; blocking, seconds the first time."""
    prefix = not_root()
    programs = packages.postgresql(_major(home.path / "data"))
    if not (home.path / "data").exists():
        _initialize(home, programs, prefix)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(home.port),
        "unix_socket_directories": "",
        "max_connections": "50",
    }
    options = [word for item in settings.items() for word in ("-c", "=".join(item))]
    data = home.path / "data"
    return Program(
        name=NAME,
        command=(*prefix, str(programs / "postgres"), "-D", str(data), *options),
        address=f"127.0.0.1:{home.port}",
        log=home.path / "log",
        lock=home.lock,
        environment=_environment(),
        ready=lambda pid: _ready(data / "postmaster.pid", pid),
        # Fast: running transactions are rolled back, what was committed is written.
        stop_signal=signal.SIGINT,
    )


def variables(home: Home) -> dict[str, str]:
    """Where the sidecar finds it."""
    return {
        "POSTGRES_HOST": "127.0.0.1",
        "POSTGRES_PORT": str(home.port),
        "POSTGRES_DB": DATABASES[Engine.POSTGRESQL],
        "POSTGRES_USER": USER,
        "POSTGRES_PASSWORD": home.password,
    }


def _initialize(home: Home, programs: Path, prefix: tuple[str, ...]) -> None:
    """Under another name until it is whole: whoever is killed in between begins again."""
    fresh = home.path / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    with tempfile.NamedTemporaryFile("w", dir=home.path) as password:
        password.write(home.password)
        password.flush()
        login = ("--auth=scram-sha-256", f"--username={USER}", f"--pwfile={password.name}")
        # PostgreSQL's own, so that text sorts and folds alike on every laptop.
        form = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        place = ("--no-instructions", "--encoding=UTF8", "-D", str(fresh))
        _run((*prefix, str(programs / "initdb"), *place, *form, *login), home.lock)
    # Over TCP nobody could ask yet; the server's single-user mode needs no password.
    single = (*prefix, str(programs / "postgres"), "--single", "-D", str(fresh), "postgres")
    _run(single, home.lock, f'CREATE DATABASE "{DATABASES[Engine.POSTGRESQL]}"\n')
    fresh.rename(home.path / "data")


def _run(command: tuple[str, ...], lock: int, typed: str = "") -> None:
    done = subprocess.run(
        command,
        input=typed,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
        pass_fds=(lock,),
    )
    if done.returncode:
        raise CannotStart(f"PostgreSQL's cluster was not made:\n{done.stdout}{done.stderr}")


def not_root() -> tuple[str, ...]:
    """What goes before each command; raises CannotStart where root has no way."""
    if os.geteuid() != 0:
        return ()
    if shutil.which(NOT_ROOT[0]):
        tried = subprocess.run([*NOT_ROOT, "true"], check=False, capture_output=True)
        if tried.returncode == 0:
            return NOT_ROOT
    raise CannotStart(
        "PostgreSQL does not run as root, and root may not make user namespaces here: "
        "start plan2-sidecar --embedded as an ordinary user"
    )


def _major(data: Path) -> int:
    version = data / "PG_VERSION"
    return int(version.read_text()) if version.exists() else 18


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _ready(file: Path, pid: int) -> bool:
    """What the server writes about itself: its pid on the first line, its state on the eighth."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"
