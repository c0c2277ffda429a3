"""docs/clients.md names what the clients have, and what it shows is code."""

import ast
import re
from pathlib import Path

import plan2_client
from plan2_client import ApiGatewayDatabaseConfig, Client, ConfigServiceDatabaseConfig, Plan2Error

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
CODE = re.findall(r"`[^`\n]+`", PAGE)


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_every_call_is_described() -> None:
    client = Client(environ={})
    parts = {name: part for name, part in vars(client).items() if not name.startswith("_")}
    calls = public(client) - {"address", "close", "rows", "run", "timeout_ms"}
    for part in set(parts) & calls:
        calls |= public(parts[part])

    assert len(calls) > 25
    assert not {call for call in calls if not re.search(rf"\b{call}\b", " ".join(CODE))}


def test_every_error_is_described() -> None:
    kinds = {
        name
        for name, kind in vars(plan2_client).items()
        if isinstance(kind, type) and issubclass(kind, Plan2Error)
    }

    assert len(kinds) > 25
    assert not {name for name in kinds if f"`{name}`" not in PAGE}


def test_every_method_of_today_is_described() -> None:
    for kind in (ApiGatewayDatabaseConfig, ConfigServiceDatabaseConfig):
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{kind.__name__}`"))
        assert not {name for name in public(kind) if f"`{name}" not in row}


def test_what_is_shown_of_python_imports_what_there_is() -> None:
    samples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(samples) == 2

    for sample in samples:
        tree = ast.parse(sample)
        compile(tree, "docs/clients.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "plan2_client":
                assert {alias.name for alias in node.names} <= public(plan2_client)
