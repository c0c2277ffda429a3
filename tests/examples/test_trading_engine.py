"""examples/06-trading-engine: an order over three engines, undone where a step refuses."""

import asyncio
from typing import Any

import pytest
from arangoasync import ArangoClient
from arangoasync.auth import Auth

from fixtures.example_programs import bootstrap, resource, run
from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import Connect, SidecarProcess

NAME = "06-trading-engine"


@pytest.fixture
async def prepared(with_arangodb: SidecarProcess, arangodb: EngineServer, connect: Connect) -> Any:
    """What the example's resource asks for."""
    await bootstrap(NAME, connect(with_arangodb))
    auth = Auth(username=arangodb.admin_user, password=arangodb.admin_password)
    async with ArangoClient(hosts=arangodb.url) as vendor:
        database = await vendor.db("_system", auth_method="jwt", auth=auth)
        for asked in resource(NAME)["spec"]["arangodb"]["collections"]:
            kind = 3 if asked["type"] == "edge" else 2
            await database.create_collection(asked["name"], col_type=kind)
        yield
        for asked in resource(NAME)["spec"]["arangodb"]["collections"]:
            await database.delete_collection(asked["name"])


async def test_the_books_are_right_after_orders_that_were_filled_repeated_and_refused(
    with_arangodb: SidecarProcess, prepared: None
) -> None:
    done = await asyncio.to_thread(run, NAME, "trading_engine.py", sidecar=with_arangodb)

    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line[:48].split("  ") for line in done.stdout.splitlines()[1:-1]]
    became = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert became == [
        ["an order", "filled"],
        ["the same, sent again", "filled"],
        ["beyond the balance", "refused by money"],
        ["a symbol not listed", "refused by trade"],
    ]
    assert done.stdout.splitlines()[-1] == "the books are right"
