"""User management: accounts in PostgreSQL, profiles in MongoDB, sessions that survive the cache.

An account and its profile are written together (mode `outbox`): the account commits with the
order to write the profile, which is then carried out until it succeeds. Logging in is limited by
address, over all replicas. A session is durable: with Dragonfly away, nobody is logged out.
"""

import asyncio
import hashlib
import hmac
import os
import secrets
import sys
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from plan2_client import Client, CrossDbResult, Operation, OperationFailed, Plan2Error, Statement

SESSION_SECONDS = 24 * 3600
LOGIN_WINDOW_MS, LOGIN_ATTEMPTS = 15 * 60 * 1000, 5
CLIENT = web.AppKey("client", Client)
routes = web.RouteTableDef()


@routes.post("/users")
async def sign_up(request: web.Request) -> web.Response:
    """201 with the account; 409 when the address has one; 202 when the profile comes later."""
    asked = await request.json()
    salt, number = secrets.token_hex(16), str(uuid.uuid4())
    digest = await hashed(asked["password"], salt)
    result = await request.app[CLIENT].cross_db(
        [
            Operation(
                id="account",
                target_database="postgresql",
                query="INSERT INTO users (id, email, salt, digest) VALUES ($1, $2, $3, $4)",
                params=[number, asked["email"].lower(), salt, digest],
            ),
            profile_of(number, {"name": asked["name"], "theme": "light"}),
        ],
        mode="outbox",
    )
    return web.json_response({"id": number, "state": result.state}, status=status_of(result, 201))


@routes.post("/sessions")
async def log_in(request: web.Request) -> web.Response:
    """201 with a token; 401; 429 after too many attempts for the address, wherever they came in."""
    client = request.app[CLIENT]
    asked = await request.json()
    email = asked["email"].lower()
    limit = await client.rate_limit.check(
        f"login:{email}", window_ms=LOGIN_WINDOW_MS, limit=LOGIN_ATTEMPTS
    )
    if not limit.allowed:
        return web.json_response({"error": "too many attempts"}, status=429, headers=limit.headers)
    found = await client.query(
        "SELECT id::text AS id, salt, digest FROM users WHERE email = $1",
        params=[email],
        target_database="postgresql",
    )
    # Somebody who is not there takes as long as a wrong password.
    user = found.data[0] if found.data else {"id": "", "salt": "", "digest": ""}
    digest = await hashed(asked["password"], user["salt"])
    if not hmac.compare_digest(digest, user["digest"]):
        return web.json_response({"error": "wrong address or password"}, status=401)
    await client.rate_limit.reset(f"login:{email}")
    token = secrets.token_urlsafe(32)
    await client.sessions.store(key_of(token), {"user": user["id"]}, ttl=SESSION_SECONDS)
    return web.json_response({"token": token}, status=201)


@routes.get("/me")
async def me(request: web.Request) -> web.Response:
    """The account and the profile, read at once."""
    user = await user_of(request)
    account, profile = await request.app[CLIENT].batch(
        [
            Statement(
                query="SELECT email, created_at FROM users WHERE id = $1",
                params=[user],
                target_database="postgresql",
            ),
            Statement(
                query={"collection": "profiles", "filter": {"_id": user}},
                target_database="mongodb",
            ),
        ]
    )
    if isinstance(account, Plan2Error):
        raise account
    if not account.data:
        raise web.HTTPUnauthorized
    # A profile that cannot be read now is left out; the account is what counts.
    rows = [] if isinstance(profile, Plan2Error) else profile.data
    return web.json_response({**account.data[0], "profile": rows[0] if rows else None})


@routes.put("/me/profile")
async def change_profile(request: web.Request) -> web.Response:
    """Replace members of the profile."""
    profile = profile_of(await user_of(request), await request.json())
    await request.app[CLIENT].query(profile.query, target_database=profile.target_database)
    return web.Response(status=204)


@routes.delete("/me")
async def leave(request: web.Request) -> web.Response:
    """The account goes now, the profile with it or soon after; the session ends."""
    user = await user_of(request)
    result = await request.app[CLIENT].cross_db(
        [
            Operation(
                id="account",
                target_database="postgresql",
                query="DELETE FROM users WHERE id = $1",
                params=[user],
            ),
            Operation(
                id="profile",
                target_database="mongodb",
                query={"collection": "profiles", "filter": {"_id": user}, "delete": "one"},
                idempotent=True,
            ),
        ],
        mode="outbox",
    )
    await request.app[CLIENT].sessions.delete(key_of(token_of(request)))
    return web.json_response({"state": result.state}, status=status_of(result, 200))


@routes.delete("/sessions")
async def log_out(request: web.Request) -> web.Response:
    """The session is gone for every replica."""
    await request.app[CLIENT].sessions.delete(key_of(token_of(request)))
    return web.Response(status=204)


@routes.get("/healthz")
async def health(request: web.Request) -> web.Response:
    """ok, degraded or down."""
    return web.json_response({"status": (await request.app[CLIENT].health())["status"]})


async def user_of(request: web.Request) -> str:
    session = await request.app[CLIENT].sessions.get(key_of(token_of(request)))
    if session is None:
        raise web.HTTPUnauthorized
    return str(session.data["user"])


def token_of(request: web.Request) -> str:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind != "Bearer" or not token:
        raise web.HTTPUnauthorized
    return token


def key_of(token: str) -> str:
    """Whoever reads the store learns no token."""
    return hashlib.sha256(token.encode()).hexdigest()


def profile_of(user: str, members: dict[str, Any]) -> Operation:
    return Operation(
        id="profile",
        target_database="mongodb",
        query={
            "collection": "profiles",
            "filter": {"_id": user},
            "update": {"$set": members},
            "upsert": True,
        },
        # Set twice, it is the same.
        idempotent=True,
    )


def status_of(result: CrossDbResult, done: int) -> int:
    return done if result.state == "committed" else 202


async def hashed(password: str, salt: str) -> str:
    """scrypt, off the loop: it takes tens of milliseconds by intent."""
    digest = await asyncio.to_thread(
        hashlib.scrypt, password.encode(), salt=salt.encode(), n=2**14, r=8, p=1
    )
    return digest.hex()


@web.middleware
async def problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except (ValueError, KeyError):
        return web.json_response({"error": "the body does not fit"}, status=400)
    except OperationFailed as failure:
        # Nothing of it was done: the account did not commit.
        said = {one["problem"]["code"] for one in failure.members["operations"] if "problem" in one}
        taken = said == {"conflict"}
        error = "the address has an account" if taken else "it was not done"
        return web.json_response({"error": error}, status=409 if taken else 503)
    except Plan2Error as error:
        headers = {"Retry-After": "1"}
        return web.json_response({"error": error.code}, status=503, headers=headers)


async def lifetime(app: web.Application) -> Any:
    async with Client() as client:
        await client.ready()
        app[CLIENT] = client
        yield


def main() -> None:
    app = web.Application(middlewares=[problems])
    app.add_routes(routes)
    app.cleanup_ctx.append(lifetime)
    port = int(os.environ.get("PORT", "8080"))
    web.run_app(app, port=port, print=lambda text: print(text, file=sys.stderr), access_log=None)


if __name__ == "__main__":
    main()
