"""Every call of the API has its method, in both languages and under the same name."""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from fixtures.node_client import run_node
from plan2_client import Client, queries, resources
from plan2_client.call import Call
from plan2_sidecar.app import RESOURCES

PRINT_METHODS = """
    const { Client } = require('./index.js')
    const methods = (thing) => Object.getOwnPropertyNames(Object.getPrototypeOf(thing))
    const client = new Client({ environ: {} })
    const parts = Object.entries(client).filter(([name]) => !name.startsWith('_'))
    const own = parts.map(([name, part]) => [name, methods(part)])
    console.log(JSON.stringify(Object.fromEntries([['', methods(client)], ...own])))
"""
# Options of a client and what only Python has: the way in for calls made by hand.
PYTHONS_OWN = {"address", "timeout_ms", "run", "rows"}


def calls() -> Iterator[Call[Any]]:
    for module in (queries, resources):
        for name, build in vars(module).items():
            if inspect.isfunction(build) and build.__module__ == module.__name__ and name[0] != "_":
                yield made(build)


def made(build: Callable[..., Call[Any]]) -> Call[Any]:
    """The call with a word for everything it must be given."""
    parameters = inspect.signature(build).parameters.values()
    wanted = [each.name for each in parameters if each.default is inspect.Parameter.empty]
    lists = {"operations", "queries", "requests"}
    return build(*([] if name in lists else "x" for name in wanted))


def test_every_call_of_the_api_has_a_method() -> None:
    # For callers from before, and for people.
    left_out = re.compile(r"/api/v1/|/health$|/livez$|/openapi.json$")
    offered = {
        f"{call.method} {re.sub(r'{[^}]*}', 'x', call.path)}"
        for resource in RESOURCES
        for call in resource.CALLS
        if not left_out.search(call.path)
    }

    asked = {f"{call.method} {call.path}" for call in calls()}

    assert len(offered) > 30
    assert asked == offered


def test_both_languages_name_their_calls_alike() -> None:
    client = Client(environ={})
    parts = {"": client, **{n: part for n, part in vars(client).items() if n in dir_of(client)}}
    python = {camel(name): {camel(call) for call in dir_of(part)} for name, part in parts.items()}
    python[""] -= set(python)

    node = {name: set(calls) for name, calls in json.loads(run_node("-e", PRINT_METHODS)).items()}

    for name, calls_of_part in node.items():
        assert python[name] == calls_of_part - {"constructor"}, name


def dir_of(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")} - PYTHONS_OWN


def camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)
