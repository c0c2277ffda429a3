"""The CRD and the typed spec hold the same fields, defaults and words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from plan2_contract import environment, names
from plan2_contract.engines import DATABASES, Engine
from plan2_operator import catalog, resource, spec, status
from plan2_operator.errors import InvalidSpec

CRD = Path(__file__).parents[3] / "crds" / "plan2databases.yaml"
# Copied into the pod as they stand: typed by the CRD alone.
OPAQUE = ("affinity", "tolerations[]", "topologySpreadConstraints[]", "from[]")


@pytest.fixture(scope="module")
def crd() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(CRD.read_text())
    return loaded


@pytest.fixture(scope="module")
def schema(crd: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def test_every_field_of_one_is_in_the_other(schema: dict[str, Any]) -> None:
    typed = set(_typed(msgspec.inspect.type_info(resource.Spec), ""))

    assert set(_declared(schema["properties"]["spec"], "")) == typed


def test_the_definition_carries_the_names_of_the_contract(crd: dict[str, Any]) -> None:
    assert crd["metadata"]["name"] == f"{names.PLURAL}.{names.GROUP}"
    assert crd["spec"]["names"]["kind"] == names.KIND
    assert crd["spec"]["names"]["shortNames"] == ["p2db"]
    assert crd["spec"]["versions"][0]["name"] == names.API_VERSION


def test_only_four_fields_have_defaults(schema: dict[str, Any]) -> None:
    found = dict(_defaults(schema["properties"]["spec"], "spec"))

    engines = {f"spec.{engine.value}": {} for engine in Engine}
    enabled = {f"spec.{engine.value}.enabled": catalog.ENGINES[engine].enabled for engine in Engine}
    assert found == {
        "spec": {},
        **engines,
        **enabled,
        "spec.deletionPolicy": "Retain",
        "spec.paused": False,
        "spec.hibernate": False,
    }


def test_a_bodys_length_is_one_that_a_sidecar_starts_with(schema: dict[str, Any]) -> None:
    limits = schema["properties"]["spec"]["properties"]["sidecar"]["properties"]["limits"]
    declared = limits["properties"]["maxBodyBytes"]

    bounds = (environment.SMALLEST_BODY_BYTES, environment.LARGEST_BODY_BYTES)
    assert (declared["minimum"], declared["maximum"]) == bounds
    for length in (bounds[0] - 1, bounds[1] + 1):
        body = {
            "metadata": {"name": "aitrading"},
            "spec": {"sidecar": {"limits": {"maxBodyBytes": length}}},
        }
        with pytest.raises(InvalidSpec, match=r"spec\.sidecar\.limits\.maxBodyBytes"):
            spec.decode(body)


def test_a_caches_size_is_one_that_a_sidecar_starts_with(schema: dict[str, Any]) -> None:
    cache = schema["properties"]["spec"]["properties"]["sidecar"]["properties"]["cache"]
    declared = cache["properties"]["maxBytes"]

    assert (declared["minimum"], declared["maximum"]) == (0, environment.LARGEST_CACHE_BYTES)
    body = {
        "metadata": {"name": "aitrading"},
        "spec": {"sidecar": {"cache": {"maxBytes": environment.LARGEST_CACHE_BYTES + 1}}},
    }
    with pytest.raises(InvalidSpec, match=r"spec\.sidecar\.cache\.maxBytes"):
        spec.decode(body)


@pytest.mark.parametrize(
    "message",
    [
        spec.NAME_LENGTH_MESSAGE,
        spec.NAME_LABEL_MESSAGE,
        spec.EXTERNAL_MESSAGE,
        spec.SHRINK_MESSAGE,
        spec.SIZE_MESSAGE,
        spec.REQUEST_MESSAGE,
        spec.SQL_MESSAGE,
        spec.HOST_MESSAGE,
        spec.PEER_MESSAGE,
        spec.REQUIRED_MESSAGE,
    ],
)
def test_a_rule_has_the_same_words_in_the_loop_and_in_the_definition(
    schema: dict[str, Any], message: str
) -> None:
    rules = [rule["message"] for rule in _rules(schema)]

    assert any(rule.endswith(message) for rule in rules)


@pytest.mark.parametrize("engine", list(Engine), ids=lambda engine: engine.value)
def test_the_rules_know_the_defaults_that_the_operator_fills_in(
    schema: dict[str, Any], engine: Engine
) -> None:
    block = schema["properties"]["spec"]["properties"][engine.value]
    rules = {
        rule["fieldPath"]: rule["rule"]
        for rule in block["x-kubernetes-validations"]
        if "oldSelf" in rule["rule"]
    }

    size = catalog.ENGINES[engine].storage
    assert f"'{size}'" in rules[".storage.size"]
    assert (".database" in rules) == (engine in DATABASES)
    assert f"'{DATABASES.get(engine, '')}'" in rules.get(".database", "''")


def test_what_only_a_deployed_engine_has_is_refused_beside_external(
    schema: dict[str, Any],
) -> None:
    for engine in Engine:
        block = schema["properties"]["spec"]["properties"][engine.value]
        refused = {
            rule["fieldPath"].removeprefix(".")
            for rule in block["x-kubernetes-validations"]
            if rule.get("message") == spec.EXTERNAL_MESSAGE
        }
        assert refused == set(spec.DEPLOYED_FIELDS) & set(block["properties"])


def test_the_phases_of_the_definition_are_those_of_the_status(schema: dict[str, Any]) -> None:
    engine = schema["properties"]["status"]["properties"]["engines"]["additionalProperties"]

    assert engine["properties"]["phase"]["enum"] == [phase.value for phase in status.Phase]


def _typed(kind: Any, path: str) -> Iterator[str]:
    info = msgspec.inspect
    match kind:
        case info.UnionType(types=types):
            for each in types:
                yield from _typed(each, path)
        case info.StructType(fields=fields):
            for each in fields:
                yield f"{path}.{each.encode_name}"
                yield from _typed(each.type, f"{path}.{each.encode_name}")
        case info.ListType(item_type=item):
            yield from _typed(item, f"{path}[]")


def _declared(schema: dict[str, Any], path: str) -> Iterator[str]:
    if path.endswith(OPAQUE) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    for name, member in schema.get("properties", {}).items():
        yield f"{path}.{name}"
        yield from _declared(member, f"{path}.{name}")
    if "items" in schema:
        yield from _declared(schema["items"], f"{path}[]")


def _defaults(schema: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    if "default" in schema:
        yield path, schema["default"]
    for name, member in schema.get("properties", {}).items():
        yield from _defaults(member, f"{path}.{name}")


def _rules(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from schema.get("x-kubernetes-validations", ())
    for member in schema.get("properties", {}).values():
        yield from _rules(member)
    if "items" in schema:
        yield from _rules(schema["items"])
