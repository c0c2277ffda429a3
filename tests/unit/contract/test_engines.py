"""The engines' ids, aliases, ports and capabilities."""

import pytest

from plan2_contract import engines
from plan2_contract.engines import Engine


@pytest.mark.parametrize("engine", Engine)
def test_an_engine_is_found_by_its_id(engine: Engine) -> None:
    assert engines.parse(engine.value) is engine


@pytest.mark.parametrize("alias", engines.ALIASES)
def test_an_engine_is_found_by_its_alias(alias: str) -> None:
    assert engines.parse(alias) is engines.ALIASES[alias]


@pytest.mark.parametrize("name", ["", "oracle", "POSTGRESQL", "PostgreSQL", "redis "])
def test_any_other_name_is_no_engine(name: str) -> None:
    assert engines.parse(name) is None


def test_an_alias_is_never_an_id() -> None:
    assert not set(engines.ALIASES) & {engine.value for engine in Engine}


def test_there_are_six_beside_the_legacy_one() -> None:
    assert len(engines.SIX) == 6
    assert set(Engine) - set(engines.SIX) == {Engine.REDIS}


def test_every_engine_has_a_port_and_can_do_something() -> None:
    assert set(engines.PORTS) == set(Engine)
    assert set(engines.CAPABILITIES) == set(Engine)
    assert all(engines.CAPABILITIES.values())


def test_no_two_engines_share_a_port() -> None:
    assert len(set(engines.PORTS.values())) == len(Engine)
