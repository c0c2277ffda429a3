"""A request as a plan: each operation's engine, its order, what may be repeated. Pure.

A plan is what the log keeps, so that whoever takes an operation over does what was decided at
the start. Everything that is wrong with a request is said here, before anything runs.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from plan2_contract.engines import Engine
from plan2_sidecar import routing
from plan2_sidecar.errors import InvalidRequest, NotAtomic, Problem
from plan2_sidecar.query import Params, Text
from plan2_sidecar.routing import Route, Rung
from plan2_sidecar.sagas import references, repeats
from plan2_sidecar.sagas.repeats import TRANSACTIONAL, Repeat
from plan2_sidecar.sagas.request import CrossDbRequest, Mode, OperationRequest

Choose = Callable[[Text, str | None, routing.Operation | None], Route]


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """One statement for one engine; `place` is where it stands in the request."""

    engine: Engine
    rung: Rung
    query: Text
    params: Params | None
    repeat: Repeat
    writes: bool
    place: str
    idempotent: bool = False


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One operation: what it does, what undoes it, whose results it needs."""

    id: str
    do: Action
    undo: Action | None = None
    needs: list[str] = []


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`steps` as they were given, `order` their positions as they run."""

    mode: Mode
    steps: list[Step]
    order: list[int]

    @property
    def engines(self) -> list[Engine]:
        """Every engine it needs, and PostgreSQL for the log."""
        used = {action.engine for action in self.actions()}
        return sorted(used | ({Engine.POSTGRESQL} if self.mode is not Mode.READ else set()))

    def actions(self) -> list[Action]:
        """What it does and what undoes it."""
        undone = [step.undo for step in self.steps if step.undo is not None]
        return [*(step.do for step in self.steps), *undone]


def make(request: CrossDbRequest, choose: Choose = routing.choose) -> Plan:
    """The plan, routes by `choose`; raises Refused, which names the place.

    Engines are asked about what stands as `Repeat.ASK` by `effects`.
    """
    steps = _steps(request, choose)
    mode = request.mode or _default(steps)
    if mode is not Mode.SAGA:
        _refuse_compensation(steps, mode)
    order = _order(steps)
    match mode:
        case Mode.OUTBOX:
            order = _postgresql_first(steps, order)
        case Mode.ATOMIC:
            _refuse_many_engines(steps)
    if mode in (Mode.READ, Mode.ATOMIC):
        # Nothing is sent twice: a read has no log, and one transaction has one marker.
        repeat = Repeat.READ if mode is Mode.READ else Repeat.MARKED
        steps = [_repeating(step, repeat) for step in steps]
    else:
        steps = [
            _decided(step, asked) for step, asked in zip(steps, request.operations, strict=True)
        ]
    return Plan(mode=mode, steps=steps, order=order)


def _steps(request: CrossDbRequest, choose: Choose) -> list[Step]:
    positions: dict[str, int] = {}
    for at, operation in enumerate(request.operations):
        if operation.id in positions:
            raise InvalidRequest(f"operations[{at}].id: {operation.id} is an id already")
        positions[operation.id] = at
    return [_step(at, asked, positions, choose) for at, asked in enumerate(request.operations)]


def _step(at: int, asked: OperationRequest, positions: dict[str, int], choose: Choose) -> Step:
    place = f"operations[{at}]"
    do = _action(place, asked.query, asked.params, choose, asked.target_database, asked.operation)
    needs = dict.fromkeys(_depends_on(place, asked, positions))
    for found in _references(do):
        _check(found, at, positions)
        needs[found.operation] = None
    undo = None
    if asked.compensate is not None:
        given = asked.compensate
        target = given.target_database or do.engine.value
        undo = _action(f"{place}.compensate", given.query, given.params, choose, target, None)
        for found in _references(undo):
            # What an operation answered is there when it is undone.
            if found.operation != asked.id:
                _check(found, at, positions)
                needs[found.operation] = None
    return Step(id=asked.id, do=do, undo=undo, needs=list(needs))


def _action(
    place: str,
    query: Text,
    params: Params | None,
    choose: Choose,
    target: str | None,
    operation: routing.Operation | None,
) -> Action:
    try:
        route: Route = choose(query, target, operation)
        writes = route.write
    except Problem as problem:
        problem.detail = f"{place}: {problem.detail}"
        raise
    return Action(
        engine=route.engine,
        rung=route.rung,
        query=route.query,
        params=params,
        repeat=Repeat.ASK,
        writes=writes,
        place=place,
    )


def _references(action: Action) -> list[references.Reference]:
    found = list(references.scan(action.params, f"{action.place}.params"))
    return [*references.scan(action.query, f"{action.place}.query"), *found]


def _check(found: references.Reference, at: int, positions: dict[str, int]) -> None:
    where = positions.get(found.operation)
    if where is None:
        raise InvalidRequest(f"{found.place}: there is no operation {found.operation}")
    if where >= at:
        raise InvalidRequest(
            f"{found.place}: {found.operation} does not stand before this operation"
        )


def _depends_on(place: str, asked: OperationRequest, positions: dict[str, int]) -> list[str]:
    for number, name in enumerate(asked.depends_on):
        if name not in positions:
            raise InvalidRequest(f"{place}.dependsOn[{number}]: there is no operation {name}")
        if name == asked.id:
            raise InvalidRequest(f"{place}.dependsOn[{number}]: an operation cannot need itself")
    return asked.depends_on


def _default(steps: Sequence[Step]) -> Mode:
    return Mode.OUTBOX if any(step.do.writes for step in steps) else Mode.READ


def _refuse_compensation(steps: Sequence[Step], mode: Mode) -> None:
    for step in steps:
        if step.undo is not None:
            raise InvalidRequest(f"{step.undo.place}: mode {mode} never compensates; saga does")


def _order(steps: Sequence[Step]) -> list[int]:
    """What is needed comes first, else as given; raises InvalidRequest for a circle."""
    done: set[str] = set()
    order: list[int] = []
    left = list(range(len(steps)))
    while left:
        ready = next((at for at in left if done.issuperset(steps[at].needs)), None)
        if ready is None:
            names = ", ".join(steps[at].id for at in left)
            raise InvalidRequest(
                f"operations[{left[0]}].dependsOn: {names} wait for each other in a circle"
            )
        left.remove(ready)
        order.append(ready)
        done.add(steps[ready].id)
    return order


def _postgresql_first(steps: Sequence[Step], order: list[int]) -> list[int]:
    """The order of an outbox; raises InvalidRequest where PostgreSQL waits for another."""
    first = [at for at in order if steps[at].do.engine is Engine.POSTGRESQL]
    committed = {steps[at].id for at in first}
    for at in first:
        missing = [name for name in steps[at].needs if name not in committed]
        if missing:
            raise InvalidRequest(
                f"operations[{at}]: mode outbox commits PostgreSQL's operations first, and this "
                f"one needs {missing[0]}; mode saga keeps your order"
            )
    return [*first, *(at for at in order if at not in first)]


def _refuse_many_engines(steps: Sequence[Step]) -> None:
    used = sorted({step.do.engine for step in steps})
    if len(used) > 1:
        raise NotAtomic(f"no transaction spans {' and '.join(used)}; see modes outbox and saga")
    if used[0] not in TRANSACTIONAL:
        raise NotAtomic(f"{used[0]} has no transactions", database=used[0])


def _repeating(step: Step, repeat: Repeat) -> Step:
    return msgspec.structs.replace(step, do=msgspec.structs.replace(step.do, repeat=repeat))


def _decided(step: Step, asked: OperationRequest) -> Step:
    do = _repeat(step.do, asked.idempotent)
    undo = step.undo
    if undo is not None and asked.compensate is not None:
        undo = _repeat(undo, asked.compensate.idempotent)
    return msgspec.structs.replace(step, do=do, undo=undo)


def _repeat(action: Action, idempotent: bool) -> Action:
    repeat = repeats.of(action.engine, action.query, idempotent=idempotent, place=action.place)
    return msgspec.structs.replace(action, repeat=repeat, idempotent=idempotent)


def exact(text: str) -> Any:
    """A float where it holds all the digits, else a Decimal."""
    number, exact = float(text), Decimal(text)
    return number if Decimal(repr(number)) == exact else exact


ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
DECODER: Final = msgspec.json.Decoder(Plan, float_hook=exact)
"""A plan as text in the log and back, numbers with all their digits."""
