"""ClickHouse's engine (chdb) in a process of its own, behind ClickHouse's HTTP interface."""

import http.client
import os
import sys
from typing import Final

from plan2_contract.engines import DATABASES, Engine
from plan2_sidecar.embedded.folder import Home
from plan2_sidecar.embedded.process import Program

NAME: Final = "clickhouse"
USER: Final = "default"
SERVER: Final = "plan2_sidecar.embedded.clickhouse_server"


def prepare(home: Home) -> Program:
    """Nothing is made beforehand. The password goes in by standard input."""
    kept = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "TZ")
    environment = {name: value for name, value in os.environ.items() if name in kept}
    coverage = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    options = ("--port", str(home.port), "--data", str(home.path / "data"), "--user", USER)
    return Program(
        name=NAME,
        command=(
            *(sys.executable, "-m", SERVER, *options),
            *("--database", DATABASES[Engine.CLICKHOUSE]),
        ),
        address=f"127.0.0.1:{home.port}",
        log=home.path / "log",
        lock=home.lock,
        environment={**environment, **coverage, "HOME": str(home.path)},
        configuration=home.password,
        ready=lambda _pid: _ready(home),
    )


def variables(home: Home) -> dict[str, str]:
    """Where the sidecar finds it."""
    return {
        "CLICKHOUSE_HOST": "127.0.0.1",
        "CLICKHOUSE_PORT": str(home.port),
        "CLICKHOUSE_DB": DATABASES[Engine.CLICKHOUSE],
        "CLICKHOUSE_USER": USER,
        "CLICKHOUSE_PASSWORD": home.password,
    }


def _ready(home: Home) -> bool:
    """Whether the one at the port is ours: another would refuse the password."""
    connection = http.client.HTTPConnection("127.0.0.1", home.port, timeout=1)
    login = {"X-ClickHouse-User": USER, "X-ClickHouse-Key": home.password}
    try:
        connection.request("POST", "/", headers=login)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
