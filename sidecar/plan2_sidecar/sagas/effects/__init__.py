"""What a step does to its engine, each engine's own way of doing it once.

PostgreSQL is not here: its steps run in the transaction of the log.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import msgspec

from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import NotAtomic, QueryRejected
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.query import Query, Result
from plan2_sidecar.sagas import repeats
from plan2_sidecar.sagas.effects.batch import Batch, Results, Sealed, timed
from plan2_sidecar.sagas.plan import Action, Plan, Step
from plan2_sidecar.sagas.repeats import Repeat
from plan2_sidecar.sagas.request import Mode

if TYPE_CHECKING:
    from plan2_sidecar.engines.clickhouse import ClickHouse

__all__ = ["Batch", "Effects", "Results", "Sealed"]

# What Weaviate says of an object that an earlier try made.
_EXISTS: Final = "already exists"


class Effects:
    """The engines as a plan uses them; every call goes through their guards."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._prepared: WeakSet[Any] = WeakSet()

    async def settle(self, plan: Plan, deadline: Deadline) -> Plan:
        """The plan with nothing left to ask; raises NotIdempotent, NotAtomic, or 422 and 503."""
        for engine in plan.engines:
            self._fleet.member(engine)
        if plan.mode is Mode.ATOMIC:
            await self._check_atomic(plan.steps[0].do, deadline)
            return plan
        steps = [await self._settled(step, deadline) for step in plan.steps]
        return msgspec.structs.replace(plan, steps=steps)

    async def apply(
        self, action: Action, mark: str, op_id: str, batch: Batch, deadline: Deadline
    ) -> Results:
        """What the step answers; raises Problem."""
        if action.repeat is Repeat.MARKED:
            return await self._once(action.engine, mark, batch, deadline)

        async def send(query: Query) -> Result:
            return await self._send(action, query, mark, op_id, deadline)

        return {batch.current: await timed(send, batch.only())}

    async def seal(self, action: Action, mark: str, deadline: Deadline) -> Sealed | None:
        """Find out for good whether the step was applied; None where the engine cannot tell."""
        if action.repeat is not Repeat.MARKED or action.engine is Engine.POSTGRESQL:
            return None
        module = _marking(action.engine)

        async def work(client: Any) -> Sealed:
            await self._prepare(module, client, deadline)
            sealed: Sealed = await module.seal(client, mark, deadline)
            return sealed

        return await self._fleet.member(action.engine).use(work, deadline)

    async def _once(self, engine: Engine, mark: str, batch: Batch, deadline: Deadline) -> Results:
        module = _marking(engine)

        async def work(client: Any) -> Results:
            await self._prepare(module, client, deadline)
            results: Results = await module.once(client, mark, batch, deadline)
            return results

        return await self._fleet.member(engine).use(work, deadline)

    async def _prepare(self, module: Any, client: Any, deadline: Deadline) -> None:
        if client not in self._prepared:
            await module.prepare(client, deadline)
            self._prepared.add(client)

    async def _send(
        self, action: Action, query: Query, mark: str, op_id: str, deadline: Deadline
    ) -> Result:
        member = self._fleet.member(action.engine)
        if action.engine is Engine.CLICKHOUSE and action.repeat is not Repeat.READ:

            async def insert(client: "ClickHouse") -> Result:
                return await client.execute(query, deadline, token=mark)

            return await member.use(insert, deadline)
        if action.engine is Engine.WEAVIATE and action.repeat is Repeat.NAMED:
            return await self._insert_objects(query, op_id, deadline)
        return await member.execute(query, deadline)

    async def _insert_objects(self, query: Query, op_id: str, deadline: Deadline) -> Result:
        from plan2_sidecar.sagas.effects import named

        whole = named.with_ids(query, op_id)
        try:
            return await self._fleet.member(Engine.WEAVIATE).execute(whole, deadline)
        except QueryRejected as problem:
            if _EXISTS not in problem.detail or not isinstance(whole.query, dict):
                raise
            made = [{"id": each["id"]} for each in whole.query["objects"]]
            return Result(data=made, row_count=len(made))

    async def _check_atomic(self, action: Action, deadline: Deadline) -> None:
        if action.engine is Engine.MONGODB and not await self._has_transactions(deadline):
            raise NotAtomic("this MongoDB is no replica set", database=Engine.MONGODB)

    async def _settled(self, step: Step, deadline: Deadline) -> Step:
        do = await self._asked(step.do, deadline)
        undo = None if step.undo is None else await self._asked(step.undo, deadline)
        return msgspec.structs.replace(step, do=do, undo=undo)

    async def _asked(self, action: Action, deadline: Deadline) -> Action:
        if action.repeat is not Repeat.ASK:
            return action
        repeat, why = Repeat.MARKED, "this MongoDB is no replica set"
        if action.engine is Engine.CLICKHOUSE:
            repeat = Repeat.CALLER if action.idempotent else Repeat.NAMED
            why = "the table has no deduplication window"
            known = action.idempotent or await self._deduplicates(action, deadline)
        else:
            known = await self._has_transactions(deadline)
            repeat = Repeat.MARKED if known else Repeat.CALLER
            known = known or action.idempotent
        if not known:
            raise repeats.refusal(action.engine, action.place, why)
        return msgspec.structs.replace(action, repeat=repeat)

    async def _has_transactions(self, deadline: Deadline) -> bool:
        from plan2_sidecar.sagas.effects import mongodb

        return await self._use(
            Engine.MONGODB, lambda client: mongodb.has_transactions(client, deadline), deadline
        )

    async def _deduplicates(self, action: Action, deadline: Deadline) -> bool:
        from plan2_sidecar.sagas.effects import named

        query = Query(query=action.query)
        return await self._use(
            Engine.CLICKHOUSE, lambda client: named.deduplicates(client, query, deadline), deadline
        )

    async def _use(
        self, engine: Engine, work: Callable[[Any], Awaitable[bool]], deadline: Deadline
    ) -> bool:
        return await self._fleet.member(engine).use(work, deadline)


def _marking(engine: Engine) -> Any:
    """The module that keeps this engine's markers; imported, with its driver, when needed."""
    if engine is Engine.MONGODB:
        from plan2_sidecar.sagas.effects import mongodb

        return mongodb
    from plan2_sidecar.sagas.effects import arangodb

    return arangodb
