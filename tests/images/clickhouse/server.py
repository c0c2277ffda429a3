"""ClickHouse's HTTP interface over the embedded engine: the server the tests talk to.

The interface is the product's (`plan2_sidecar.embedded.clickhouse_server`); what the embedded
engine lacks and the operator manages, users and grants, is `access`.
"""

import argparse
import asyncio
import logging
import os
import xml.etree.ElementTree as ET
from pathlib import Path

from access import AccessControl

from plan2_sidecar.embedded.clickhouse_server.engine import Engine
from plan2_sidecar.embedded.clickhouse_server.facade import Facade, serve


def _check_configuration(directory: Path) -> None:
    # The real server does not start over a file it cannot read; a mistake must show here too.
    for file in [*directory.glob("config.d/*.xml"), *directory.glob("users.d/*.xml")]:
        if ET.parse(file).getroot().tag not in ("clickhouse", "yandex"):
            raise SystemExit(f"{file}: the root element must be <clickhouse>")


async def _serve(bind: str, port: int, data: Path, configuration: Path) -> None:
    _check_configuration(configuration)
    engine = Engine(data / "chdb")
    access = AccessControl(data / "access.json", configuration / "users.d")
    await serve(Facade(engine, access, "stand-in"), engine, bind, port)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8123)
    options, _ = parser.parse_known_args()
    bind = os.environ.get("CLICKHOUSE_BIND", "0.0.0.0")
    data = Path(os.environ.get("CLICKHOUSE_DATA", "/var/lib/clickhouse"))
    configuration = Path(os.environ.get("CLICKHOUSE_CONFIG", "/etc/clickhouse-server"))
    data.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO)
    asyncio.run(_serve(bind, options.port, data, configuration))


if __name__ == "__main__":
    main()
