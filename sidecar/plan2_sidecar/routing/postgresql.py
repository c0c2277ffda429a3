"""What only PostgreSQL can parse, and what it is known for."""

import re
from typing import Final

from plan2_sidecar.routing.reading import BEFORE_OPERAND, CLAUSES, Reading, Rule, alter_action
from plan2_sidecar.routing.tokens import Kind, keywords

_FIRST: Final = keywords(
    "ANALYZE CALL COMMENT COPY DISCARD DO LISTEN LOCK MERGE NOTIFY REASSIGN REFRESH REINDEX"
    " RESET SECURITY UNLISTEN VACUUM"
)
_OBJECTS: Final = keywords(
    "AGGREGATE CAST COLLATION CONVERSION DOMAIN EVENT EXTENSION OPERATOR PROCEDURE PUBLICATION"
    " RULE SEQUENCE SUBSCRIPTION TABLESPACE TRIGGER UNLOGGED"
)
_MARKS: Final = frozenset({"->>", "#>>", "#>", "@>", "<@", "~", "~*", "!~", "!~*"})
# ClickHouse's types are a closed list without these.
_TYPES: Final = keywords(
    "BIGSERIAL CIDR CITEXT INET JSONB MACADDR MONEY SERIAL SERIAL4 SERIAL8 SMALLSERIAL TIMESTAMPTZ"
    " TSQUERY TSVECTOR"
)
_NO_COLUMNS: Final = keywords(
    "CHECK COLUMN CONSTRAINT EXCLUDE FOREIGN INDEX KEY LIKE PRIMARY PROJECTION UNIQUE"
)
# A column of that name, and no clause.
_NO_RETURNED: Final = keywords("AND AS ASC BETWEEN DESC FROM IN IS LIKE OR , ) = . ; + - / < > ? :")
_INDEXES: Final = keywords("BRIN BTREE GIN GIST HASH HNSW IVFFLAT SPGIST")


def _numbered(found: Reading) -> str | None:
    return next((token.text for token in found.tokens if token.kind is Kind.NUMBERED), None)


def _operator(found: Reading) -> str | None:
    marks = (token.text for token in found.tokens if token.kind is Kind.MARK)
    return next((mark for mark in marks if mark in _MARKS), None)


def _statement(found: Reading) -> str | None:
    first, second = found.word(0), found.word(1)
    if first in _FIRST:
        return first
    if first in {"CREATE", "DROP", "ALTER"} and second in _OBJECTS:
        return f"{first} {second}"
    if first == "CREATE":
        return _routine(found)
    if (first, second) == ("DROP", "INDEX") and not found.has("ON"):
        return "DROP INDEX without ON"
    at = alter_action(found)
    if at and (found.word(at), found.word(at + 1)) == ("OWNER", "TO"):
        return "OWNER TO"
    return _drop_behaviour(found) if first in {"DROP", "TRUNCATE"} else None


def _routine(found: Reading) -> str | None:
    """`CREATE FUNCTION f(…) RETURNS int`; ClickHouse has `CREATE FUNCTION f AS …`."""
    at = 3 if (found.word(1), found.word(2)) == ("OR", "REPLACE") else 1
    if found.word(at) in {"PROCEDURE", "TRIGGER"}:
        return f"CREATE {found.word(at)}"
    if found.word(at) != "FUNCTION":
        return None
    declared = (place for place in found.places("RETURNS") if not found.depth[place])
    return "RETURNS" if any(found.word(place - 1) == ")" for place in declared) else None


def _drop_behaviour(found: Reading) -> str | None:
    words = found.words
    if words[0] == "DROP" and found.word(1) not in {"MATERIALIZED", "SCHEMA", "TABLE", "VIEW"}:
        return None
    named = len(words) > 2 and words[-2] not in BEFORE_OPERAND | {"EXISTS", "SCHEMA", "VIEW"}
    if words[-1] in {"CASCADE", "RESTRICT"} and named:
        return words[-1]
    kept = found.pair("RESTART", "IDENTITY") or found.pair("CONTINUE", "IDENTITY")
    return "IDENTITY" if kept and words[0] == "TRUNCATE" else None


def _on_conflict(found: Reading) -> str | None:
    for at in found.places("CONFLICT"):
        if found.word(at - 1) == "ON" and found.word(at + 1) in {"(", "DO", "ON"}:
            return "ON CONFLICT" if found.before(at, "INSERT") else None
    return None


def _locking(found: Reading) -> str | None:
    if found.word(0) not in {"SELECT", "WITH", "("}:
        return None
    for at in found.places("FOR"):
        following, then = found.word(at + 1), found.word(at + 2)
        if not found.before(at, "FROM"):
            continue
        if following in {"UPDATE", "SHARE"}:
            return f"FOR {following}"
        if (following, then) in {("NO", "KEY"), ("KEY", "SHARE")}:
            return f"FOR {following} {then}"
    return None


def _returning(found: Reading) -> str | None:
    if not found.has("DELETE", "INSERT", "UPDATE", "MERGE"):
        return None
    for at in found.places("RETURNING"):
        ahead, following = found.word(at - 1), found.word(at + 1)
        defaults = (found.word(at - 2), ahead) == ("DEFAULT", "VALUES")
        if ahead in BEFORE_OPERAND and not defaults:
            continue
        if at + 1 < len(found) and following not in _NO_RETURNED | CLAUSES:
            return "RETURNING"
    return None


def _writing_cte(found: Reading) -> str | None:
    if found.word(0) != "WITH":
        return None
    for at in found.places("("):
        if found.word(at - 1) in {"AS", "MATERIALIZED"}:
            word = found.word(at + 1)
            if word in {"INSERT", "UPDATE", "DELETE"}:
                return f"WITH … AS ({word}"
    return None


def _joined_write(found: Reading) -> str | None:
    """`DELETE … USING` and `UPDATE … SET … FROM`, outside any brackets."""
    if found.word(0) not in {"DELETE", "UPDATE"}:
        return None
    top = [word for word, depth in zip(found.words, found.depth, strict=True) if not depth]
    if top[:2] == ["DELETE", "FROM"] and "USING" in top[3:]:
        return "DELETE … USING" if "WHERE" not in top[: top.index("USING", 3)] else None
    if top[:1] == ["UPDATE"] and "SET" in top:
        rest = top[top.index("SET") :]
        places = [at for at, word in enumerate(rest) if word == "FROM"]
        if any(rest[at - 1] not in BEFORE_OPERAND | {"DISTINCT"} for at in places):
            return "UPDATE … FROM"
    return None


def _definition(found: Reading) -> str | None:
    if found.word(0) not in {"CREATE", "ALTER"}:
        return None
    for at in found.places("IDENTITY"):
        if found.word(at - 1) == "AS" and found.word(at - 2) in {"ALWAYS", "DEFAULT"}:
            return "AS IDENTITY"
    if found.pair("PARTITION", "OF") and not found.has("SELECT"):
        return "PARTITION OF"
    if found.word(1) in {"INDEX", "UNIQUE"}:
        at = 2 if found.word(1) == "INDEX" else 3
        if found.word(at) == "CONCURRENTLY" and found.word(at + 1) != "ON":
            return "CONCURRENTLY"
        for at in found.places("USING"):
            if found.word(at + 1) in _INDEXES:
                return f"USING {found.word(at + 1)}"
    for at, token in enumerate(found.tokens):
        if token.kind is not Kind.WORD or token.upper not in _TYPES:
            continue
        named = found.is_name(at - 1) and found.word(at - 1) not in _NO_COLUMNS
        defined = named and found.word(at - 2) in {"(", ",", "COLUMN", "ADD"}
        if defined and not found.before(at, "SELECT"):
            return token.upper
    return None


def _lateral(found: Reading) -> str | None:
    return "LATERAL" if found.pair("LATERAL", "(") else None


CERTAIN: Final[tuple[Rule, ...]] = (
    _numbered,
    _statement,
    _operator,
    _on_conflict,
    _locking,
    _returning,
    _writing_cte,
    _joined_write,
    _definition,
    _lateral,
)

_FUNCTION: Final = re.compile(
    r"array_to_string|currval|current_setting|date_part|gen_random_uuid|jsonb?_\w+|nextval|"
    r"pg_\w+|plainto_tsquery|regexp_(?:matches|split_to_\w+)|row_to_json|set_config|setval|"
    r"similarity|string_agg|to_char|to_jsonb?|to_timestamp|to_tsquery|to_tsvector|ts_rank|unnest|"
    r"websearch_to_tsquery",
    re.IGNORECASE,
)
_CASTS: Final = _TYPES | keywords("BYTEA INTERVAL OID REGCLASS REGPROC REGTYPE TIMESTAMP VARCHAR")


def _function(found: Reading) -> str | None:
    for at, token in enumerate(found.tokens):
        called = token.kind is Kind.WORD and found.word(at + 1) == "("
        if called and _FUNCTION.fullmatch(token.text):
            return f"{token.text}()"
        listed = token.upper == "GENERATE_SERIES" and found.word(at - 1) in {"SELECT", ","}
        if called and listed:
            return "generate_series() in a list"
    return None


def _cast(found: Reading) -> str | None:
    for at in found.places("::"):
        if found.word(at + 1) in _CASTS and found.kind(at + 1) is Kind.WORD:
            return f"::{found.tokens[at + 1].text}"
    return None


def _system_table(found: Reading) -> str | None:
    for at, token in enumerate(found.tokens):
        in_from = found.word(at - 1) in {"FROM", "JOIN", "."}
        if token.kind is Kind.WORD and token.upper.startswith("PG_") and in_from:
            return token.text
    return None


def _phrase(found: Reading) -> str | None:
    if found.pair("TIME", "ZONE") and found.pair("AT", "TIME"):
        return "AT TIME ZONE"
    if found.pair("SIMILAR", "TO"):
        return "SIMILAR TO"
    if found.pair("ARRAY", "["):
        return "ARRAY[…]"
    if found.pair("TABLESAMPLE", "BERNOULLI") or found.pair("TABLESAMPLE", "SYSTEM"):
        return "TABLESAMPLE"
    first, second = found.word(0), found.word(1)
    if first == "EXPLAIN" and second in {"ANALYZE", "VERBOSE", "("}:
        return f"EXPLAIN {second}"
    return None


def _shown(found: Reading) -> str | None:
    """`SHOW search_path`: one setting, or several words that are one."""
    if found.word(0) != "SHOW":
        return None
    words = list(found.words)
    if words[1:] in (["ALL"], ["TIME", "ZONE"], ["TRANSACTION", "ISOLATION", "LEVEL"]):
        return " ".join(words)
    return "SHOW a setting" if "_" in found.word(1) and len(words) in {2, 4} else None


LIKELY: Final[tuple[Rule, ...]] = (_function, _cast, _system_table, _phrase, _shown)
