"""/openapi.json: every call, with the types that decode and every status it can answer."""

import re
from collections import Counter
from typing import Any

import msgspec
import pytest

from plan2_sidecar import app, errors
from plan2_sidecar.api import openapi
from plan2_sidecar.api.resource import Call
from plan2_sidecar.query import Form
from tools import http_reference

CALLS = [call for resource in app.RESOURCES for call in resource.CALLS]
REFERENCE = re.compile(r'"\$ref":"#/components/schemas/([^"]+)"')


class Asked(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What is asked."""

    client_id: str
    cost: int = 1


class Page(msgspec.Struct):
    """A page."""

    limit: int = 100


async def handler(request: Any) -> Any:
    """PUT /api/v2/things/{name}: make a thing.

    And more.
    """


MADE = Call(
    method="PUT",
    path="/api/v2/things/{name:.+}",
    handler=handler,
    body=Asked,
    parameters=Page,
    headers=("If-Match",),
    answers={200: Asked, 204: None},
    problems=(errors.Conflict, errors.EngineUnavailable, errors.ConnectionLost),
    forms=(Form.NDJSON,),
)


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return http_reference.document()


@pytest.fixture
def made() -> dict[str, Any]:
    found: dict[str, Any] = openapi.document([MADE])["paths"]["/api/v2/things/{name}"]["put"]
    return found


def test_a_call_is_described_with_what_it_declares(made: dict[str, Any]) -> None:
    assert made["summary"] == "Make a thing."
    assert made["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Asked"
    }
    assert [(each["in"], each["name"], each["required"]) for each in made["parameters"]] == [
        ("path", "name", True),
        ("query", "limit", False),
        ("header", "If-Match", False),
        ("header", "X-Deadline-Ms", False),
    ]
    assert made["security"] == [{"bearer": []}, {}]


def test_every_status_is_described_with_its_codes(made: dict[str, Any]) -> None:
    answers = made["responses"]

    assert " ".join(answers) == "200 204 400 401 403 404 406 409 413 415 421 500 503"
    assert list(answers["200"]["content"]) == ["application/json", "application/x-ndjson"]
    assert "content" not in answers["204"]
    problem = answers["400"]["content"]["application/problem+json"]["schema"]
    assert problem["properties"]["code"]["enum"] == ["invalid_request", "malformed_json"]
    assert "Retry-After" in answers["503"]["headers"]
    assert "headers" not in answers["409"]


def test_every_call_has_a_name_of_its_own_and_a_summary(described: dict[str, Any]) -> None:
    operations = [each for path in described["paths"].values() for each in path.values()]
    names = Counter(each["operationId"] for each in operations)

    assert len(operations) == len(CALLS)
    assert [name for name, count in names.items() if count > 1] == []
    assert [each["operationId"] for each in operations if len(each["summary"]) < 10] == []


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    named = set(REFERENCE.findall(msgspec.json.encode(described).decode()))

    assert named == set(described["components"]["schemas"])


def test_requests_say_that_unknown_members_are_refused(described: dict[str, Any]) -> None:
    assert described["components"]["schemas"]["QueryRequest"]["additionalProperties"] is False


def test_the_reference_is_what_the_code_says(described: dict[str, Any]) -> None:
    written = http_reference.PAGE.read_text()

    assert written == http_reference.page(described), "run `make reference`"
