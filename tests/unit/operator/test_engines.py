"""What is particular to each engine: its settings, its Secrets, its connection."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest

from plan2_contract import environment
from plan2_contract.connection import KeyValue, MongoDB, Sql, Weaviate
from plan2_contract.engines import SIX, Engine
from plan2_operator import desired, spec
from plan2_operator.engines import MODULES
from plan2_operator.errors import InvalidSpec
from plan2_operator.model import EngineSpec, Platform


@pytest.fixture
def generate() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"generated{next(numbers)}"


def platform_of(written: dict[str, Any]) -> Platform:
    body = {"metadata": {"name": "demo", "namespace": "team", "uid": "u"}, "spec": written}
    return spec.decode(body)


def engine_of(engine: Engine, block: dict[str, Any]) -> tuple[Platform, EngineSpec]:
    platform = platform_of({engine.value: {"enabled": True, **block}})
    return platform, platform.engines[engine]


def container(engine: Engine, block: dict[str, Any]) -> dict[str, Any]:
    template = made(engine, block, "StatefulSet")["spec"]["template"]
    found: dict[str, Any] = template["spec"]["containers"][0]
    return found


def made(engine: Engine, block: dict[str, Any], kind: str) -> dict[str, Any]:
    platform, wanted = engine_of(engine, block)
    objects = MODULES[engine].objects(platform, wanted)
    return next(each for each in objects if each["kind"] == kind)


def memory(limit: str, **more: str) -> dict[str, Any]:
    return {"resources": {"limits": {"memory": limit, **more}}}


def elements(xml: str) -> Iterator[tuple[str, str]]:
    def walk(node: ElementTree.Element, path: str) -> Iterator[tuple[str, str]]:
        for child in node:
            below = f"{path}/{child.tag}".lstrip("/")
            yield below, (child.text or "").strip()
            yield from walk(child, below)

    yield from walk(ElementTree.fromstring(xml), "")


ENGINES = pytest.mark.parametrize("engine", list(Engine), ids=lambda engine: engine.value)


@ENGINES
def test_every_value_of_an_existing_secret_is_kept(
    engine: Engine, generate: Callable[[], str]
) -> None:
    platform, wanted = engine_of(engine, {})
    module = MODULES[engine]
    first = module.admin_secret(platform, wanted, {}, generate)

    second = module.admin_secret(platform, wanted, {**first, "own": "kept"}, generate)

    assert second == {**first, "own": "kept"}
    assert len(set(first.values())) == len(first)


@ENGINES
def test_a_missing_value_alone_is_generated(engine: Engine, generate: Callable[[], str]) -> None:
    platform, wanted = engine_of(engine, {})
    module = MODULES[engine]
    first = module.admin_secret(platform, wanted, {}, generate)
    secret = next(key for key, value in first.items() if value.startswith("generated"))
    rest = {key: value for key, value in first.items() if key != secret}

    second = module.admin_secret(platform, wanted, rest, generate)

    differing = {key for key in first if first[key] != second[key]}
    assert differing - {"users.acl", "users.xml"} == {secret}


@ENGINES
def test_no_secret_value_ends_in_a_newline_but_files_do(
    engine: Engine, generate: Callable[[], str]
) -> None:
    platform, wanted = engine_of(engine, {})

    admin = MODULES[engine].admin_secret(platform, wanted, {}, generate)

    files = {"users.acl", "users.xml"}
    assert all(value.endswith("\n") == (key in files) for key, value in admin.items())


@ENGINES
def test_the_app_secret_has_what_the_classic_environment_reads(
    engine: Engine, generate: Callable[[], str]
) -> None:
    platform, wanted = engine_of(engine, {})
    module = MODULES[engine]
    admin = module.admin_secret(platform, wanted, {}, generate)

    binding = module.app_secret(platform, wanted, admin)

    assert set(environment.CLASSIC[engine].values()) <= binding.keys()
    assert binding["provider"] == "plan2"
    assert admin.get("password") not in binding.values()


@pytest.mark.parametrize(
    "engine", [Engine.DRAGONFLYDB, Engine.REDIS, Engine.ARANGODB], ids=lambda each: each.value
)
def test_another_administrator_than_the_engine_knows_is_refused(
    engine: Engine, generate: Callable[[], str]
) -> None:
    platform, wanted = engine_of(engine, {})

    with pytest.raises(InvalidSpec, match=rf"spec\.{engine.value}\.credentialsSecretRef"):
        MODULES[engine].admin_secret(platform, wanted, {"username": "boss"}, generate)


@pytest.mark.parametrize(
    ("engine", "key"),
    [
        (Engine.POSTGRESQL, "listen_addresses"),
        (Engine.POSTGRESQL, "PORT"),
        (Engine.DRAGONFLYDB, "aclfile"),
        (Engine.DRAGONFLYDB, "replicaof"),
        (Engine.CLICKHOUSE, "listen_host"),
        (Engine.CLICKHOUSE, "prometheus/port"),
        (Engine.WEAVIATE, "CLUSTER_HOSTNAME"),
        (Engine.ARANGODB, "server.endpoint"),
        (Engine.MONGODB, "keyFile"),
        (Engine.MONGODB, "bind_ip"),
        (Engine.REDIS, "requirepass"),
    ],
)
def test_a_setting_of_the_operators_own_is_refused(engine: Engine, key: str) -> None:
    platform, wanted = engine_of(engine, {"configuration": {key: "x"}})

    with pytest.raises(InvalidSpec) as refusal:
        MODULES[engine].objects(platform, wanted)

    assert refusal.value.field == f"spec.{engine.value}.configuration.{key}"
    assert refusal.value.message == "is set by the operator"


@ENGINES
@pytest.mark.parametrize(
    "key",
    ["a b", "a;b", "</x>", "$(HOME)", "", "-"],
    ids=["space", "semicolon", "tag", "dollar", "empty", "dash"],
)
def test_what_is_no_name_of_a_setting_is_refused(engine: Engine, key: str) -> None:
    platform, wanted = engine_of(engine, {"configuration": {key: "x"}})

    with pytest.raises(InvalidSpec, match="is not the name of a setting"):
        MODULES[engine].objects(platform, wanted)


@ENGINES
def test_a_setting_of_two_lines_is_refused(engine: Engine) -> None:
    key = {"weaviate": "A", "arangodb": "log.level"}.get(engine.value, "setting")
    platform, wanted = engine_of(engine, {"configuration": {key: "x\nport 1"}})

    with pytest.raises(InvalidSpec, match="must be one line"):
        MODULES[engine].objects(platform, wanted)


def test_a_setting_in_another_case_is_still_the_users() -> None:
    given = {"configuration": {"TimeZone": "Europe/Berlin", "MAX_CONNECTIONS": 300}}
    platform, wanted = engine_of(Engine.POSTGRESQL, given)

    config = made(Engine.POSTGRESQL, given, "ConfigMap")["data"]["postgresql.conf"]

    settings = [line.partition(" = ")[0].lower() for line in config.splitlines()]
    assert len(settings) == len(set(settings))
    assert "TimeZone = 'Europe/Berlin'" in config
    assert MODULES[Engine.POSTGRESQL].max_connections(wanted) == 300
    assert platform.engines[Engine.POSTGRESQL] is wanted


def test_a_changed_configuration_changes_the_pods_template() -> None:
    hashes = {
        made(Engine.POSTGRESQL, {"configuration": {"work_mem": value}}, "StatefulSet")["spec"][
            "template"
        ]["metadata"]["annotations"]["plan2.io/config-hash"]
        for value in ("8MB", "9MB")
    }

    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("image", "mounted", "pgdata"),
    [
        ("postgres:17.11", "/var/lib/postgresql/data", "/var/lib/postgresql/data/pgdata"),
        ("postgres:18", "/var/lib/postgresql", "/var/lib/postgresql/18/docker"),
        ("host:5000/postgres:19-alpine", "/var/lib/postgresql", "/var/lib/postgresql/19/docker"),
        ("host:5000/postgres", "/var/lib/postgresql/data", "/var/lib/postgresql/data/pgdata"),
        ("localhost/postgres:dev", "/var/lib/postgresql/data", "/var/lib/postgresql/data/pgdata"),
    ],
)
def test_postgresql_finds_its_data_where_the_image_of_that_major_has_it(
    image: str, mounted: str, pgdata: str
) -> None:
    found = container(Engine.POSTGRESQL, {"image": image})

    environ = {entry["name"]: entry.get("value") for entry in found["env"]}
    assert found["volumeMounts"][0] == {"name": "data", "mountPath": mounted}
    assert environ["PGDATA"] == pgdata


@pytest.mark.parametrize(
    ("limits", "threads", "maxmemory"),
    [
        (memory("640Mi"), 1, 512 * 2**20),
        (memory("640Mi", cpu="8"), 2, 512 * 2**20),
        (memory("10Gi", cpu="2500m"), 3, 8 * 2**30),
        (memory("330Mi", cpu="4"), 1, 264 * 2**20),
    ],
    ids=["no-cpu-limit", "memory-bound", "cpu-bound", "smallest"],
)
def test_dragonfly_gets_as_many_threads_as_cores_and_memory_allow(
    limits: dict[str, Any], threads: int, maxmemory: int
) -> None:
    args = container(Engine.DRAGONFLYDB, limits)["args"]

    assert f"--proactor_threads={threads}" in args
    assert f"--maxmemory={maxmemory}" in args


def test_dragonfly_is_refused_less_memory_than_it_starts_with() -> None:
    platform, wanted = engine_of(Engine.DRAGONFLYDB, memory("329Mi"))

    with pytest.raises(InvalidSpec) as refusal:
        MODULES[Engine.DRAGONFLYDB].objects(platform, wanted)

    assert refusal.value.field == "spec.dragonflydb.resources.limits.memory"


def test_the_admin_port_of_dragonfly_is_open_to_nobody() -> None:
    policy = made(Engine.DRAGONFLYDB, {}, "NetworkPolicy")
    service = made(Engine.DRAGONFLYDB, {}, "Service")

    assert [port["port"] for port in policy["spec"]["ingress"][0]["ports"]] == [6379]
    assert [port["port"] for port in service["spec"]["ports"]] == [6379]


@pytest.mark.parametrize("engine", [Engine.DRAGONFLYDB, Engine.REDIS], ids=lambda each: each.value)
def test_the_aclfile_keeps_to_what_both_servers_read(
    engine: Engine, generate: Callable[[], str]
) -> None:
    platform, wanted = engine_of(engine, {})

    admin = MODULES[engine].admin_secret(platform, wanted, {}, generate)

    users = [line.split(" ") for line in admin["users.acl"].splitlines()]
    assert [user[1] for user in users] == ["plan2-admin", "default", "plan2-ro"]
    for word, _, state, password, *rules in users:
        assert (word, state, password[0]) == ("user", "on", ">")
        assert all(rule[0] in "~&+-" and "|" not in rule for rule in rules)


def test_a_password_with_a_space_is_refused_for_the_aclfile(generate: Callable[[], str]) -> None:
    platform, wanted = engine_of(Engine.REDIS, {})

    with pytest.raises(InvalidSpec, match="white space"):
        MODULES[Engine.REDIS].admin_secret(platform, wanted, {"password": "a b"}, generate)


def test_clickhouse_reads_one_element_for_each_group() -> None:
    block = {"configuration": {"merge_tree/parts_to_throw_insert": 9, "logger/level": "a<b"}}

    config = made(Engine.CLICKHOUSE, block, "ConfigMap")["data"]["plan2.xml"]

    found = list(elements(config))
    assert [path for path, _ in found].count("merge_tree") == 1
    assert ("merge_tree/parts_to_throw_insert", "9") in found
    assert ("logger/level", "a<b") in found
    assert ("listen_host", "0.0.0.0") in found


def test_clickhouse_takes_its_own_defaults_in_a_large_memory() -> None:
    small = made(Engine.CLICKHOUSE, memory("3Gi"), "ConfigMap")["data"]["plan2.xml"]
    large = made(Engine.CLICKHOUSE, memory("4Gi"), "ConfigMap")["data"]["plan2.xml"]

    assert "background_pool_size" in small
    assert "background_pool_size" not in large


def test_the_administrator_of_clickhouse_stands_in_a_file_without_the_password(
    generate: Callable[[], str],
) -> None:
    platform, wanted = engine_of(Engine.CLICKHOUSE, {})

    admin = MODULES[Engine.CLICKHOUSE].admin_secret(
        platform, wanted, {"username": "boss"}, generate
    )

    found = dict(elements(admin["users.xml"]))
    assert found["users/boss/access_management"] == "1"
    assert len(found["users/boss/password_sha256_hex"]) == 64
    assert admin["password"] not in admin["users.xml"]
    assert '<default remove="1"/>' in admin["users.xml"]


@pytest.mark.parametrize(("limit", "cache"), [("1Gi", "0.25"), ("4Gi", "1.50")])
def test_mongodb_leaves_half_of_its_memory_to_the_rest(limit: str, cache: str) -> None:
    args = container(Engine.MONGODB, memory(limit))["args"]

    assert f"--wiredTigerCacheSizeGB={cache}" in args


def test_the_uri_of_mongodb_carries_any_password(generate: Callable[[], str]) -> None:
    platform, wanted = engine_of(Engine.MONGODB, {})
    admin = {"username": "root", "password": "x", "app-password": "p@ss/word:%", "ro-password": "r"}

    found = MODULES[Engine.MONGODB].connection(platform, wanted, admin, 5)

    assert isinstance(found, MongoDB)
    parts = urlsplit(found.uri)
    assert unquote(parts.password or "") == "p@ss/word:%"
    assert parts.hostname == "demo-mongodb.team.svc.cluster.local"
    assert parts.path == "/aitrading_config"
    assert parts.query == "authSource=aitrading_config&directConnection=true"


def test_an_external_engine_is_wired_as_it_is_given() -> None:
    external = {"host": "db.example.com", "tls": True}
    platform = platform_of(
        {
            **{engine.value: {"external": external} for engine in SIX},
            "redis": {"enabled": True, "external": {"host": "old", "port": 6380}},
        }
    )
    given = {"username": "me", "password": "p", "api-key": "k", "ca.crt": "PEM"}
    admin = {engine: given if engine is not Engine.REDIS else {} for engine in Engine}

    engines = desired.document(platform, admin, sidecars=4).engines

    assert desired.objects(platform) == {}
    postgresql, redis, weaviate, mongodb = (
        engines.postgresql,
        engines.redis,
        engines.weaviate,
        engines.mongodb,
    )
    assert isinstance(postgresql, Sql)
    assert isinstance(redis, KeyValue)
    assert isinstance(weaviate, Weaviate)
    assert isinstance(mongodb, MongoDB)
    assert (postgresql.tls, postgresql.ca_pem, postgresql.rw.username) == (True, "PEM", "me")
    assert (postgresql.ro, postgresql.pool_max) == (None, 20)
    assert (redis.host, redis.rw) == ("old", None)
    assert (weaviate.scheme, weaviate.api_key) == ("https", "k")
    assert mongodb.uri == (
        "mongodb://me:p@db.example.com:27017/aitrading_config?authSource=admin&tls=true"
    )


def test_the_uri_of_an_external_mongodb_is_taken_whole() -> None:
    platform, wanted = engine_of(Engine.MONGODB, {"external": {"host": "ignored"}})

    found = MODULES[Engine.MONGODB].connection(platform, wanted, {"uri": "mongodb+srv://a/b"}, 5)

    assert isinstance(found, MongoDB)
    assert found.uri == "mongodb+srv://a/b"


@pytest.mark.parametrize(
    ("sidecars", "pool", "low"),
    [(0, 20, False), (1, 20, False), (10, 18, False), (92, 2, False), (93, 2, True)],
)
def test_sidecars_share_the_connections_of_postgresql(sidecars: int, pool: int, low: bool) -> None:
    platform = platform_of({})

    assert desired.pool_max(platform.engines[Engine.POSTGRESQL], sidecars) == pool
    assert desired.low_budgets(platform, sidecars) == ([Engine.POSTGRESQL] if low else [])


def test_the_document_leaves_out_an_engine_whose_secret_is_not_known(
    generate: Callable[[], str],
) -> None:
    platform = platform_of({"sidecar": {"requiredEngines": ["mongodb"]}})
    wanted = platform.engines[Engine.REDIS]
    admin = MODULES[Engine.REDIS].admin_secret(platform, wanted, {}, generate)

    document = desired.document(platform, {Engine.REDIS: admin}, sidecars=0)

    assert list(document.engines.configured()) == []
    assert document.sidecars == 1
    assert document.required_engines == (Engine.MONGODB,)


def test_only_who_asks_for_it_gets_a_service_monitor() -> None:
    asked = platform_of({"monitoring": {"serviceMonitor": True}})

    assert [each["kind"] for each in desired.shared_objects(asked)] == ["ServiceMonitor"]
    assert desired.shared_objects(platform_of({})) == []
