"""The user's documentation names what the code has: fields, variables, conditions, paths."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from plan2_contract import environment, names
from plan2_contract.engines import Engine
from plan2_sidecar import metrics
from plan2_sidecar.errors import Problem

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
TARGET = re.compile(r"\bmake (?:-s )?([a-z][a-z0-9-]*)")

the_page = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


def page(name: str) -> str:
    return (DOCS / name).read_text()


def schema() -> dict[str, Any]:
    definition = yaml.safe_load((ROOT / "crds" / "plan2databases.yaml").read_text())
    found: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found["properties"]


def fields(properties: dict[str, Any], path: str = "") -> Iterator[str]:
    """Every field by its path; scheduling and peers are Kubernetes' own and go one level deep."""
    for name, declared in properties.items():
        here = f"{path}.{name}" if path else name
        inside = declared.get("properties")
        if inside and not path.endswith("scheduling"):
            yield from fields(inside, here)
        else:
            yield here


def test_every_field_of_the_resource_is_described() -> None:
    text = page("resource.md")
    engine = re.compile(rf"^({'|'.join(Engine)})\.")
    wanted = {engine.sub("", field) for field in fields(schema()["spec"]["properties"])}

    assert not {field for field in wanted if f"`{field}`" not in text}


def test_every_field_and_word_of_the_status_is_described() -> None:
    text = page("resource.md")
    properties = schema()["status"]["properties"]
    block = properties["engines"]["additionalProperties"]["properties"]
    words = [*properties["phase"]["enum"], *block["phase"]["enum"], *block]
    words += [*properties["sidecars"]["properties"], *(set(properties) - {"engines", "conditions"})]

    assert not {word for word in words if f"`{word}`" not in text}


def test_every_variable_of_both_contracts_is_described() -> None:
    text = page("sidecar-by-hand.md")
    own = {
        value
        for value in vars(environment).values()
        if isinstance(value, str) and value.startswith("PLAN2_")
    }
    classic = {variable for keys in environment.CLASSIC.values() for variable in keys}

    assert own
    assert classic
    assert not {name for name in own | classic if f"`{name}" not in text}


def test_every_label_and_annotation_of_a_pod_is_described() -> None:
    text = page("resource.md")
    kinds = ("LABEL_INJECT", "ANNOTATION_")
    own = [value for name, value in vars(names).items() if name.startswith(kinds)]

    assert own
    assert not {name for name in own if f"`{name}" not in text}


def test_every_engine_has_its_row_in_the_operations() -> None:
    text = page("operations.md")

    assert not {engine for engine in Engine if f"\n| {engine} |" not in text}


def test_every_metric_of_a_sidecar_is_described() -> None:
    family = re.compile(r"plan2_sidecar_\w+(?:{[\w,]+})?")
    told = set(family.findall(metrics.__doc__ or ""))

    assert told
    assert not told - set(family.findall(page("operations.md")))


def problems(kind: type[Problem]) -> Iterator[type[Problem]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from problems(narrower)


def test_every_code_of_a_problem_stands_by_its_status() -> None:
    rows = [line for line in page("api.md").splitlines() if re.match(r"\| [45]\d\d", line)]

    assert not {
        problem.code
        for problem in problems(Problem)
        if not any(
            str(problem.status) in row.split("|")[1] and f"`{problem.code}`" in row for row in rows
        )
    }


@the_page
def test_links_lead_somewhere(page: Path) -> None:
    targets = [link for link in LINK.findall(page.read_text()) if "://" not in link]

    assert not [target for target in targets if not (page.parent / target).exists()]


@the_page
def test_targets_of_make_that_are_named_exist(page: Path) -> None:
    makefiles = [ROOT / "Makefile", *ROOT.glob("tests/*/*.mk")]
    known = set(re.findall(r"^([a-z0-9-]+):", "\n".join(m.read_text() for m in makefiles), re.M))
    code = re.findall(r"`[^`\n]+`|^make .*$", page.read_text(), re.M)

    assert not set(TARGET.findall("\n".join(code))) - known


def test_the_architecture_names_what_is_there() -> None:
    # Paths and lists such as `{deadline.py,guard/}` alike, without the prose around them.
    told = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`", page("architecture.md")))))
    packages = [ROOT / "operator/plan2_operator", ROOT / "sidecar/plan2_sidecar"]
    parts = [ROOT / "tests", ROOT / "contract/plan2_contract", *packages]
    there = {
        part.stem
        for place in parts
        for part in place.iterdir()
        if part.name[0] not in "_." and (part.is_dir() or part.suffix == ".py")
    }

    assert not there - told - {"conftest"}


def spread(path: str) -> Iterator[str]:
    """`a/{b,c}.py` as `a/b.py` and `a/c.py`."""
    if braces := re.fullmatch(r"(.*)\{(.+)\}(.*)", path):
        before, inside, after = braces.groups()
        yield from (before + each + after for each in inside.split(","))
    else:
        yield path


def test_the_paths_of_the_architecture_exist() -> None:
    tops = "contract|operator|sidecar|clients|tests|crds|helm|examples"
    paths = re.findall(rf"`((?:{tops})/[^`<\n]*)`", page("architecture.md"))

    assert paths
    assert not [each for path in paths for each in spread(path) if not (ROOT / each).exists()]
