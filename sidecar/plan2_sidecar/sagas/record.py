"""One operation as the log has it: its plan, its state, the state of each of its steps."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from plan2_sidecar.sagas.plan import Action, Plan, Step, exact


class State(StrEnum):
    """An operation's state. The last four are final."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    COMMITTED = "committed"
    COMPENSATED = "compensated"
    FAILED = "failed"
    DEAD = "dead"

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self not in (State.RUNNING, State.COMPENSATING)


class Kind(StrEnum):
    """What a step is: an operation, or what undoes it."""

    DO = "do"
    UNDO = "undo"


class StepState(StrEnum):
    """What is known of one step."""

    PENDING = "pending"
    """It was never begun."""
    RUNNING = "running"
    """It was begun; where nobody runs it any more, its outcome is unknown."""
    WAITING = "waiting"
    """The last try came to nothing, and another follows."""
    UNKNOWN = "unknown"
    """Nobody can tell what became of the last try, and another follows."""
    COMMITTED = "committed"
    FAILED = "failed"
    """It was refused, or given up."""
    SKIPPED = "skipped"
    """It was never begun, because one that it needs is dead."""

    @property
    def settled(self) -> bool:
        """Whether no other try follows."""
        return self in (StepState.COMMITTED, StepState.FAILED, StepState.SKIPPED)


@dataclass
class Entry:
    """One step in the log. `unsure`: a try before the last may have been applied."""

    state: StepState = StepState.PENDING
    tries: int = 0
    unsure: bool = False
    result: msgspec.Raw | None = None
    problem: msgspec.Raw | None = None

    @property
    def maybe(self) -> bool:
        """Whether it may have been applied although it is not known to have been."""
        return self.unsure or self.state in (StepState.RUNNING, StepState.UNKNOWN)


Place = tuple[Kind, int]
_ANSWERS = msgspec.json.Decoder(dict[str, Any], float_hook=exact)


@dataclass
class Record:
    """One operation. `steps` are by kind and position; what is not there was never begun."""

    id: str
    key: str
    fingerprint: str
    plan: Plan
    state: State = State.RUNNING
    attempt: int = 1
    steps: dict[Place, Entry] = field(default_factory=dict)

    def entry(self, place: Place) -> Entry:
        """The step at `place`, made when it was not there."""
        return self.steps.setdefault(place, Entry())

    def action(self, place: Place) -> Action:
        """What the step sends."""
        step = self.plan.steps[place[1]]
        action = step.do if place[0] is Kind.DO else step.undo
        assert action is not None, f"{step.id} has nothing that undoes it"
        return action

    def op_id(self, position: int) -> str:
        """The operation's own id, the same for whoever runs it."""
        return op_id(self.id, self.plan.steps[position])

    def mark(self, place: Place) -> str:
        """What an engine's marker of this step is called."""
        name = self.op_id(place[1])
        return name if place[0] is Kind.DO else f"{name}-undo"

    def answer(self, position: int) -> dict[str, Any]:
        """What the operation answered, decoded; an empty object without one."""
        result = self.entry((Kind.DO, position)).result
        return {} if result is None else _ANSWERS.decode(result)

    def positions(self, engines: Sequence[str]) -> list[int]:
        """Where the operations on these engines stand, in the order they run."""
        return [at for at in self.plan.order if self.plan.steps[at].do.engine in engines]


def op_id(operation: str, step: Step) -> str:
    """A UUID that follows from the operation's and the step's id."""
    return str(uuid.uuid5(uuid.UUID(operation), step.id))
