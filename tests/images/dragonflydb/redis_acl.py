"""Dragonfly's users as a Redis aclfile: the mounted file or requirepass, and the front's own user.

Rules only Dragonfly knows (its database selectors, commands and categories that Redis lacks) are
left out, since Redis refuses to start over a rule that it cannot read.
"""

from pathlib import Path

from flags import Flags

_CATEGORIES = """
    keyspace read write set sortedset list hash string bitmap hyperloglog geo stream
    pubsub admin fast slow blocking dangerous connection transaction scripting all
"""
CATEGORIES = frozenset(_CATEGORIES.split())
_DRAGONFLY_COMMANDS = """
    dfly dflycluster delex digest saddex hsetex fieldttl fieldexpire stick gat
    addreplicaof repltakeover
"""
DRAGONFLY_COMMANDS = frozenset(_DRAGONFLY_COMMANDS.split())
DRAGONFLY_MODULES = ("ft.", "json.", "bf.", "cf.", "cms.", "topk.", "ft_", "cl.")


def write(path: Path, flags: Flags, front_user: str, front_password: str) -> None:
    """Replace `path` in one step, so that ACL LOAD never reads half a file."""
    lines = [f"user {front_user} on >{front_password} ~* &* +@all"]
    if flags.aclfile:
        lines += [_line(line) for line in Path(flags.aclfile).read_text().splitlines()]
    elif flags.requirepass:
        lines += [f"user default on >{flags.requirepass} ~* &* +@all"]
    else:
        lines += ["user default on nopass ~* &* +@all"]
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text("\n".join(line for line in lines if line) + "\n")
    fresh.replace(path)


def _line(line: str) -> str:
    words = line.split()
    if not words or words[0].startswith("#"):
        return ""
    first, name, *rules = words
    return " ".join([first.lower(), name, *filter(None, map(_rule, rules))])


def _rule(rule: str) -> str:
    if rule.startswith("$"):
        return ""
    if rule[:1] not in "+-":
        return rule.lower() if rule.isalpha() else rule
    sign, what = rule[0], rule[1:].lower()
    if what.startswith("@"):
        return f"{sign}{what}" if what[1:] in CATEGORIES else ""
    if what.split("|")[0] in DRAGONFLY_COMMANDS:
        return ""
    if what.startswith(DRAGONFLY_MODULES) and what != "cl.throttle":
        return ""
    return f"{sign}{what}"
