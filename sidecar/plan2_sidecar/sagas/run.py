"""Running a claimed operation from wherever the log says it stands, as its mode promises."""

from typing import Any

from plan2_contract.engines import Engine
from plan2_sidecar.sagas.attempt import Attempt, Attempts
from plan2_sidecar.sagas.effects import Batch, Results
from plan2_sidecar.sagas.log import Claim, Outcome
from plan2_sidecar.sagas.record import Kind, Place, Record, State, StepState
from plan2_sidecar.sagas.request import Mode


class Runner(Attempts):
    """Runs operations, whole."""

    async def run(self, claim: Claim, record: Record) -> None:
        """To its end. Raises Parked, LeaseLost, or a Problem of the log itself."""
        # What was done in the transaction that logged it, whoever did that.
        await self.tell_of_logged(record)
        match record.plan.mode:
            case Mode.SAGA:
                await self._saga(claim, record)
            case Mode.OUTBOX:
                await self._outbox(claim, record)
            case _:
                await self._atomic(claim, record)

    def postgresql(self, record: Record) -> Batch | None:
        """What an outbox or an atomic operation does in the transaction that logs it."""
        positions = record.positions([Engine.POSTGRESQL])
        if record.plan.mode is Mode.SAGA or not positions:
            return None
        return self._batch(record, Kind.DO, positions)

    async def tell_of_logged(self, record: Record) -> None:
        """That what `work` did, or may have done, is there."""
        batch = self.postgresql(record)
        positions = [] if batch is None else batch.positions
        await self.tell(*(record.plan.steps[at].do for at in positions))

    async def work(self, batch: Batch, transaction: Any) -> Results:
        """Run them in that transaction."""
        results = await batch.run(transaction.execute)
        await self.probe("inside the transaction, before its commit")
        return results

    # -- the three modes ---------------------------------------------------------------------

    async def _outbox(self, claim: Claim, record: Record) -> None:
        dead = False
        for position in record.plan.order:
            entry = record.entry((Kind.DO, position))
            if entry.state.settled:
                dead |= entry.state is not StepState.COMMITTED
                continue
            if _needs_the_dead(record, position):
                outcome = Outcome((Kind.DO, position), StepState.SKIPPED)
                await self._note(claim, record, [outcome], None)
                dead = True
                continue
            then = State.COMMITTED if _is_last(record, position) and not dead else None
            dead |= not await self._step(claim, record, (Kind.DO, position), then)
        if not record.state.final:
            await self._note(claim, record, [], State.DEAD if dead else State.COMMITTED)

    async def _saga(self, claim: Claim, record: Record) -> None:
        if record.state is State.RUNNING:
            for position in record.plan.order:
                place = (Kind.DO, position)
                if record.entry(place).state is StepState.COMMITTED:
                    continue
                then = State.COMMITTED if _is_last(record, position) else None
                if not await self._step(claim, record, place, then, failing=State.COMPENSATING):
                    break
            else:
                if not record.state.final:
                    await self._note(claim, record, [], State.COMMITTED)
                return
        await self._compensate(claim, record)

    async def _compensate(self, claim: Claim, record: Record) -> None:
        """Undo, in reverse, what was done and what may have been."""
        undone = False
        for position in reversed(record.plan.order):
            step, entry = record.plan.steps[position], record.entry((Kind.DO, position))
            done = entry.state is StepState.COMMITTED or entry.maybe
            if not done or step.undo is None:
                continue
            undone = True
            place = (Kind.UNDO, position)
            if not record.entry(place).state.settled:
                await self._step(claim, record, place, None)
        left = needs_human(record)
        state = State.DEAD if left else State.COMPENSATED if undone else State.FAILED
        await self._note(claim, record, [], state)

    async def _atomic(self, claim: Claim, record: Record) -> None:
        """All in one transaction of MongoDB or ArangoDB; PostgreSQL's was done with the log."""
        places: list[Place] = [(Kind.DO, at) for at in record.plan.order]
        batch = self._batch(record, Kind.DO, record.plan.order)
        attempt = Attempt(claim, record, places, batch, State.COMMITTED, State.FAILED)
        try:
            await self._attempt(attempt)
        finally:
            await self.tell(*(record.action(place) for place in places))


def needs_human(record: Record) -> list[int]:
    """The operations of which something is left that nobody undoes, or that were not done."""
    if record.plan.mode is not Mode.SAGA:
        bad = (StepState.FAILED, StepState.SKIPPED)
        positions = range(len(record.plan.steps))
        return [at for at in positions if record.entry((Kind.DO, at)).state in bad]
    return [at for at in record.plan.order if _is_left(record, at)]


def _is_left(record: Record, position: int) -> bool:
    step, entry = record.plan.steps[position], record.entry((Kind.DO, position))
    if entry.state is not StepState.COMMITTED and not entry.maybe:
        return False
    if step.undo is None:
        return step.do.writes
    return record.entry((Kind.UNDO, position)).state is not StepState.COMMITTED


def _needs_the_dead(record: Record, position: int) -> bool:
    lost = {
        step.id
        for at, step in enumerate(record.plan.steps)
        if record.entry((Kind.DO, at)).state in (StepState.FAILED, StepState.SKIPPED)
    }
    return not lost.isdisjoint(record.plan.steps[position].needs)


def _is_last(record: Record, position: int) -> bool:
    return record.plan.order[-1] == position
