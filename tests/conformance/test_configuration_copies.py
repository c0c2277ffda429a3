"""Copying configuration changes out of PostgreSQL: each claimed by one, none forgotten."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar_services import where
from plan2_contract import schema
from plan2_sidecar.configuration import truth
from plan2_sidecar.configuration.copies import Copies
from plan2_sidecar.connections import ConnectionEnvironment
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import ConnectionLost
from plan2_sidecar.fleet import Fleet


class Warehouse:
    """Takes rows; `hold` keeps an insert waiting, `lose` breaks it after it was done."""

    configured = True

    def __init__(self) -> None:
        self.inserts: list[tuple[str, list[dict[str, Any]]]] = []
        self.started = asyncio.Event()
        self.hold: asyncio.Event | None = None
        self.lose = False

    async def insert(self, table: Any, rows: bytes, deadline: Any, **settings: str) -> None:
        self.started.set()
        if self.hold is not None:
            await self.hold.wait()
        lines = [msgspec.json.decode(line) for line in rows.split(b"\n")]
        self.inserts.append((settings["insert_deduplication_token"], lines))
        if self.lose:
            raise ConnectionLost("the answer was lost")


@pytest.fixture
async def database(postgresql: EngineServer) -> AsyncIterator[Database]:
    """PostgreSQL without changes of other tests."""
    fleet = Fleet(ConnectionEnvironment(where(postgresql)))
    fleet.refresh()
    made = Database(fleet, migrates=True)

    async def settle(transaction: Any) -> None:
        await transaction.connection.execute("UPDATE plan2.config_change SET copied = true")

    await made.run(settle, soon(), needs=schema.CONFIGURATION)
    yield made
    await fleet.close()


@pytest.fixture
def warehouse() -> Warehouse:
    return Warehouse()


def soon() -> Deadline:
    return Deadline.after(10.0)


def copies(database: Database, warehouse: Warehouse) -> Copies:
    return Copies(database, warehouse, sweeps=True)  # type: ignore[arg-type]  # one of ours


async def change(database: Database, count: int) -> str:
    user = secrets.token_hex(6)

    async def work(transaction: Any) -> None:
        for number in range(count):
            await truth.log(transaction, user, "key", None, f'{{"n": {number}}}', "ada")

    await database.run(work, soon(), needs=schema.CONFIGURATION)
    return user


async def test_a_change_is_copied_as_it_is(database: Database, warehouse: Warehouse) -> None:
    user = await change(database, 2)

    copied = await copies(database, warehouse).copy(soon())
    again = await copies(database, warehouse).copy(soon())

    assert (copied, again) == (2, 0)
    [(token, rows)] = warehouse.inserts
    assert token
    ids = [row.pop("id") for row in rows]
    assert ids == sorted(ids)
    for number, row in enumerate(rows):
        assert row.pop("at")
        assert row == {
            "user_id": user,
            "key": "key",
            "version": None,
            "old_value": None,
            "new_value": f'{{"n": {number}}}',
            "actor": "ada",
        }


async def test_what_one_is_copying_no_other_takes(database: Database, warehouse: Warehouse) -> None:
    await change(database, 3)
    warehouse.hold = asyncio.Event()
    first = asyncio.create_task(copies(database, warehouse).copy(soon()))
    await asyncio.wait_for(warehouse.started.wait(), 10)
    other = Warehouse()

    meanwhile = await copies(database, other).copy(soon())
    await change(database, 1)
    later = await copies(database, other).copy(soon())
    warehouse.hold.set()

    assert (meanwhile, later, await first) == (0, 1, 3)
    assert [len(rows) for _, rows in other.inserts] == [1]


async def test_a_copy_whose_end_is_not_known_is_made_again_under_the_same_token(
    database: Database, warehouse: Warehouse
) -> None:
    await change(database, 2)
    warehouse.lose = True
    with pytest.raises(ConnectionLost):
        await copies(database, warehouse).copy(soon())
    warehouse.lose = False

    copied = await copies(database, warehouse).copy(soon())

    assert copied == 2
    assert warehouse.inserts[0] == warehouse.inserts[1]
