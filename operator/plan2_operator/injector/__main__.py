"""`plan2-injector`: reads its settings, connects, serves until it is told to stop."""

# ruff: noqa: E402  before the rest is imported
from plan2_operator import lean

lean.starting()

import asyncio
import logging
import os
import signal
import sys

from plan2_contract.environment import InvalidVariable
from plan2_operator.injector import kube, settings
from plan2_operator.injector.app import Injector
from plan2_operator.injector.kube import NoCluster
from plan2_operator.injector.settings import Settings


def main() -> int:
    """Exit code 0 after a stop, 2 for settings that cannot be used."""
    try:
        told = settings.from_env(os.environ)
        logging.basicConfig(
            level=told.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
        asyncio.run(_serve(told))
    except (InvalidVariable, NoCluster) as error:
        print(f"plan2-injector: {error}", file=sys.stderr)  # noqa: T201 - for who started it
        return 2
    return 0


async def _serve(told: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    client = await kube.connect()
    try:
        await Injector(told, client).run(stop)
    finally:
        await client.close()


if __name__ == "__main__":
    sys.exit(main())
