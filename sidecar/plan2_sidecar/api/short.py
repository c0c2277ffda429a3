"""The calls that services make on every request, as the short way in front of aiohttp takes them.

Each decodes what a plain request holds and asks the same services, with the same answers, as its
handler in its own module. What it cannot decode it leaves to that handler, whose words for it
are the ones callers know.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import msgspec

from plan2_sidecar.api import body, cache, problems, query, rate_limit, sessions, wire
from plan2_sidecar.api.door import Door
from plan2_sidecar.api.reply import Reply
from plan2_sidecar.api.segments import LONGEST_NAME_BYTES, json_bytes
from plan2_sidecar.cache.found import Found, Written
from plan2_sidecar.cache.keys import Key
from plan2_sidecar.cache.shared import StoreAway
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import Internal, MalformedJson, Problem
from plan2_sidecar.limits.model import RateLimitCheck, RateLimitDecision
from plan2_sidecar.server.heads import Headers
from plan2_sidecar.server.hot import Answer, Answering, HotCall, HotCalls, Request
from plan2_sidecar.server.later import Later
from plan2_sidecar.server.protocol import Hot
from plan2_sidecar.sessions import Session
from plan2_sidecar.state import Sidecar
from plan2_sidecar.store import STORE_SECONDS

LOG = logging.getLogger(__name__)
T = TypeVar("T")


def hot(sidecar: Sidecar, door: Door) -> Hot:
    """The short way of this sidecar."""

    longest = sidecar.settings.max_body_bytes
    tokens = sidecar.tokens

    def admits(headers: Headers, *, on_socket: bool) -> bool:
        if headers.admitted is tokens.valid:
            return True
        if headers.host is None or headers.length > longest:
            return False
        if not door.lets_in(headers.host, headers.authorization, on_socket=on_socket):
            return False
        if not on_socket:
            # The same bytes may come in again for as long as the same tokens are valid.
            headers.admitted = tokens.valid
        return True

    calls = (
        _exact("POST", "/api/v2/rate-limit/check", _check(sidecar)),
        _exact("POST", "/api/v2/query", _query(sidecar)),
        *_cache(sidecar),
        *_sessions(sidecar),
    )
    return Hot(
        HotCalls(calls),
        admits,
        _told,
        sidecar.metrics.request,
        sidecar.clock,
        wire.LONGEST_TIMEOUT_MS,
    )


def _exact(method: str, path: str, answer: Answering) -> HotCall:
    return HotCall(method, path, path, answer)


def _named(method: str, pattern: str, answer: Answering) -> HotCall:
    """A call whose path ends in a name, which is `pattern`'s last part."""
    return HotCall(method, pattern[: pattern.rindex("/") + 1], pattern, answer)


def _check(sidecar: Sidecar) -> Answering:
    limiter = sidecar.limiter

    async def awaited(wanted: RateLimitCheck, deadline: Deadline) -> Reply:
        return rate_limit.reply(sidecar, await limiter.check(wanted, deadline), wanted)

    def answer(request: Request) -> Answer:
        wanted = _decoded(request, rate_limit.CHECK)
        if wanted is None:
            return None
        decided = limiter.try_local(wanted)
        if decided is not None:
            return rate_limit.reply(sidecar, decided, wanted)
        return ask(wanted, _deadline(sidecar, request))

    def ask(wanted: RateLimitCheck, deadline: Deadline) -> Answer:
        later = Later()

        def told(outcome: RateLimitDecision | Exception) -> None:
            _tell(later, outcome, whole)

        def whole(decided: RateLimitDecision) -> Reply:
            return rate_limit.reply(sidecar, decided, wanted)

        waiting = limiter.begin(wanted, deadline, told)
        if waiting is None:
            return awaited(wanted, deadline)
        later.ends_by(waiting.leave)
        return later

    return answer


def _query(sidecar: Sidecar) -> Answering:
    async def later(request: Request, asked: wire.QueryRequest) -> Reply:
        deadline_ms = request.headers.deadline_ms
        return Reply(200, await query.answer(sidecar, asked, deadline_ms, request.started))

    def answer(request: Request) -> Answer:
        asked = _decoded(request, wire.QUERY_REQUEST)
        if asked is None or asked.target_database is None:
            return None
        begun = query.begin(sidecar, asked, request.headers.deadline_ms, request.started)
        return later(request, asked) if begun is None else begun

    return answer


def _cache(sidecar: Sidecar) -> tuple[HotCall, ...]:
    tiers = sidecar.tiers

    def keyed(call: Callable[[Request, Key], Answer]) -> Answering:
        def answer(request: Request) -> Answer:
            if not tiers.configured or len(request.argument) > LONGEST_NAME_BYTES:
                return None
            key = cache.named(request.argument, request.headers.namespace)
            return None if key is None else call(request, key)

        return answer

    def get(request: Request, key: Key) -> Answer:
        if request.body:
            return None
        near = tiers.look_here(key)
        if near is None or _hurried(request):
            return get_later(request, key)
        name, found = near
        if found is not None:
            return cache.reply(found, degraded=False)
        later = Later()

        def told(outcome: Found | Exception | None) -> None:
            if isinstance(outcome, StoreAway):
                later.become(get_elsewhere(request, key))
            else:
                _tell(later, outcome, whole)

        return later if tiers.begin_find(name, told) else get_later(request, key)

    def whole(found: Found | None) -> Reply:
        return cache.reply(found, degraded=False)

    async def get_elsewhere(request: Request, key: Key) -> Reply:
        deadline = _deadline(sidecar, request)
        return cache.reply(*await tiers.find_elsewhere(key, deadline, legacy=key.name))

    async def get_later(request: Request, key: Key) -> Reply:
        found, degraded = await tiers.find(key, _deadline(sidecar, request), legacy=key.name)
        return cache.reply(found, degraded)

    def put(request: Request, key: Key) -> Answer:
        asked = _decoded(request, cache.PUT)
        value = None if asked is None else _value(asked.value)
        if asked is None or value is None:
            return None
        later, ttl, deadline = Later(), asked.ttl, _deadline(sidecar, request)

        def told(outcome: Written | Exception) -> None:
            if isinstance(outcome, StoreAway):
                later.become(put_later(key, value, ttl, deadline, outcome))
            else:
                _tell(later, outcome, cache.written)

        if not _hurried(request) and tiers.begin_put(key, value, ttl, deadline, told):
            return later
        return put_later(key, value, ttl, deadline)

    async def put_later(
        key: Key, value: bytes, ttl: int | None, deadline: Deadline, away: StoreAway | None = None
    ) -> Reply:
        return cache.written(await tiers.put(key, value, ttl, deadline, away=away))

    def delete(request: Request, key: Key) -> Answer:
        return None if request.body else delete_later(request, key)

    async def delete_later(request: Request, key: Key) -> Reply:
        return cache.written(await tiers.delete(key, _deadline(sidecar, request)))

    return (
        _named("GET", cache.PATH, keyed(get)),
        _named("PUT", cache.PATH, keyed(put)),
        _named("DELETE", cache.PATH, keyed(delete)),
    )


def _sessions(sidecar: Sidecar) -> tuple[HotCall, ...]:
    service = sidecar.sessions

    def named(call: Answering) -> Answering:
        def answer(request: Request) -> Answer:
            return None if len(request.argument) > LONGEST_NAME_BYTES else call(request)

        return answer

    def get(request: Request) -> Answer:
        if request.body:
            return None
        near = service.look_here(request.argument)
        if near is None or _hurried(request):
            return get_later(request)
        name, found = near
        if found is not None:
            return sessions.reply(request.argument, found)
        later = Later()

        def told(outcome: Session | Exception | None) -> None:
            if outcome is None or isinstance(outcome, StoreAway):
                later.become(get_later(request, outcome or True))
            else:
                _tell(later, outcome, whole)

        def whole(found: Session) -> Reply:
            return sessions.reply(request.argument, found)

        return later if service.begin_get(name, told) else get_later(request)

    async def get_later(request: Request, missed: bool | StoreAway = False) -> Reply:
        found = await service.get(request.argument, _deadline(sidecar, request), missed=missed)
        return sessions.reply(request.argument, found)

    def put(request: Request) -> Answer:
        asked = _decoded(request, sessions.PUT)
        data = None if asked is None else _value(asked.data)
        return None if asked is None or data is None else put_later(request, data, asked)

    async def put_later(request: Request, data: bytes, asked: sessions.SessionPut) -> Reply:
        deadline = _deadline(sidecar, request)
        identity, ttl, durable = request.argument, asked.ttl, asked.durable
        return sessions.written(await service.put(identity, data, ttl, deadline, durable=durable))

    def delete(request: Request) -> Answer:
        return None if request.body else delete_later(request)

    async def delete_later(request: Request) -> Reply:
        return sessions.written(await service.delete(request.argument, _deadline(sidecar, request)))

    return (
        _named("GET", sessions.PATH, named(get)),
        _named("PUT", sessions.PATH, named(put)),
        _named("DELETE", sessions.PATH, named(delete)),
    )


def _tell(later: Later, outcome: T | Exception, reply: Callable[[T], Reply]) -> None:
    """Tell `later` the reply to what came of a call, or what stood in its way."""
    if isinstance(outcome, Exception):
        later.tell(outcome)
        return
    try:
        later.tell(reply(outcome))
    except Exception as error:  # noqa: BLE001 - it is told and logged there
        later.tell(error)


def _hurried(request: Request) -> bool:
    """Whether the caller leaves less time than the store may take."""
    deadline_ms = request.headers.deadline_ms
    return deadline_ms is not None and deadline_ms < STORE_SECONDS * 1000


def _decoded(request: Request, decoder: wire.Decoder[T]) -> T | None:
    """The body, where it is JSON and what the call takes."""
    if not request.headers.json:
        return None
    try:
        return decoder.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _value(written: msgspec.Raw) -> bytes | None:
    try:
        return json_bytes(written)
    except MalformedJson:
        return None


def _deadline(sidecar: Sidecar, request: Request) -> Deadline:
    return body.deadline(request.started, request.headers.deadline_ms, None, sidecar.clock)


def _told(error: BaseException) -> Reply:
    """What a call ended with, as the edge of the long way tells it."""
    if isinstance(error, Problem):
        return problems.reply(error)
    LOG.error("a call on the short way failed", exc_info=error)
    return problems.reply(Internal("the sidecar's log says more"))
