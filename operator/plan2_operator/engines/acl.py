"""The users of Dragonfly and Redis as one aclfile that both servers read.

Both take `user`, plain passwords, `~`, `&`, the categories of Redis 7 and whole commands;
Dragonfly takes neither `#` hashes in its file from every version nor rules about
subcommands, so neither is used. What -@dangerous takes away and an application still needs is
given back by name.
"""

from collections.abc import Mapping
from typing import Final

from plan2_operator.engines import access
from plan2_operator.errors import InvalidSpec
from plan2_operator.model import EngineSpec

ADMIN: Final = "plan2-admin"
READ_ONLY: Final = "plan2-ro"
KEY: Final = "users.acl"
_APPLICATION: Final = "~* &* +@all -@admin -@dangerous +info +keys +role +sort"
_READER: Final = (
    "~* &* -@all +@read +@connection +@transaction +subscribe +unsubscribe +ping "
    "-@admin -@dangerous +info +keys +role"
)


def users(spec: EngineSpec, admin: Mapping[str, str]) -> str:
    """The file; raises InvalidSpec for a password that a line of it cannot hold."""
    rules = (
        (ADMIN, access.PASSWORD, "~* &* +@all"),
        ("default", access.APP_PASSWORD, _APPLICATION),
        (READ_ONLY, access.RO_PASSWORD, _READER),
    )
    return "".join(
        f"user {name} on >{_word(spec, admin[key])} {allowed}\n" for name, key, allowed in rules
    )


def _word(spec: EngineSpec, password: str) -> str:
    if not password or any(character.isspace() for character in password):
        raise InvalidSpec(
            f"{spec.path}.credentialsSecretRef", "the password must have no white space in it"
        )
    return password
