"""`python -m plan2_sidecar.embedded.clickhouse_server`: the password comes by standard input."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from plan2_sidecar.embedded.clickhouse_server.engine import Engine
from plan2_sidecar.embedded.clickhouse_server.facade import Facade, OneUser, serve


def main() -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="clickhouse_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--database", required=True)
    options = parser.parse_args()
    password = sys.stdin.read().strip()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(_serve(options, password))


async def _serve(options: argparse.Namespace, password: str) -> None:
    engine = Engine(options.data)
    engine.create_database(options.database)
    facade = Facade(engine, OneUser(options.user, password), "plan2-embedded")
    await serve(facade, engine, "127.0.0.1", options.port)


if __name__ == "__main__":
    main()
