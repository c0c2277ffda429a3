"""The sidecar's variables: defaults, and bad values that are named."""

from pathlib import Path
from typing import ClassVar

import pytest

from plan2_contract import environment
from plan2_contract.engines import Engine
from plan2_contract.environment import InvalidVariable
from plan2_sidecar.settings import Settings, V1Mode


def test_nothing_set_is_a_sidecar_on_localhost() -> None:
    settings = Settings.read({})

    assert (settings.host, settings.port) == ("127.0.0.1", 7420)
    assert (settings.metrics_host, settings.metrics_port) == ("127.0.0.1", 7421)
    assert settings.socket is settings.connection_file is settings.api_token is None
    assert settings.max_body_bytes == 4 * 1024 * 1024
    assert settings.v1 is V1Mode.TOKEN


def test_everything_can_be_set() -> None:
    settings = Settings.read(
        {
            "PLAN2_HOST": "::1",
            "PLAN2_PORT": "3000",
            "PLAN2_SOCKET": "/run/plan2/api.sock",
            "PLAN2_METRICS_HOST": "0.0.0.0",
            "PLAN2_METRICS_PORT": "9090",
            "PLAN2_CONNECTION_FILE": "/etc/plan2/connection/connection.json",
            "PLAN2_API_TOKEN": "secret",
            "PLAN2_API_TOKEN_FILE": "/etc/plan2/token/token",
            "PLAN2_ALLOWED_HOSTS": "Sidecar.example.com, other:80,",
            "PLAN2_MAX_BODY_BYTES": "65536",
            "PLAN2_CACHE_MAX_BYTES": "0",
            "PLAN2_REQUIRED_ENGINES": "postgres, clickhouse",
            "PLAN2_V1": "open",
            "PLAN2_SERVICE_ACCOUNT": "shop",
        }
    )

    assert settings == Settings(
        host="::1",
        port=3000,
        socket=Path("/run/plan2/api.sock"),
        metrics_host="0.0.0.0",
        metrics_port=9090,
        connection_file=Path("/etc/plan2/connection/connection.json"),
        api_token="secret",
        api_token_file=Path("/etc/plan2/token/token"),
        allowed_hosts=frozenset({"sidecar.example.com", "other:80"}),
        max_body_bytes=65536,
        cache_max_bytes=0,
        required_engines=frozenset({Engine.POSTGRESQL, Engine.CLICKHOUSE}),
        v1=V1Mode.OPEN,
        service_account="shop",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PLAN2_PORT", "http"),
        ("PLAN2_PORT", "70000"),
        ("PLAN2_METRICS_PORT", "-1"),
        ("PLAN2_SOCKET", "api.sock"),
        ("PLAN2_CONNECTION_FILE", "connection.json"),
        ("PLAN2_MAX_BODY_BYTES", "0"),
        ("PLAN2_REQUIRED_ENGINES", "oracle"),
        ("PLAN2_V1", "closed"),
        ("PLAN2_API_TOKEN", ""),
        ("PLAN2_API_TOKEN", " \n"),
        ("PLAN2_API_TOKEN_FILE", ""),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidVariable, match=name):
        Settings.read({name: value})


def test_a_line_feed_behind_the_token_is_no_part_of_it() -> None:
    assert Settings.read({"PLAN2_API_TOKEN": "secret\n"}).api_token == "secret"


def test_every_variable_of_the_contract_that_is_the_sidecars_is_read() -> None:
    class Recorder(dict[str, str]):
        asked: ClassVar[set[str]] = set()

        def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]  # narrower than dict's overloads
            self.asked.add(key)
            return default

    Settings.read(Recorder())

    ours = {value for value in vars(environment).values() if str(value).startswith("PLAN2_")}
    assert Recorder.asked == ours - {environment.URL}
