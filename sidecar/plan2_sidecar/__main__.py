"""`plan2-sidecar`: settings from the environment, then serve until told to stop."""

import argparse
import asyncio
import logging
import os
from importlib.metadata import version

import uvloop

from plan2_contract.environment import InvalidVariable
from plan2_sidecar import app
from plan2_sidecar.connections import ConnectionEnvironment, ConnectionFile, Connections
from plan2_sidecar.settings import Settings


def main() -> None:
    """Exit code 0 after a clean stop, 1 when a port is taken, 2 when a variable is wrong."""
    parser = argparse.ArgumentParser(
        prog="plan2-sidecar",
        description="One localhost API over the engines of a Plan2Database. Configured by the "
        "environment: PLAN2_CONNECTION_FILE, or POSTGRES_HOST, DRAGONFLY_HOST and the rest.",
    )
    parser.add_argument("--version", action="version", version=version("plan2"))
    parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = Settings.read(os.environ)
        connections = _connections(settings)
    except InvalidVariable as error:
        parser.error(str(error))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(app.serve(settings, connections))
    except OSError as error:
        parser.exit(1, f"plan2-sidecar: {error}\n")


def _connections(settings: Settings) -> Connections:
    if settings.connection_file is not None:
        return ConnectionFile(settings.connection_file)
    return ConnectionEnvironment(os.environ)


if __name__ == "__main__":
    main()
