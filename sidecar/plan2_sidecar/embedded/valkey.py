"""Valkey, the free continuation of Redis, in Dragonfly's place; on disk within a second."""

import os
import socket
from typing import Final

from plan2_sidecar.embedded import packages
from plan2_sidecar.embedded.folder import Home
from plan2_sidecar.embedded.process import Program

NAME: Final = "valkey"


def prepare(home: Home) -> Program:
    """Nothing is made beforehand. The password goes in by standard input, not by the arguments."""
    data = home.path / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    settings = {
        "bind": "127.0.0.1",
        "port": str(home.port),
        "dir": f'"{data}"',
        "requirepass": home.password,
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
    }
    return Program(
        name=NAME,
        command=(str(packages.valkey()), "-"),
        address=f"127.0.0.1:{home.port}",
        log=home.path / "log",
        lock=home.lock,
        environment={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        configuration="".join(f"{name} {value}\n" for name, value in settings.items()),
        ready=lambda _pid: _ready(home),
    )


def variables(home: Home) -> dict[str, str]:
    """Where the sidecar finds it: it stands where Dragonfly would."""
    return {
        "DRAGONFLY_HOST": "127.0.0.1",
        "DRAGONFLY_PORT": str(home.port),
        "DRAGONFLY_USER": "default",
        "DRAGONFLY_PASSWORD": home.password,
    }


def _ready(home: Home) -> bool:
    """PONG comes when the data is loaded."""
    try:
        with socket.create_connection(("127.0.0.1", home.port), timeout=1) as connection:
            connection.sendall(f"AUTH {home.password}\r\nPING\r\n".encode())
            seen = b""
            while seen.count(b"\r\n") < 2 and (more := connection.recv(256)):
                seen += more
    except OSError:
        return False
    return seen.endswith(b"+PONG\r\n")
