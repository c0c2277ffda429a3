"""The answers of /api/v2/cross-db, made from what the log says."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from plan2_sidecar.api import wire
from plan2_sidecar.query import Result
from plan2_sidecar.sagas.plan import Action
from plan2_sidecar.sagas.read import Read
from plan2_sidecar.sagas.record import Entry, Kind, Record, State, StepState
from plan2_sidecar.sagas.request import Mode

NOT_YET = 202
UNKNOWN = 504
_SKIPPED = 424

_RESULT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_PROBLEM = msgspec.json.Decoder(dict[str, Any])


class _Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class CompensationAnswer(_Answer, frozen=True, kw_only=True):
    """What became of an operation's compensation."""

    state: str
    status: int
    row_count: int | UnsetType = UNSET
    problem: dict[str, Any] | UnsetType = UNSET


class OperationAnswer(_Answer, frozen=True, kw_only=True):
    """What became of one operation; `status` is what it alone would have been answered with."""

    id: str
    state: str
    status: int
    data: Any = UNSET
    row_count: int | UnsetType = UNSET
    upserted_id: Any = UNSET
    problem: dict[str, Any] | UnsetType = UNSET
    compensation: CompensationAnswer | UnsetType = UNSET
    meta: wire.AnswerMeta | UnsetType = UNSET


class CrossDbAnswer(_Answer, frozen=True, kw_only=True):
    """The whole, as far as it has come."""

    id: str
    mode: Mode
    state: State
    operations: list[OperationAnswer]


def answer(record: Record) -> CrossDbAnswer:
    """The operation as it stands."""
    operations = [_operation(record, at) for at in range(len(record.plan.steps))]
    return CrossDbAnswer(
        id=record.id, mode=record.plan.mode, state=record.state, operations=operations
    )


def _operation(record: Record, position: int) -> OperationAnswer:
    step, entry = record.plan.steps[position], record.entry((Kind.DO, position))
    undo = record.steps.get((Kind.UNDO, position))
    state, status = _shown(record, entry)
    if undo is not None and undo.state is StepState.COMMITTED:
        state = State.COMPENSATED
    result = {} if entry.result is None else _RESULT.decode(entry.result)
    meta: wire.AnswerMeta | UnsetType = UNSET
    if result:
        took_us = int(bytes(result.get("tookUs", b"0")))
        meta = _meta(step.do, took_us, entry.tries, truncated="truncated" in result)
    return OperationAnswer(
        id=step.id,
        state=state,
        status=status,
        data=result.get("data", UNSET),
        row_count=int(bytes(result["rowCount"])) if result else UNSET,
        upserted_id=result.get("upsertedId", UNSET),
        problem=UNSET if entry.problem is None else _PROBLEM.decode(entry.problem),
        compensation=UNSET if undo is None else _compensation(undo),
        meta=meta,
    )


def _compensation(entry: Entry) -> CompensationAnswer:
    result = {} if entry.result is None else _RESULT.decode(entry.result)
    status = _STATUS.get(entry.state) or _problem_status(entry)
    return CompensationAnswer(
        state=_STATES.get(entry.state, entry.state.value),
        status=status,
        row_count=int(bytes(result["rowCount"])) if result else UNSET,
        problem=UNSET if entry.problem is None else _PROBLEM.decode(entry.problem),
    )


_STATUS = {
    StepState.COMMITTED: 200,
    StepState.PENDING: NOT_YET,
    StepState.RUNNING: NOT_YET,
    StepState.WAITING: NOT_YET,
    StepState.SKIPPED: _SKIPPED,
    StepState.UNKNOWN: UNKNOWN,
}
_STATES = {StepState.WAITING: StepState.RUNNING.value}


def _shown(record: Record, entry: Entry) -> tuple[str, int]:
    """The state and status of an operation as its caller sees them."""
    status = _STATUS.get(entry.state) or _problem_status(entry)
    if entry.state is StepState.PENDING and record.state is not State.RUNNING:
        # It was never begun, and never will be.
        return StepState.SKIPPED, _SKIPPED
    if entry.state is StepState.FAILED and entry.unsure:
        return StepState.UNKNOWN, UNKNOWN
    if entry.state is StepState.FAILED and record.plan.mode is Mode.OUTBOX:
        # A dead letter, unless nothing of the whole was done.
        return (StepState.FAILED if record.state is State.FAILED else State.DEAD), status
    return _STATES.get(entry.state, entry.state.value), status


def _problem_status(entry: Entry) -> int:
    if entry.problem is None:
        return UNKNOWN
    return int(_PROBLEM.decode(entry.problem).get("status", 500))


def was_read(identity: str, action: Action, outcome: Read) -> OperationAnswer:
    """One operation of mode read."""
    if outcome.problem is not None:
        return OperationAnswer(
            id=identity,
            state=StepState.FAILED,
            status=outcome.problem.status,
            problem=outcome.problem.document(),
        )
    result = outcome.result or Result(data=None, row_count=0)
    return OperationAnswer(
        id=identity,
        state=StepState.COMMITTED,
        status=200,
        data=result.data,
        row_count=result.row_count,
        meta=_meta(action, outcome.took_us, 1, truncated=result.truncated),
    )


def _meta(action: Action, took_us: int, tries: int, *, truncated: bool) -> wire.AnswerMeta:
    return wire.AnswerMeta(
        database=action.engine,
        route=action.rung,
        attempts=max(1, tries),
        took_us=took_us,
        truncated=True if truncated else UNSET,
    )
