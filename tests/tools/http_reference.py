"""docs/reference/http-api.md, written from what the sidecar serves as /openapi.json.

`python tests/tools/http_reference.py` writes it; a test holds the page equal to the code.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from plan2_sidecar import app
from plan2_sidecar.api import openapi

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http-api.md"
SCHEMAS = "#/components/schemas/"
HEAD = """# The HTTP API, call by call

Written from `GET /openapi.json` by `make reference`; what the calls are for, and what they
promise, is in [the API's own page](../api.md). Every call under `/api` may also answer 401
`unauthorized`, and any call 403 `cross_origin`, 421 `misdirected_request` and 500 `internal`.
"""
EVERYWHERE = {"401", "421", "500"}


def document() -> dict[str, Any]:
    """The document as it is served."""
    calls = [call for resource in app.RESOURCES for call in resource.CALLS]
    written: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(openapi.document(calls)))
    return written


def page(described: dict[str, Any]) -> str:
    """The whole page."""
    tags: dict[str, list[str]] = {}
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            text = "\n".join(_call(method.upper(), path, operation))
            tags.setdefault(operation["tags"][0], []).append(text)
    parts = [HEAD]
    for tag in sorted(tags):
        parts += [f"## {tag.replace('-', ' ').capitalize()}\n", *tags[tag]]
    parts.append("## Types\n")
    for name, schema in described["components"]["schemas"].items():
        parts.append("\n".join(_schema(name, schema)))
    return "\n".join(parts).rstrip() + "\n"


def _call(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### `{method} {path}`\n"
    yield f"{operation['summary'].rstrip('.')}.\n"
    for parameter in operation["parameters"]:
        need = "" if parameter["required"] else ", optional"
        yield f"- {parameter['in']} `{parameter['name']}`: {_kind(parameter['schema'])}{need}"
    if operation["parameters"]:
        yield ""
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        yield f"Takes {_kind(schema)}.\n"
    yield "| status | answer |\n|---|---|"
    for status, response in operation["responses"].items():
        if status not in EVERYWHERE and response["description"] != CROSS_ORIGIN:
            yield f"| {status} | {_answer(response)} |"
    yield ""


def _answer(response: dict[str, Any]) -> str:
    content = response.get("content", {})
    said = []
    for form, body in content.items():
        if form == "application/problem+json":
            said.append(response["description"])
        elif form == "application/json":
            said.append(_kind(body["schema"]))
        else:
            said.append(f"`{form}`")
    return " · ".join(said) or "no body"


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    if "description" in schema:
        yield f"{' '.join(schema['description'].split())}\n"
    if "enum" in schema:
        yield ", ".join(f"`{value}`" for value in schema["enum"]) + "\n"
    if "properties" not in schema:
        return
    yield "| member | type | |\n|---|---|---|"
    required = schema.get("required", ())
    for member, about in schema["properties"].items():
        need = "required" if member in required else ""
        if "default" in about and about["default"] is not None:
            need = f"default `{msgspec.json.encode(about['default']).decode()}`"
        yield f"| `{member}` | {_kind(about)} | {need} |"
    yield ""


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(SCHEMAS)
        return f"[{name}](#{name.lower()})"
    for together in ("anyOf", "allOf", "oneOf"):
        if together in schema:
            return " or ".join(_kind(each) for each in schema[together])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    match schema.get("type"):
        case None:
            return "anything"
        case "array":
            return f"list of {_kind(schema.get('items', {}))}{_limits(schema, 'Items')}"
        case "object":
            return f"object of {_kind(schema.get('additionalProperties') or {})}"
        case kind:
            return f"{kind}{_limits(schema, 'Length')}{_range(schema)}"


def _limits(schema: dict[str, Any], what: str) -> str:
    least, most = schema.get(f"min{what}"), schema.get(f"max{what}")
    if most is not None:
        return f", {least or 0} to {most} {'characters' if what == 'Length' else 'items'}"
    return f", at least {least}" if least else ""


def _range(schema: dict[str, Any]) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f", {least} to {most}"
    return f", at least {least}" if least is not None else ""


CROSS_ORIGIN = "`cross_origin`: Calls from other origins are refused"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(document()))
