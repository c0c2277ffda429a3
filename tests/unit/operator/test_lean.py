"""What the operator's programs do not import: other halves of libraries, which stay in memory."""

import json
import subprocess
import sys

import pytest

PROGRAMS = ("plan2_operator.__main__", "plan2_operator.injector.__main__")
# What `import kubernetes` would bring.
NOT_HELD = {"requests", "oauthlib", "websocket", "kubernetes.dynamic", "kubernetes.informer"}


def modules(*imported: str) -> set[str]:
    """What a new Python holds once it has imported these."""
    program = f"import json, sys, {', '.join(imported)}; print(json.dumps([*sys.modules]))"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(json.loads(answer.stdout))


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_program_imports_the_synchronous_half_of_the_client(program: str) -> None:
    held = modules(program)

    assert "kubernetes.aio.client" in held
    assert not held & NOT_HELD


@pytest.mark.parametrize(
    "imported",
    [("kubernetes", PROGRAMS[0]), (PROGRAMS[0], "kubernetes.config", "kubernetes.utils")],
    ids=["before", "after"],
)
def test_whoever_wants_the_other_half_has_it(imported: tuple[str, ...]) -> None:
    assert {"kubernetes.config", "kubernetes.aio.client"} <= modules(*imported)
