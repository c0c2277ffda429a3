"""The real Weaviate, driven by its own client and by plain HTTP."""

import aiohttp
from weaviate import use_async_with_custom
from weaviate.classes.config import Configure
from weaviate.classes.init import Auth

from fixtures.fix_engines import EngineServer


async def test_vectors_go_in_and_the_nearest_comes_out(weaviate: EngineServer) -> None:
    client = use_async_with_custom(
        http_host=weaviate.host,
        http_port=weaviate.port,
        http_secure=False,
        grpc_host=weaviate.host,
        grpc_port=weaviate.ports["grpc"],
        grpc_secure=False,
        auth_credentials=Auth.api_key(weaviate.admin_password),
        skip_init_checks=True,
    )
    async with client:
        things = await client.collections.create(
            "Thing", vector_config=Configure.Vectors.self_provided()
        )
        await things.data.insert({"name": "near"}, vector=[1.0, 0.0])
        await things.data.insert({"name": "far"}, vector=[0.0, 1.0])
        found = await things.query.near_vector([0.9, 0.1], limit=1)
        await client.collections.delete("Thing")

    assert [item.properties["name"] for item in found.objects] == ["near"]


async def test_a_wrong_key_is_refused_and_readiness_is_open(weaviate: EngineServer) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    async with aiohttp.ClientSession(weaviate.url) as session:
        async with session.get("/v1/.well-known/ready") as ready:
            assert ready.status == 200
        async with session.get("/v1/schema", headers=wrong) as refused:
            assert refused.status == 401
