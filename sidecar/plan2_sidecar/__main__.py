"""`plan2-sidecar`: settings from the environment, then serve until told to stop."""

# ruff: noqa: E402  before the rest is imported
from plan2_sidecar import lean

lean.starting()

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn

import uvloop

from plan2_contract import environment
from plan2_contract.environment import InvalidVariable
from plan2_sidecar import app
from plan2_sidecar.connections import ConnectionEnvironment, ConnectionFile, Connections
from plan2_sidecar.embedded.errors import CannotStart, PackagesMissing
from plan2_sidecar.settings import Settings

Work = Coroutine[Any, Any, None]


def main() -> None:
    """Exit code 0 after a clean stop, 1 when it cannot start, 2 when it was asked wrongly."""
    embedded, data = _asked(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = Settings.read(os.environ)
        work = _embedded(settings, data) if embedded else _plain(settings, data)
    except (InvalidVariable, PackagesMissing) as error:
        _refuse(str(error))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    except (OSError, CannotStart) as error:
        sys.exit(f"plan2-sidecar: {error}")


def _asked(arguments: list[str]) -> tuple[bool, Path | None]:
    """Whether the engines are to be brought along, and where their data is."""
    if not arguments:
        return False, None
    from plan2_sidecar.arguments import parser

    options = parser().parse_args(arguments)
    return options.embedded, options.data


def _refuse(why: str) -> NoReturn:
    from plan2_sidecar.arguments import parser

    parser().error(why)


def _plain(settings: Settings, data: Path | None) -> Work:
    if data is not None:
        raise InvalidVariable("--data goes with --embedded")
    return app.serve(settings, _connections(settings))


def _embedded(settings: Settings, data: Path | None) -> Work:
    if settings.connection_file is not None:
        raise InvalidVariable(f"{environment.CONNECTION_FILE} and --embedded exclude each other")
    from plan2_sidecar.embedded import folder, packages

    packages.check()
    from plan2_sidecar.embedded import supervisor

    path = data or folder.default_folder(os.environ)
    return supervisor.serve(settings, path.absolute(), os.environ)


def _connections(settings: Settings) -> Connections:
    if settings.connection_file is not None:
        return ConnectionFile(settings.connection_file)
    return ConnectionEnvironment(os.environ)


if __name__ == "__main__":
    main()
