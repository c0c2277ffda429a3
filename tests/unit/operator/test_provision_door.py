"""The door to provisioning: drivers on first use, one deadline, no password in a message."""

import subprocess
import sys

import pytest

from plan2_contract.engines import Engine
from plan2_operator import spec
from plan2_operator.provision import MODULES, base, provision

DRIVERS = ("asyncpg", "redis", "aiohttp", "arango", "pymongo")


def request(**admin: str) -> base.Provision:
    return base.Provision(
        engine=Engine.POSTGRESQL,
        host="nowhere",
        port=1,
        database="app",
        admin=admin,
        bootstrap=spec.Bootstrap(),
        seconds=1.0,
    )


def test_every_engine_has_a_provisioner() -> None:
    assert set(MODULES) == set(Engine)


def test_no_driver_is_imported_before_it_is_needed() -> None:
    program = f"import sys, plan2_operator.provision; print({DRIVERS} & sys.modules.keys())"
    program = program.replace(str(DRIVERS), f"set({DRIVERS})")

    imported = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert imported.stdout.strip() == "set()"


def test_passwords_are_struck_out_and_names_are_not() -> None:
    asked = request(username="root", password="secret-1", **{"app-password": "secret-2"})

    shown = asked.without_secrets("root said secret-1,\n  then secret-2")

    assert shown == "root said ***, then ***"


def test_a_request_shows_no_password() -> None:
    assert "secret-1" not in repr(request(password="secret-1"))


def test_a_key_missing_from_the_secret_is_named() -> None:
    with pytest.raises(base.ProvisionError, match="no value under 'app-password'"):
        request(password="secret-1").secret("app-password")


@pytest.mark.parametrize(
    ("bootstrap", "longest"),
    [
        (spec.Bootstrap(), 10),
        (spec.Bootstrap(sql=("SELECT pg_sleep(60)",)), 310),
    ],
    ids=["without", "with a statement of the user"],
)
async def test_a_statement_of_the_users_has_minutes_and_a_connection_has_seconds(
    monkeypatch: pytest.MonkeyPatch, bootstrap: spec.Bootstrap, longest: float
) -> None:
    asked: list[base.Provision] = []

    async def provisioner(request: base.Provision) -> None:
        asked.append(request)

    monkeypatch.setattr("plan2_operator.provision.postgresql.provision", provisioner)
    wanted = spec.decode({"metadata": {"name": "demo"}}).engines[Engine.POSTGRESQL]

    await provision(wanted, "nowhere", 1, {}, bootstrap)

    assert (asked[0].seconds, asked[0].connect_seconds) == (longest, 10)
