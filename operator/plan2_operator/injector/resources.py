"""The sidecar's CPU and memory: the defaults, and how a resource or an annotation changes them.

Only what a pod would be refused for is checked here, because a refused pod is the one thing
the injector may never cause.
"""

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

import msgspec

from plan2_operator import quantities
from plan2_operator.quantities import BadQuantity

Resources = dict[str, dict[str, str]]

DEFAULTS: Final = MappingProxyType(
    {
        "requests": MappingProxyType({"cpu": "50m", "memory": "64Mi"}),
        "limits": MappingProxyType({"memory": "192Mi"}),
    }
)
NAMES: Final = frozenset({"cpu", "memory", "ephemeral-storage"})


class InvalidResources(ValueError):
    """Requests or limits that the API server would refuse; the message names the value."""


def parse(text: str) -> Resources:
    """The JSON of the annotation `plan2.io/sidecar-resources`; raises InvalidResources."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidResources(f"not JSON: {error}") from error
    return read(value)


def read(value: Any) -> Resources:
    """`value` as requests and limits by name; raises InvalidResources."""
    if not isinstance(value, Mapping) or not value.keys() <= {"requests", "limits"}:
        raise InvalidResources("not an object of requests and limits")
    return {kind: _amounts(kind, amounts) for kind, amounts in value.items()}


def merged(*layers: Mapping[str, Mapping[str, str]]) -> Resources:
    """Later layers over earlier ones, name by name; raises InvalidResources.

    A limit given without its request pulls an inherited, greater request down to itself.
    """
    result: Resources = {"requests": {}, "limits": {}}
    for layer in layers:
        requests, limits = layer.get("requests", {}), layer.get("limits", {})
        for name, limit in limits.items():
            inherited = result["requests"].get(name)
            if name not in requests and inherited and quantity(inherited) > quantity(limit):
                result["requests"][name] = limit
        result["requests"].update(requests)
        result["limits"].update(limits)
    for name, limit in result["limits"].items():
        request = result["requests"].get(name)
        if request and quantity(request) > quantity(limit):
            raise InvalidResources(f"requests.{name} {request} is more than its limit {limit}")
    return result


def quantity(text: str) -> Decimal:
    """The number a Kubernetes quantity stands for; raises InvalidResources."""
    try:
        return quantities.parse(text)
    except BadQuantity as error:
        raise InvalidResources(str(error)) from error


def _amounts(kind: str, amounts: Any) -> dict[str, str]:
    if not isinstance(amounts, Mapping):
        raise InvalidResources(f"{kind} is not an object")
    unknown = amounts.keys() - NAMES
    if unknown:
        raise InvalidResources(f"{kind}.{min(unknown)} is none of {', '.join(sorted(NAMES))}")
    read = {}
    for name, amount in amounts.items():
        if isinstance(amount, bool) or not isinstance(amount, str | int | float):
            raise InvalidResources(f"{kind}.{name} is not a quantity")
        quantity(str(amount))
        read[name] = str(amount)
    return read
