"""`spec.<engine>.configuration`: the user's settings over ours, but for those the operator owns."""

import re
from collections.abc import Collection, Mapping
from typing import Final

from plan2_operator.errors import InvalidSpec
from plan2_operator.model import EngineSpec

OWNED_MESSAGE: Final = "is set by the operator"


def merged(
    spec: EngineSpec, ours: Mapping[str, str], *, owned: Collection[str], pattern: str
) -> dict[str, str]:
    """Ours overridden by the user's in whatever case, sorted by key; raises InvalidSpec.

    `pattern` is what a key of this engine looks like; names in `owned` are refused however
    they are spelled (case, leading dashes, - for _).
    """
    taken = {_plain(name) for name in owned}
    for key, value in spec.configuration.items():
        path = f"{spec.path}.configuration.{key}"
        if not re.fullmatch(pattern, key):
            raise InvalidSpec(path, "is not the name of a setting")
        if _plain(key) in taken:
            raise InvalidSpec(path, OWNED_MESSAGE)
        if any(character in value for character in "\r\n\0"):
            raise InvalidSpec(path, "must be one line")
    given = {key.lower() for key in spec.configuration}
    kept = {key: value for key, value in ours.items() if key.lower() not in given}
    return dict(sorted({**kept, **spec.configuration}.items()))


def _plain(name: str) -> str:
    return name.lower().lstrip("-").replace("-", "_")
