"""Exactly once in MongoDB: a marker document in the transaction of the step.

It needs a replica set, of one member or more. Who finds the marker finds the step's results in
it; who puts a marker of refusal there first makes sure that the step never happens.
"""

from datetime import UTC, datetime
from typing import Any, Final

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.mongodb import Mongo, Transaction
from plan2_sidecar.errors import Conflict, QueryRejected
from plan2_sidecar.sagas.effects.batch import Batch, Results, Sealed, as_text, from_text

APPLIED: Final = "plan2_applied"
KEPT_SECONDS: Final = 8 * 24 * 3600
"""Longer than the log keeps an operation."""

Database = AsyncDatabase[dict[str, Any]]


async def has_transactions(client: Mongo, deadline: Deadline) -> bool:
    """Whether the server is a member of a replica set, or a router in front of some."""
    async with deadline.enforced():
        about = await client.database(lambda database: database.client.admin.command("hello"))
    return "setName" in about or about.get("msg") == "isdbgrid"


async def prepare(client: Mongo, deadline: Deadline) -> None:
    """Make the collection of markers; they expire where the server can do that."""

    async def work(database: Database) -> None:
        await database[APPLIED].create_index("at", expireAfterSeconds=KEPT_SECONDS)

    async def without_expiry(database: Database) -> None:
        await database[APPLIED].create_index("at")

    async with deadline.enforced():
        try:
            await client.database(work)
        except QueryRejected:
            await client.database(without_expiry)


async def once(client: Mongo, mark: str, batch: Batch, deadline: Deadline) -> Results:
    """The batch's results, whether it runs now or ran before."""

    async def work(transaction: Transaction) -> Results:
        markers, session = transaction.database[APPLIED], transaction.session
        await markers.insert_one({"_id": mark, "at": datetime.now(UTC)}, session=session)
        results = await batch.run(transaction.execute)
        kept = {"$set": {"results": as_text(results)}}
        await markers.update_one({"_id": mark}, kept, session=session)
        return results

    try:
        return await client.transaction(work, deadline)
    except Conflict:
        found = await _find(client, mark, deadline)
        if found is None:
            raise
        if "results" not in found:
            raise QueryRejected("this step was given up before") from None
        return from_text(found["results"])


async def seal(client: Mongo, mark: str, deadline: Deadline) -> Sealed:
    """Put the marker there without the step, unless the step is there."""

    async def work(database: Database) -> None:
        sure = database[APPLIED].with_options(write_concern=WriteConcern("majority"))
        await sure.insert_one({"_id": mark, "at": datetime.now(UTC), "refused": True})

    try:
        async with deadline.enforced():
            await client.database(work)
    except Conflict:
        found = await _find(client, mark, deadline)
        if found is None:
            # Its transaction was rolled back in between; the next look puts the marker there.
            raise
        if "results" in found:
            return Sealed(applied=True, results=from_text(found["results"]))
    return Sealed(applied=False)


async def _find(client: Mongo, mark: str, deadline: Deadline) -> dict[str, Any] | None:
    async def work(database: Database) -> dict[str, Any] | None:
        sure = database[APPLIED].with_options(read_concern=ReadConcern("majority"))
        return await sure.find_one({"_id": mark})

    async with deadline.enforced():
        return await client.database(work)
