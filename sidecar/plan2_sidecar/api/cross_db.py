"""POST /api/v2/cross-db: operations that span engines; GET the same by id or key."""

import contextlib
import hashlib
import uuid
from typing import Any

import msgspec
from aiohttp import web

from plan2_sidecar import errors
from plan2_sidecar.api import body, problems, resource
from plan2_sidecar.api.cross_db_wire import NOT_YET, UNKNOWN, CrossDbAnswer, answer, was_read
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
from plan2_sidecar.sagas import plan as plans
from plan2_sidecar.sagas import read
from plan2_sidecar.sagas.plan import Plan
from plan2_sidecar.sagas.record import Kind, Record, State, StepState
from plan2_sidecar.sagas.request import CrossDbRequest, Mode, fingerprint_of
from plan2_sidecar.sagas.run import needs_human
from plan2_sidecar.state import SIDECAR, Sidecar

KEY_HEADER = "Idempotency-Key"
LONGEST_KEY = 255
PATH = "/api/v2/cross-db"

_REQUEST: msgspec.json.Decoder[CrossDbRequest] = msgspec.json.Decoder(
    CrossDbRequest, float_hook=plans.exact
)


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
        told = problem.members
        return _located(problems.response(problem), told["id"], told["idempotencyKey"])
    return _located(_response(record), record.id, record.key)


async def find(request: web.Request) -> web.Response:
    """An operation that was asked for before, by its id or its idempotency key, as it stands."""
    sidecar = request.app[SIDECAR]
    deadline = resource.deadline(request)
    asked = request.match_info["id"]
    record = await sidecar.sagas.find(asked, deadline) if "\0" not in asked else None
    if record is None:
        raise NotFound("no operation has this id or key; one is kept for seven days")
    return _located(resource.json(answer(record)), record.id, record.key)


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
            was_read(step.id, step.do, outcome)
            for step, outcome in zip(plan.steps, outcomes, strict=True)
        ],
    )
    sidecar.metrics.cross_db_ended(answer.mode, answer.state)
    return resource.json(answer)


def _response(record: Record) -> web.Response:
    """The answer that the state of the operation has."""
    whole = answer(record)
    members = msgspec.structs.asdict(whole)
    match record.state:
        case State.COMMITTED:
            return resource.json(whole)
        case State.FAILED | State.COMPENSATED:
            undone = record.state is State.COMPENSATED
            said = "what was done is compensated" if undone else "nothing of it was done"
            return problems.response(OperationFailed(said, members=members))
        case State.DEAD:
            members["needsHuman"] = [_left(record, at) for at in needs_human(record)]
            return problems.response(
                CompensationFailed("needsHuman lists what is left to do", members=members)
            )
        case _ if any(each.state == StepState.UNKNOWN for each in whole.operations):
            return problems.response(
                OutcomeUnknown("a step's outcome is not known yet; poll", members=members)
            )
        case _:
            return resource.json(whole, status=NOT_YET)


def _located(response: web.Response, identity: str, key: str) -> web.Response:
    if response.status in (NOT_YET, UNKNOWN):
        response.headers["Location"] = f"{PATH}/{identity}"
    if key.isascii():
        response.headers[KEY_HEADER] = key
    return response


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
    errors.IdempotencyConflict,
    errors.NotAtomic,
    errors.NotIdempotent,
    errors.ParameterMismatch,
    errors.MultipleStatements,
    errors.OperationFailed,
    errors.CompensationFailed,
    errors.OutcomeUnknown,
    *problems.KEEPING_THE_TRUTH,
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
        problems=(errors.NotFound, *problems.KEEPING_THE_TRUTH),
    ),
)
