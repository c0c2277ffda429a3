"""`{"$ref": "debit.data.0.id"}` and `{"$opId": true}` in what an operation sends. Pure.

Only an object with that one member is meant; `{"$ref": …, "$id": …}` is MongoDB's own. Results
are looked into as the JSON they are.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from plan2_sidecar.errors import InvalidRequest

DEEPEST: Final = 100
_REF: Final = "$ref"
_OP_ID: Final = "$opId"
_FORM: Final = re.compile(
    r"([A-Za-z_][A-Za-z0-9_-]{0,63})\.((?:data|rowCount|upsertedId)(?:\.[^.]+)*)"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """`operation`'s answer, and the way in it: `("data", "0", "id")`."""

    operation: str
    path: tuple[str, ...]
    place: str


def scan(value: Any, place: str, depth: int = 0) -> Iterator[Reference]:
    """Every reference in `value`; raises InvalidRequest, which names the place."""
    if depth > DEEPEST:
        raise InvalidRequest(f"{place.partition('.')[0]} is nested too deeply")
    if isinstance(value, list):
        for at, item in enumerate(value):
            yield from scan(item, f"{place}[{at}]", depth + 1)
    elif isinstance(value, dict):
        if list(value) == [_REF]:
            yield _reference(value[_REF], place)
        elif list(value) == [_OP_ID]:
            if value[_OP_ID] is not True:
                raise InvalidRequest(f'{place}: an operation\'s id is {{"$opId": true}}')
        else:
            for name, item in value.items():
                yield from scan(item, f"{place}.{name}", depth + 1)


def resolve(value: Any, op_id: str, answer_of: Callable[[str], Any] | None, place: str) -> Any:
    """`value` with ids and results in it; with nulls for results where there are none yet.

    `answer_of(operation)` is that operation's answer, `{data, rowCount}`. Raises InvalidRequest
    where it has nothing at the path.
    """
    if isinstance(value, list):
        return [resolve(item, op_id, answer_of, f"{place}[{at}]") for at, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if list(value) == [_REF]:
        found = _reference(value[_REF], place)
        return None if answer_of is None else _follow(answer_of(found.operation), found)
    if list(value) == [_OP_ID]:
        return op_id
    return {
        name: resolve(item, op_id, answer_of, f"{place}.{name}") for name, item in value.items()
    }


def _reference(text: Any, place: str) -> Reference:
    form = _FORM.fullmatch(text) if isinstance(text, str) else None
    if form is None:
        raise InvalidRequest(
            f"{place}: $ref is {text!r}; it must be <operation>.data.<member or index>… "
            "or <operation>.rowCount"
        )
    return Reference(form[1], tuple(form[2].split(".")), place)


def _follow(answer: Any, reference: Reference) -> Any:
    found = answer
    for name in reference.path:
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            whole = ".".join((reference.operation, *reference.path))
            raise InvalidRequest(f"{reference.place}: $ref {whole} finds nothing at {name}")
    return found
