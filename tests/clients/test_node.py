"""The Node.js client: its own tests and its types, run here so that one command runs all."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.node_client import NODE_CLIENT, run_node
from plan2_client import errors as ours
from plan2_sidecar import errors as theirs

TESTS = sorted((NODE_CLIENT / "test").glob("*.test.mjs"))


def tree(kind: type[theirs.Problem]) -> Iterator[type[theirs.Problem]]:
    yield kind
    for below in kind.__subclasses__():
        yield from tree(below)


@pytest.mark.parametrize("file", TESTS, ids=[file.name for file in TESTS])
@pytest.mark.usefixtures("node_modules")
def test_what_node_tests_holds(file: Path) -> None:
    run_node("--test", str(file))


@pytest.mark.usefixtures("node_modules")
def test_a_typescript_service_compiles_against_the_types() -> None:
    run_node("node_modules/typescript/bin/tsc", "-p", "test")


def test_the_package_needs_no_other_and_carries_all_it_imports(tmp_path: Path) -> None:
    package = json.loads((NODE_CLIENT / "package.json").read_text())
    assert "dependencies" not in package

    copy = tmp_path / "node_modules" / "@plan2" / "client"
    for name in package["files"]:
        copy.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", NODE_CLIENT / name, copy / name], check=True)
    subprocess.run(["cp", NODE_CLIENT / "package.json", copy], check=True)

    for kind, text in {
        "mjs": "import { Client } from '@plan2/client'; new Client({ environ: {} })",
        "cjs": "const { Client } = require('@plan2/client'); new Client({ environ: {} })",
    }.items():
        script = tmp_path / f"service.{kind}"
        script.write_text(text)
        run_node(str(script))


def test_both_clients_know_every_code_of_the_sidecar() -> None:
    codes = {kind.code for kind in tree(theirs.Problem)}
    # Of the caller's making, all of them: InvalidRequest says as much.
    plain = {
        "malformed_json",
        "unknown_engine",
        "parameter_mismatch",
        "multiple_statements",
        "method_not_allowed",
        "not_acceptable",
        "body_too_large",
        "unsupported_media_type",
        "misdirected_request",
        "cross_origin",
    }
    print_codes = """
        const { CLASSES } = require('./lib/errors.js')
        console.log(JSON.stringify(Object.values(CLASSES).map(({ code }) => code)))
    """
    node = set(json.loads(run_node("-e", print_codes)))

    assert codes - plain <= set(ours.BY_CODE)
    assert node == set(ours.BY_CODE)


@pytest.mark.usefixtures("node_modules")
def test_every_call_works_on_a_real_sidecar(app_environment: dict[str, str]) -> None:
    run_node("--test", "test/live.mjs", **app_environment)
