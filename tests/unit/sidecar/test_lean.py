"""What an idle sidecar does not hold, and that it is there all the same when it is needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plan2_contract import engines

NOT_IDLE = (
    "argparse",
    "bz2",
    "configparser",
    "email._header_value_parser",
    "frozenlist._frozenlist",
    "html.entities",
    "http.server",
    "idna",
    "importlib.metadata",
    "prometheus_client",
    "shutil",
    "urllib.request",
    "zipfile",
    *("asyncpg", "hiredis", "pymongo"),
    *(f"plan2_sidecar.engines.{engine}" for engine in engines.Engine),
    "plan2_sidecar.embedded.supervisor",
    "plan2_sidecar.metrics_page",
)
# 465 when this was written.
MOST_MODULES = 480


def told(program: str) -> object:
    """What a new Python prints as JSON; one that nobody traces, which imports things, too."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }
    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return json.loads(answer.stdout)


@pytest.fixture(scope="module")
def modules() -> set[str]:
    held = told("import json, sys, plan2_sidecar.__main__; print(json.dumps([*sys.modules]))")
    assert isinstance(held, list)
    return set(held)


def test_the_start_imports_nothing_that_only_a_call_needs(modules: set[str]) -> None:
    assert not modules & set(NOT_IDLE)


def test_the_start_imports_no_more_than_it_did(modules: set[str]) -> None:
    assert len(modules) <= MOST_MODULES


def test_the_driver_of_postgresql_brings_no_readers_of_files_along() -> None:
    held = told(
        "import json, sys; from plan2_sidecar import lean; lean.starting();"
        "lean.load('plan2_sidecar.engines.postgresql');"
        "import asyncpg.connect_utils as there; before = 'configparser' in sys.modules;"
        "print(json.dumps([before, type(there.configparser.ConfigParser()).__name__]))"
    )

    assert held == [False, "ConfigParser"]


def test_what_was_left_out_is_there_when_aiohttp_calls_it() -> None:
    held = told(
        "import json; from plan2_sidecar import lean; lean.starting();"
        "from aiohttp import helpers, web, web_urldispatcher; from yarl import URL;"
        "print(json.dumps(["
        "  helpers.parse_content_type('application/json; charset=\"utf-8\"')[0],"
        "  helpers.parse_content_type('text/plain; charset=latin-1')[1]['charset'],"
        "  web_urldispatcher.html_escape('<'),"
        "  URL('http://b\u00fccher.example').raw_host,"
        "  list(helpers.getproxies()) is not None,"
        "]))"
    )

    assert held == ["application/json", "latin-1", "&lt;", "xn--bcher-kva.example", True]


def test_afterwards_everybody_imports_the_real_modules() -> None:
    held = told(
        "import json, sys; from plan2_sidecar import lean; lean.starting();"
        "import argparse, html, idna, tempfile, urllib.request, email.headerregistry, ssl;"
        "print(json.dumps([argparse.__file__, html.__file__, idna.__file__, tempfile.__file__,"
        "  urllib.request.__file__, email.headerregistry.__file__,"
        "  type(ssl.create_default_context()).__name__]))"
    )

    assert isinstance(held, list)
    assert all(Path(file).is_file() for file in held[:-1])
    assert held[-1] == "SSLContext"


def test_a_client_that_was_given_no_certificates_connects_to_nobody() -> None:
    held = told(
        "import asyncio, json; from plan2_sidecar import lean; lean.starting();\n"
        "import aiohttp\n"
        "async def main():\n"
        "    quiet = await asyncio.start_server(lambda r, w: None, '127.0.0.1', 0)\n"
        "    port = quiet.sockets[0].getsockname()[1]\n"
        "    async with aiohttp.ClientSession() as session:\n"
        "        try:\n"
        "            await session.get(f'https://127.0.0.1:{port}/')\n"
        "        except Exception as error:\n"
        "            return type(error).__name__\n"
        "print(json.dumps(asyncio.run(asyncio.wait_for(main(), 5))))"
    )

    assert held not in (None, "TimeoutError")


def test_what_was_in_use_while_starting_goes_back_to_the_kernel() -> None:
    held = told(
        "import json; from plan2_sidecar import lean\n"
        "def resident():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return next(int(l.split()[1]) for l in lines if l.startswith('VmRSS:'))\n"
        "lean.settle()\n"
        "kept = [(b'x' * 100_000, b'x' * 1_000) for _ in range(300)]\n"
        "full = resident()\n"
        "kept = [small for _, small in kept]\n"
        "lean.settle()\n"
        "print(json.dumps(full - resident()))"
    )

    assert isinstance(held, int)
    assert held > 20_000
