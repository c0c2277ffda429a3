"""POST /api/v2/cross-db: operations that span engines; GET the same by id or key."""

import contextlib
import hashlib
import uuid
from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from plan2_sidecar import errors
from plan2_sidecar.api import body, problems, resource, wire
from plan2_sidecar.api.resource import Call
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import (
    AmbiguousRoute,
    CompensationFailed,
    InvalidRequest,
    NotFound,
    OperationFailed,
    OutcomeUnknown,
    Problem,
)
from plan2_sidecar.query import Result
from plan2_sidecar.sagas import plan as plans
from plan2_sidecar.sagas import read
from plan2_sidecar.sagas.plan import Action, Plan
from plan2_sidecar.sagas.record import Entry, Kind, Record, State, StepState
from plan2_sidecar.sagas.request import CrossDbRequest, Mode, fingerprint_of
from plan2_sidecar.sagas.run import needs_human
from plan2_sidecar.state import SIDECAR, Sidecar

KEY_HEADER = "Idempotency-Key"
LONGEST_KEY = 255
PATH = "/api/v2/cross-db"
# What an operation that has not ended is said to be.
_NOT_YET = 202
_SKIPPED = 424
_UNKNOWN = 504

_REQUEST: msgspec.json.Decoder[CrossDbRequest] = msgspec.json.Decoder(
    CrossDbRequest, float_hook=plans.exact
)
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


async def cross_db(request: web.Request) -> web.Response:
    """Run operations that span engines, as mode read, outbox, saga or atomic promises."""
    sidecar = request.app[SIDECAR]
    started = sidecar.clock()
    asked: CrossDbRequest = await resource.decoded(request, _REQUEST)
    key = _key(request, asked)
    deadline = body.deadline(started, body.asked_ms(request), asked.timeout_ms, sidecar.clock)
    plan = await _plan(sidecar, asked, deadline)
    if plan.mode is Mode.READ:
        return await _read(sidecar, plan, deadline)
    fingerprint = hashlib.sha256(fingerprint_of(asked)).hexdigest()
    try:
        record = await sidecar.sagas.submit(plan, key, fingerprint, deadline)
    except OutcomeUnknown as problem:
        return _located(problems.response(problem), problem.members["id"], None)
    return _located(_response(record), record.id, record)


async def find(request: web.Request) -> web.Response:
    """An operation that was asked for before, by its id or its idempotency key, as it stands."""
    sidecar = request.app[SIDECAR]
    deadline = resource.deadline(request)
    asked = request.match_info["id"]
    record = await sidecar.sagas.find(asked, deadline) if "\0" not in asked else None
    if record is None:
        raise NotFound("no operation has this id or key; one is kept for seven days")
    return _located(resource.json(_answer(record)), record.id, record)


def _key(request: web.Request, asked: CrossDbRequest) -> str | None:
    """The one key that was given; raises InvalidRequest."""
    header = request.headers.get(KEY_HEADER)
    given = {key for key in (header, asked.idempotency_key) if key is not None}
    if len(given) > 1:
        raise InvalidRequest(f"{KEY_HEADER} and idempotencyKey differ")
    for key in given:
        if not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
            raise InvalidRequest(f"an idempotency key has 1 to {LONGEST_KEY} printable characters")
    return given.pop() if given else None


async def _plan(sidecar: Sidecar, asked: CrossDbRequest, deadline: Deadline) -> Plan:
    try:
        return plans.make(asked, sidecar.router.choose)
    except AmbiguousRoute:
        # The tables may be being read just now; what is still ambiguous then is said below.
        for operation in asked.operations:
            with contextlib.suppress(AmbiguousRoute):
                await sidecar.router.route(
                    operation.query, operation.target_database, operation.operation, deadline
                )
        return plans.make(asked, sidecar.router.choose)


async def _read(sidecar: Sidecar, plan: Plan, deadline: Deadline) -> web.Response:
    identity = str(uuid.uuid4())
    outcomes = await read.run(plan, identity, sidecar.fleet, deadline, sidecar.clock)
    answer = CrossDbAnswer(
        id=identity,
        mode=plan.mode,
        state=State.FAILED if any(each.problem for each in outcomes) else State.COMMITTED,
        operations=[
            _was_read(step.id, step.do, outcome)
            for step, outcome in zip(plan.steps, outcomes, strict=True)
        ],
    )
    return resource.json(answer)


def _was_read(identity: str, action: Action, outcome: read.Read) -> OperationAnswer:
    if outcome.problem is not None:
        return OperationAnswer(
            id=identity,
            state=StepState.FAILED,
            status=outcome.problem.status,
            problem=problems.document(outcome.problem),
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


def _response(record: Record) -> web.Response:
    """The answer that the state of the operation has."""
    answer = _answer(record)
    members = msgspec.structs.asdict(answer)
    match record.state:
        case State.COMMITTED:
            return resource.json(answer)
        case State.FAILED | State.COMPENSATED:
            undone = record.state is State.COMPENSATED
            said = "what was done is compensated" if undone else "nothing of it was done"
            return problems.response(OperationFailed(said, members=members))
        case State.DEAD:
            members["needsHuman"] = [_left(record, at) for at in needs_human(record)]
            return problems.response(
                CompensationFailed("needsHuman lists what is left to do", members=members)
            )
        case _ if any(each.state == StepState.UNKNOWN for each in answer.operations):
            return problems.response(
                OutcomeUnknown("a step's outcome is not known yet; poll", members=members)
            )
        case _:
            return resource.json(answer, status=_NOT_YET)


def _located(response: web.Response, identity: str, record: Record | None) -> web.Response:
    if response.status in (_NOT_YET, _UNKNOWN):
        response.headers["Location"] = f"{PATH}/{identity}"
    if record is not None and record.key.isascii():
        response.headers[KEY_HEADER] = record.key
    return response


def _answer(record: Record) -> CrossDbAnswer:
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
    StepState.PENDING: _NOT_YET,
    StepState.RUNNING: _NOT_YET,
    StepState.WAITING: _NOT_YET,
    StepState.SKIPPED: _SKIPPED,
    StepState.UNKNOWN: _UNKNOWN,
}
_STATES = {StepState.WAITING: StepState.RUNNING.value}


def _shown(record: Record, entry: Entry) -> tuple[str, int]:
    """The state and status of an operation as its caller sees them."""
    status = _STATUS.get(entry.state) or _problem_status(entry)
    if entry.state is StepState.PENDING and record.state is not State.RUNNING:
        # It was never begun, and never will be.
        return StepState.SKIPPED, _SKIPPED
    if entry.state is StepState.FAILED and entry.unsure:
        return StepState.UNKNOWN, _UNKNOWN
    if entry.state is StepState.FAILED and record.plan.mode is Mode.OUTBOX:
        # A dead letter, unless nothing of the whole was done.
        return (StepState.FAILED if record.state is State.FAILED else State.DEAD), status
    return _STATES.get(entry.state, entry.state.value), status


def _problem_status(entry: Entry) -> int:
    if entry.problem is None:
        return _UNKNOWN
    return int(_PROBLEM.decode(entry.problem).get("status", 500))


def _left(record: Record, position: int) -> dict[str, Any]:
    """What somebody has to look at, and why."""
    step, entry = record.plan.steps[position], record.entry((Kind.DO, position))
    undo = record.steps.get((Kind.UNDO, position))
    if record.plan.mode is not Mode.SAGA:
        why = "it was not applied"
        if entry.state is StepState.SKIPPED:
            why = "it was not tried, since what it needs was not applied"
        elif entry.unsure:
            why = "nobody can tell whether it was applied"
    elif step.undo is None:
        why = "it was applied and has no compensation"
    elif undo is None or undo.state is not StepState.FAILED:
        why = "it may have been applied, and was not compensated"
    elif undo.unsure:
        why = "nobody can tell whether its compensation was applied"
    else:
        why = "it was applied and its compensation was refused"
    if record.plan.mode is Mode.SAGA and entry.state is not StepState.COMMITTED:
        why = why.replace("it was applied", "it may have been applied")
    return {"id": step.id, "database": step.do.engine, "why": why}


_PROBLEMS: tuple[type[Problem], ...] = (
    errors.UnknownEngine,
    errors.AmbiguousRoute,
    errors.EngineNotConfigured,
    errors.IdempotencyConflict,
    errors.Conflict,
    errors.NotAtomic,
    errors.NotIdempotent,
    errors.QueryRejected,
    errors.PermissionDenied,
    errors.ParameterMismatch,
    errors.MultipleStatements,
    errors.OperationFailed,
    errors.CompensationFailed,
    errors.OutcomeUnknown,
    errors.EngineUnavailable,
    errors.EngineAuthFailed,
    errors.BreakerOpen,
    errors.BulkheadFull,
    errors.StoreFull,
    errors.SchemaOutdated,
    errors.DeadlineExceeded,
)

CALLS = (
    Call(
        method="POST",
        path=PATH,
        handler=cross_db,
        body=CrossDbRequest,
        headers=(KEY_HEADER,),
        answers={200: CrossDbAnswer, 202: CrossDbAnswer},
        problems=_PROBLEMS,
    ),
    Call(
        method="GET",
        path=f"{PATH}/{{id}}",
        handler=find,
        answers={200: CrossDbAnswer},
        problems=(
            errors.NotFound,
            errors.EngineNotConfigured,
            errors.PermissionDenied,
            errors.EngineUnavailable,
            errors.EngineAuthFailed,
            errors.BreakerOpen,
            errors.BulkheadFull,
            errors.StoreFull,
            errors.SchemaOutdated,
            errors.DeadlineExceeded,
        ),
    ),
)
