"""GET /openapi.json: what every module of the API declares, as one OpenAPI 3.1 document.

The schemas come from the types that decode the requests and encode the answers, so that they
cannot say anything else. The document is written when it is first asked for, and kept.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import web

from plan2_sidecar import errors
from plan2_sidecar.api import body, problems
from plan2_sidecar.api.door import OPEN_PATHS
from plan2_sidecar.api.problems import ProblemDocument
from plan2_sidecar.api.resource import Call
from plan2_sidecar.api.wire import LONGEST_TIMEOUT_MS
from plan2_sidecar.errors import Problem

DESCRIBED: Final = web.AppKey("described", Sequence[Call])
PATH: Final = "/openapi.json"

_WRITTEN: Final = web.AppKey("written", dict[str, bytes])
_SCHEMAS: Final = "#/components/schemas/"
_IN_PATH: Final = re.compile(r"\{(\w+)(?::[^{}]*)?\}")
_EVERYWHERE: Final = (errors.CrossOrigin, errors.Misdirected, errors.Internal)
_WITH_BODY: Final = (
    errors.MalformedJson,
    errors.InvalidRequest,
    errors.NotAcceptable,
    errors.BodyTooLarge,
    errors.UnsupportedMediaType,
)
_ABOUT: Final = (
    "One localhost API over the engines of a Plan2Database. Where a token is configured, every "
    "call under /api needs it. Unknown members of a request are refused; members of an answer "
    "that do not apply are absent."
)


async def openapi(request: web.Request) -> web.Response:
    """GET /openapi.json: this description."""
    return web.Response(body=written(request.app), content_type="application/json")


def written(app: web.Application) -> bytes:
    """The document of the calls that `serving` was told of."""
    kept = app[_WRITTEN]
    if PATH not in kept:
        kept[PATH] = msgspec.json.encode(document(app[DESCRIBED]))
    return kept[PATH]


def serving(app: web.Application, calls: Sequence[Call]) -> None:
    """Remember what the application serves; called before it starts."""
    app[DESCRIBED] = tuple(calls)
    app[_WRITTEN] = {}


def document(calls: Sequence[Call]) -> dict[str, Any]:
    """The calls as OpenAPI 3.1."""
    # It brings the readers of ZIP files and of mail along.
    from importlib.metadata import version

    types = [kind for call in calls for kind in _types(call)]
    schemas, components = msgspec.json.schema_components(
        [ProblemDocument, *types], ref_template=f"{_SCHEMAS}{{name}}"
    )
    schema_of = _Schemas(dict(zip(map(repr, types), schemas[1:], strict=True)), components)
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        path = _IN_PATH.sub(r"{\1}", call.path)
        paths.setdefault(path, {})[call.method.lower()] = _operation(call, schema_of)
    for call in calls:
        if call.parameters is not None:
            # Written out where it is used.
            components.pop(call.parameters.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Plan2 sidecar",
            "version": version("plan2"),
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:7420"}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A line of the file that PLAN2_API_TOKEN_FILE names.",
                }
            },
        },
    }


class _Schemas:
    """The schema of each declared type."""

    def __init__(self, by_name: Mapping[str, Any], components: Mapping[str, Any]) -> None:
        self._by_name = by_name
        self._components = components

    def of(self, kind: Any) -> dict[str, Any]:
        """As it stands in the document: mostly a reference."""
        return dict(self._by_name[repr(kind)])

    def members(self, kind: Any) -> tuple[dict[str, Any], set[str]]:
        """The properties of an object, and which of them are required."""
        schema = self.of(kind)
        whole = self._components[schema["$ref"].removeprefix(_SCHEMAS)]
        return dict(whole["properties"]), set(whole.get("required", ()))


def _types(call: Call) -> Iterator[Any]:
    if call.body is not None:
        yield call.body
    if call.parameters is not None:
        yield call.parameters
    yield from (kind for kind in call.answers.values() if kind is not None)


def _operation(call: Call, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _identity(call),
        "summary": summary(call),
        "tags": [call.handler.__module__.rpartition(".")[2].replace("_", "-")],
        "parameters": [
            *_in_path(call),
            *_in_query(call, schemas),
            *_in_headers(call),
        ],
        "responses": _responses(call, schemas),
    }
    if call.body is not None:
        content = {"application/json": {"schema": schemas.of(call.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    if guarded(call):
        # Without a token configured there is none to send.
        operation["security"] = [{"bearer": []}, {}]
    return operation


def summary(call: Call) -> str:
    """The first line of the handler's docstring, without the method and path it may begin with."""
    first = (call.handler.__doc__ or "").strip().partition("\n")[0]
    text = re.sub(r"^(?:GET|PUT|POST|DELETE) \S+?(?:: |\.$|$)", "", first).strip() or first
    return text[:1].upper() + text[1:]


def guarded(call: Call) -> bool:
    """Whether the call needs the token, where one is configured."""
    return call.path.startswith("/api") and call.path not in OPEN_PATHS


def refusals(call: Call) -> dict[int, list[type[Problem]]]:
    """The problems that the call may answer, by status."""
    kinds: list[type[Problem]] = [*_EVERYWHERE, *call.problems]
    if call.body is not None:
        kinds += _WITH_BODY
    if guarded(call):
        kinds += [errors.Unauthorized, errors.InvalidRequest]
    if _IN_PATH.search(call.path):
        # An empty or an overlong name is nobody's path.
        kinds.append(errors.NotFound)
    found: dict[int, list[type[Problem]]] = {}
    for kind in sorted(set(kinds), key=lambda each: (each.status, each.code)):
        same = found.setdefault(kind.status, [])
        if kind.code not in [each.code for each in same]:
            same.append(kind)
    return found


def _identity(call: Call) -> str:
    words = [word for word in re.split(r"\W+", _IN_PATH.sub(r"\1", call.path)) if word != "api"]
    return "_".join([call.method.lower(), *filter(None, words)])


def _in_path(call: Call) -> Iterator[dict[str, Any]]:
    for name in _IN_PATH.findall(call.path):
        schema = {"type": "string", "minLength": 1, "maxLength": 512}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(call: Call, schemas: _Schemas) -> Iterator[dict[str, Any]]:
    if call.parameters is None:
        return
    properties, required = schemas.members(call.parameters)
    for name, schema in properties.items():
        yield {"name": name, "in": "query", "required": name in required, "schema": schema}


def _in_headers(call: Call) -> Iterator[dict[str, Any]]:
    for name in call.headers:
        yield {"name": f"{name}", "in": "header", "required": False, "schema": {"type": "string"}}
    if guarded(call):
        milliseconds = {"type": "integer", "minimum": 1, "maximum": LONGEST_TIMEOUT_MS}
        yield {
            "name": body.DEADLINE_HEADER,
            "in": "header",
            "required": False,
            "schema": milliseconds,
        }


def _responses(call: Call, schemas: _Schemas) -> dict[str, Any]:
    responses: dict[int, dict[str, Any]] = {}
    for status, kind in call.answers.items():
        response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if kind is not None:
            response["content"] = {"application/json": {"schema": schemas.of(kind)}}
            if status == HTTPStatus.OK:
                response["content"] |= {form.value: {"schema": {}} for form in call.forms}
        responses[status] = response
    for status, kinds in refusals(call).items():
        refused = responses.setdefault(status, {"description": ""})
        words = "; ".join(f"`{kind.code}`: {kind.title}" for kind in kinds)
        refused["description"] = words
        refused.setdefault("content", {})[problems.CONTENT_TYPE] = {"schema": _problem(kinds)}
        if any(kind.default_retry_after_ms is not None for kind in kinds):
            seconds = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
            refused["headers"] = {"Retry-After": seconds}
    return {str(status): responses[status] for status in sorted(responses)}


def _problem(kinds: list[type[Problem]]) -> dict[str, Any]:
    return {
        "allOf": [{"$ref": f"{_SCHEMAS}{ProblemDocument.__name__}"}],
        "properties": {"code": {"enum": [kind.code for kind in kinds]}},
    }


CALLS = (Call(method="GET", path=PATH, handler=openapi, answers={200: dict[str, Any]}),)
