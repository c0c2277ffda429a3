"""AQL's values: their order, their truth, and the functions offered."""

import datetime
import math
import time
from collections.abc import Callable
from typing import Any

from failure import Failure


def truth(value: Any) -> bool:
    """null, false, 0 and "" are false; every array and object is true."""
    return not (value is None or value is False or value == "" or _is_zero(value))


def _is_zero(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0


def order(value: Any) -> tuple[int, Any]:
    """A key that sorts as AQL does: null < bool < number < string < array < object."""
    match value:
        case None:
            return 0, 0
        case bool():
            return 1, value
        case int() | float():
            return 2, value
        case str():
            return 3, value
        case list():
            return 4, [order(item) for item in value]
    return 5, sorted((key, order(item)) for key, item in value.items())


def number(value: Any) -> int | float:
    """AQL's cast: null and what is no number count 0."""
    match value:
        case bool():
            return int(value)
        case int() | float():
            return value
        case str():
            try:
                return float(value) if set(value) & set(".eE") else int(value)
            except ValueError:
                return 0
        case [one]:
            return number(one)
    return 0


def text(value: Any) -> str:
    """AQL's cast to a string."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list() | dict():
            import json

            return json.dumps(value, separators=(",", ":"))
        case float() if value.is_integer():
            return str(int(value))
    return str(value)


def attribute(value: Any, name: str) -> Any:
    """null for what is not there."""
    return value.get(name) if isinstance(value, dict) else None


def element(value: Any, index: Any) -> Any:
    """`array[n]`, from the end for a negative n, or `object["name"]`."""
    if isinstance(value, list) and isinstance(index, (int, float)):
        place = int(index)
        return value[place] if -len(value) <= place < len(value) else None
    return attribute(value, text(index))


def divide(left: Any, right: Any) -> int | float | None:
    divisor = number(right)
    return None if divisor == 0 else _plain(number(left) / divisor)


def _plain(value: float) -> int | float:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _length(value: Any) -> int:
    if value is None:
        return 0
    return len(value) if isinstance(value, (list, dict, str)) else len(text(value))


def _merge(*objects: Any) -> dict[str, Any]:
    listed = objects[0] if len(objects) == 1 and isinstance(objects[0], list) else objects
    merged: dict[str, Any] = {}
    for item in listed:
        merged |= item or {}
    return merged


def _sleep(seconds: Any) -> None:
    time.sleep(float(number(seconds)))


def _numbers(values: Any) -> list[int | float]:
    return [number(value) for value in values or [] if value is not None]


def _average(values: Any) -> float | None:
    kept = _numbers(values)
    return _plain(sum(kept) / len(kept)) if kept else None


def _unique(values: Any) -> list[Any]:
    kept: list[Any] = []
    for value in values or []:
        if value not in kept:
            kept.append(value)
    return kept


def _iso_now() -> str:
    now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "LENGTH": _length,
    "COUNT": _length,
    "CONCAT": lambda *parts: "".join(text(part) for part in parts),
    "CONCAT_SEPARATOR": lambda by, *parts: text(by).join(text(part) for part in parts),
    "LOWER": lambda value: text(value).lower(),
    "UPPER": lambda value: text(value).upper(),
    "TRIM": lambda value: text(value).strip(),
    "SUBSTRING": lambda value, start, size=None: text(value)[start:][:size],
    "CONTAINS": lambda value, part: text(part) in text(value),
    "STARTS_WITH": lambda value, part: text(value).startswith(text(part)),
    "SPLIT": lambda value, by: text(value).split(by),
    "TO_NUMBER": number,
    "TO_STRING": text,
    "TO_BOOL": truth,
    "MERGE": _merge,
    "HAS": lambda value, name: isinstance(value, dict) and name in value,
    "ATTRIBUTES": lambda value: list(value or {}),
    "KEYS": lambda value: list(value or {}),
    "VALUES": lambda value: list((value or {}).values()),
    "UNSET": lambda value, *names: {k: v for k, v in value.items() if k not in names},
    "KEEP": lambda value, *names: {k: v for k, v in value.items() if k in names},
    "FIRST": lambda values: values[0] if values else None,
    "LAST": lambda values: values[-1] if values else None,
    "PUSH": lambda values, value: [*(values or []), value],
    "APPEND": lambda values, more: [*(values or []), *(more or [])],
    "UNIQUE": _unique,
    "REVERSE": lambda value: value[::-1],
    "SUM": lambda values: _plain(sum(_numbers(values))),
    "MIN": lambda values: min(_numbers(values), default=None),
    "MAX": lambda values: max(_numbers(values), default=None),
    "AVERAGE": _average,
    "AVG": _average,
    "ABS": lambda value: abs(number(value)),
    "ROUND": lambda value: math.floor(number(value) + 0.5),
    "FLOOR": lambda value: math.floor(number(value)),
    "CEIL": lambda value: math.ceil(number(value)),
    "IS_NULL": lambda value: value is None,
    "IS_STRING": lambda value: isinstance(value, str),
    "IS_ARRAY": lambda value: isinstance(value, list),
    "IS_OBJECT": lambda value: isinstance(value, dict),
    "NOT_NULL": lambda *values: next((value for value in values if value is not None), None),
    "RANGE": lambda low, high, step=1: list(range(low, high + 1, step)),
    "DATE_NOW": lambda: int(time.time() * 1000),
    "DATE_ISO8601": lambda value=None: _iso_now(),
    "PARSE_IDENTIFIER": lambda value: dict(
        zip(("collection", "key"), text(value).split("/", 1), strict=True)
    ),
    "SLEEP": _sleep,
}


def call(name: str, arguments: list[Any]) -> Any:
    """One of the functions offered, or 1540."""
    function = FUNCTIONS.get(name.upper())
    if function is None:
        raise Failure(1540, f"'{name}()'")
    try:
        return function(*arguments)
    except (TypeError, AttributeError):
        return None
