"""A group's members as every place of the registry tells of them: a body each, for a while."""

from collections.abc import Iterable

import msgspec


class Member(msgspec.Struct, frozen=True, array_like=True):
    """`body` is JSON, None for one that was taken back; `left_ms` of `ttl_ms` are left of it."""

    name: str
    body: bytes | None
    left_ms: int
    ttl_ms: int


def aged(members: Iterable[Member], passed_ms: int, times: int = 1) -> list[Member]:
    """Those that still live `passed_ms` later; or were heard of within `times` their ttl."""
    older = (msgspec.structs.replace(one, left_ms=one.left_ms - passed_ms) for one in members)
    return [one for one in older if one.left_ms + (times - 1) * one.ttl_ms > 0]


def merged(*places: Iterable[Member]) -> list[Member]:
    """Of each name what was heard last, and only those who are alive; sorted by name."""
    found: dict[str, Member] = {}
    for members in places:
        for member in members:
            known = found.get(member.name)
            if known is None or _silent_ms(member) < _silent_ms(known):
                found[member.name] = member
    return [found[name] for name in sorted(found) if found[name].body is not None]


def _silent_ms(member: Member) -> int:
    """How long ago it was heard of."""
    return member.ttl_ms - member.left_ms
