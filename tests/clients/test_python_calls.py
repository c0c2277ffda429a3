"""What each call of both Python clients sends, and what its answer becomes."""

import pytest

import plan2_client
from fixtures.fake_sidecar import ROWS, faking, problem, says
from fixtures.fix_clients import MakeClient
from plan2_client import (
    ApiGatewayDatabaseConfig,
    Client,
    ConfigServiceDatabaseConfig,
    Meta,
    Operation,
    QueryResult,
    Statement,
)

NOBODY = "http://127.0.0.1:1"
RESULT = QueryResult(data=[{"id": 1}], row_count=1, meta=Meta("postgresql", "target", took_us=9))


async def test_a_batch_gives_results_and_errors_in_order(make_client: MakeClient) -> None:
    failed = {"status": 409, "problem": {"status": 409, "code": "conflict", "detail": "twice"}}
    async with faking(says({"results": [{"status": 200, **ROWS}, failed]})) as fake:
        first, second = await make_client(url=fake.url)(
            lambda c: c.batch([Statement(query="SELECT 1", read_only=True), {"query": "SELECT 2"}])
        )

        assert first == RESULT
        assert isinstance(second, plan2_client.Conflict)
        assert fake.asked[0].body["queries"] == [
            {"query": "SELECT 1", "options": {"readOnly": True}},
            {"query": "SELECT 2"},
        ]


async def test_cross_database_operations_carry_a_key_and_their_failure_says_which(
    make_client: MakeClient,
) -> None:
    done = {"id": "x1", "mode": "saga", "state": "committed", "operations": []}
    failed = {"id": "x1", "state": "compensated", "operations": [{"id": "debit"}]}
    debit = Operation(
        id="debit",
        query="UPDATE a",
        target_database="postgresql",
        compensate=Statement(query="UPDATE b", params=[{"$opId": True}]),
    )
    async with faking(says(done), says(done), says(failed, 424)) as fake:
        client = make_client(url=fake.url)

        result = await client(lambda c: c.cross_db([debit], mode="saga", idempotency_key="k"))
        await client(lambda c: c.cross_db([debit]))
        with pytest.raises(plan2_client.OperationFailed) as refusal:
            await client(lambda c: c.cross_db([debit]))

        assert result.state == "committed"
        assert result.finished
        assert fake.asked[0].headers["Idempotency-Key"] == "k"
        assert fake.asked[0].body == {
            "mode": "saga",
            "operations": [
                {
                    "id": "debit",
                    "query": "UPDATE a",
                    "targetDatabase": "postgresql",
                    "compensate": {"query": "UPDATE b", "params": [{"$opId": True}]},
                }
            ],
        }
        assert len(fake.asked[1].headers["Idempotency-Key"]) == 32
        assert refusal.value.members["operations"] == [{"id": "debit"}]


async def test_names_travel_whole_and_an_answer_says_where_it_came_from(
    make_client: MakeClient,
) -> None:
    found = says(
        {"value": None, "ttl": None},
        Plan2_Source="redis",
        Plan2_Degraded="true",
        Plan2_Fallback_From="dragonflydb",
    )
    async with faking(found, says(None, 204, Plan2_Source="dragonflydb")) as fake:
        client = make_client(url=fake.url)

        entry = await client(lambda c: c.cache.get("a/b c?é", namespace="n"))
        put = await client(lambda c: c.cache.put("..", [1], ttl=5))
        await client(lambda c: c.cache.delete("."))

        assert (entry.value, entry.ttl, entry.source) == (None, None, "redis")
        assert (entry.degraded, entry.fallback_from) == (True, "dragonflydb")
        assert put == plan2_client.Written(source="dragonflydb")
        assert [asked.line for asked in fake.asked] == [
            "GET /api/v2/cache/a%2Fb%20c%3F%C3%A9",
            "PUT /api/v2/cache/%2E%2E",
            "DELETE /api/v2/cache/%2E",
        ]
        assert fake.asked[0].headers["Plan2-Namespace"] == "n"
        assert fake.asked[1].body == {"value": [1], "ttl": 5}
        with pytest.raises(ValueError, match="empty"):
            await client(lambda c: c.cache.get(""))


async def test_what_is_not_there_is_none(make_client: MakeClient) -> None:
    async with faking(problem(404, "not_found")) as fake:
        client = make_client(url=fake.url)

        for call in (
            lambda c: c.cache.get("k"),
            lambda c: c.sessions.get("s"),
            lambda c: c.config.get("u", "k"),
            lambda c: c.registry.get("n"),
            lambda c: c.routes.get("r"),
            lambda c: c.cross_db_get("x"),
        ):
            assert await client(call) is None


async def test_a_configuration_is_written_on_conditions(make_client: MakeClient) -> None:
    async with faking(says({"version": 4})) as fake:
        client = make_client(url=fake.url)

        version = await client(lambda c: c.config.put("u", "k", {"a": 1}, if_match=3, actor="me"))
        await client(lambda c: c.config.put("u", "k", None, create_only=True))

        assert version == 4
        assert fake.asked[0].headers["If-Match"] == '"3"'
        assert fake.asked[0].headers["Plan2-Actor"] == "me"
        assert fake.asked[1].headers["If-None-Match"] == "*"
        assert fake.asked[1].body == {"value": None}


async def test_a_rate_limit_hands_its_headers_on(make_client: MakeClient) -> None:
    said = {"allowed": False, "limit": 2, "remaining": 0, "totalHits": 3, "resetMs": 9}
    headers = {"RateLimit": '"default";r=0;t=1', "Retry_After": "1"}
    async with faking(says({**said, "retryAfterMs": 9, "source": "store"}, **headers)) as fake:
        decision = await make_client(url=fake.url)(
            lambda c: c.rate_limit.check("client", window_ms=1000, limit=2, exact=True)
        )

        assert (decision.allowed, decision.retry_after_ms) == (False, 9)
        assert decision.headers == {"RateLimit": '"default";r=0;t=1', "Retry-After": "1"}
        assert fake.asked[0].body == {
            "clientId": "client",
            "windowMs": 1000,
            "limit": 2,
            "exact": True,
        }


async def test_ready_waits_until_the_sidecar_says_so(make_client: MakeClient) -> None:
    async with faking(problem(503, "not_ready"), problem(503, "not_ready"), says({})) as fake:
        await make_client(url=fake.url)(lambda c: c.ready())

        assert [asked.line for asked in fake.asked] == ["GET /readyz"] * 3
    with pytest.raises(TimeoutError):
        await make_client(url=NOBODY)(lambda c: c.ready(0.15))


async def test_the_classes_of_today_call_what_they_always_called() -> None:
    decision = {"allowed": True, "limit": 9, "remaining": 8, "totalHits": 1, "resetMs": 5}
    async with (
        faking(
            says({}),
            says({"version": 1}),
            says(None, 204),
            says({}, 202),
            says(None, 204),
            says(decision),
            says({"accepted": 1}, 202),
        ) as fake,
        Client(fake.url, environ={}) as client,
    ):
        config, gateway = ConfigServiceDatabaseConfig(client), ApiGatewayDatabaseConfig(client)
        await config.initialize()
        await config.storeConfig("u", "k", {"a": 1})
        await config.cacheConfig("u", "k", 2, 60)
        await config.logConfigChange("u", "k", 1, 2)
        await gateway.storeSession("s", {"a": 1}, 60)
        assert (await gateway.checkRateLimit("c")).allowed
        assert await gateway.logApiRequest({"path": "/"}) == 1

        assert [(asked.line, asked.body) for asked in fake.asked] == [
            ("GET /readyz", None),
            ("PUT /api/v2/config/u/k", {"value": {"a": 1}}),
            ("PUT /api/v2/config/u/k/cache", {"value": 2, "ttl": 60}),
            ("POST /api/v2/config/u/k/changes", {"oldValue": 1, "newValue": 2}),
            ("PUT /api/v2/sessions/s", {"data": {"a": 1}, "ttl": 60}),
            (
                "POST /api/v2/rate-limit/check",
                {"clientId": "c", "windowMs": 900_000, "limit": 100},
            ),
            ("POST /api/v2/analytics/requests", {"path": "/"}),
        ]


def test_both_clients_have_the_same_calls() -> None:
    pairs = [(Client, plan2_client.SyncClient)]
    pairs += [
        (type(part), type(getattr(plan2_client.SyncClient(environ={}), name)))
        for name, part in vars(Client(environ={})).items()
        if not name.startswith("_") and type(part).__module__ == "plan2_client.client"
    ]

    assert len(pairs) == 8
    for one, other in pairs:
        public = [{name for name in dir(kind) if not name.startswith("_")} for kind in (one, other)]
        assert public[0] == public[1]
