"""Which language a text is in, and which SQL dialect: evidence, never a guess.

Strong evidence is syntax that the other dialect cannot parse. Soft evidence (a function or a
type of that name) is enough for a read and never for a write.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from plan2_contract.engines import Engine
from plan2_sidecar.routing.tokens import Kind, Token, keywords

_GRAPHQL = re.compile(
    r"\s*(?:#[^\n]*\n\s*)*(?:query\b[^{]*)?\{\s*(?:#[^\n]*\n\s*)*(?:Get|Aggregate|Explore)\b"
)

_AQL_FIRST = frozenset({"FOR", "LET", "REMOVE", "RETURN", "UPSERT"})
_AQL_OPERATIONS = _AQL_FIRST | {"INSERT", "REPLACE", "UPDATE"}
_AQL_WRITES = frozenset({"INSERT", "REMOVE", "REPLACE", "UPDATE", "UPSERT"})
_REPLACE_OBJECTS = frozenset({"DATABASE", "DICTIONARY", "TABLE", "TEMPORARY", "VIEW"})

_SQL_FIRST = keywords(
    """
    ALTER ANALYZE ATTACH BEGIN CALL CHECK COMMIT COPY CREATE DELETE DESC DESCRIBE DETACH DO DROP
    EXISTS EXPLAIN GRANT INSERT KILL LISTEN MERGE NOTIFY OPTIMIZE REFRESH REINDEX RENAME REPLACE
    REVOKE ROLLBACK SELECT SET SHOW START SYSTEM TABLE TRUNCATE UPDATE USE VACUUM VALUES WITH
    """
)
_SQL_READS = frozenset({"SELECT", "WITH", "SHOW", "EXPLAIN", "DESCRIBE", "DESC", "VALUES", "TABLE"})
# `INTO` is SELECT INTO; FOR UPDATE counts as a write, since it takes locks.
_SQL_WRITES = keywords(
    """
    ALTER CREATE DELETE DROP GRANT INSERT INTO MERGE REVOKE TRUNCATE UPDATE
    """
)

_CLICKHOUSE_FIRST = frozenset(
    {"ATTACH", "DETACH", "KILL", "OPTIMIZE", "SYSTEM", "EXISTS", "RENAME"}
)
_CLICKHOUSE_SOFT = re.compile(
    r"(?:count|sum|avg|min|max|any|uniq|quantile)(?:If|Merge|State)|uniq(?:Exact|HLL12|Combined)?"
    r"|quantiles?(?:Exact|TDigest|Timing)?|toStartOf\w+|to(?:U?Int|Float|Decimal)\d+\w*"
    r"|toDate(?:Time)?(?:64|32)?|toYYYYMM(?:DD)?|group(?:Uniq)?Array\w*|array(?:Join|Map|Filter)"
    r"|argM(?:ax|in)|formatDateTime|dictGet\w*|LowCardinality|Nullable|UInt(?:8|16|32|64)|now64"
)
_FORMAT = re.compile(
    r"Arrow\w*|Avro|CSV\w*|JSON\w*|Markdown|Native|Null|ORC|Parquet|Pretty\w*|RowBinary\w*"
    r"|TSV\w*|TabSeparated\w*|Values|Vertical|XML"
)
_POSTGRESQL_FIRST = frozenset(
    {"ANALYZE", "CALL", "COPY", "DO", "LISTEN", "NOTIFY", "REFRESH", "REINDEX", "VACUUM"}
)
_POSTGRESQL_MARKS = frozenset({"->>", "#>>", "#>", "@>", "<@", "~*", "!~", "!~*"})
_POSTGRESQL_SOFT = keywords(
    """
    AGE BIGSERIAL BYTEA DATE_TRUNC GENERATE_SERIES JSONB JSONB_AGG JSONB_BUILD_OBJECT JSON_AGG
    NEXTVAL PG_SLEEP SERIAL STRING_AGG TIMESTAMPTZ TO_CHAR TO_TSQUERY TO_TSVECTOR
    """
)


def is_graphql(text: str) -> bool:
    """Weaviate's GraphQL: `{ Get { … } }`, Aggregate or Explore."""
    return _GRAPHQL.match(text) is not None


def is_aql(found: Sequence[Token]) -> bool:
    """ArangoDB's language, told by how the statement begins."""
    if not found or found[0].kind is not Kind.WORD:
        return False
    first, second = found[0].upper, found[1].upper if len(found) > 1 else ""
    if first in _AQL_FIRST:
        return True
    if first == "WITH":
        return _is_aql_with(found)
    if first not in _AQL_WRITES or second in _REPLACE_OBJECTS:
        return False
    if second == "{" or (len(found) > 1 and found[1].kind is Kind.BOUND):
        return True
    if first == "INSERT":
        return len(found) > 2 and found[2].upper in {"INTO", "IN"}
    decisive = (token.upper for token in found[1:] if token.kind is Kind.WORD)
    return next((word for word in decisive if word in {"SET", "WITH", "IN"}), "SET") != "SET"


def is_sql(found: Sequence[Token]) -> bool:
    """Any SQL at all."""
    opening = [token for token in found[:3] if token.text != "("]
    return bool(opening) and opening[0].kind is Kind.WORD and opening[0].upper in _SQL_FIRST


def dialect(found: Sequence[Token]) -> Engine | None:
    """The one SQL engine that syntax points to; None without evidence, or with both kinds."""
    clickhouse, postgresql = _clickhouse(found), _postgresql(found)
    if clickhouse != postgresql:
        return Engine.CLICKHOUSE if clickhouse else Engine.POSTGRESQL
    if clickhouse or sql_writes(found):
        return None
    clickhouse, postgresql = _clickhouse_soft(found), _postgresql_soft(found)
    if clickhouse != postgresql:
        return Engine.CLICKHOUSE if clickhouse else Engine.POSTGRESQL
    return None


def sql_writes(found: Sequence[Token]) -> bool:
    """Whether SQL may change something; when in doubt, it does."""
    words = [token.upper for token in found if token.kind is Kind.WORD]
    if not words or words[0] not in _SQL_READS:
        return True
    return not _SQL_WRITES.isdisjoint(words)


def aql_writes(found: Sequence[Token]) -> bool:
    """Whether AQL holds a data modification."""
    return any(token.kind is Kind.WORD and token.upper in _AQL_WRITES for token in found)


def _is_aql_with(found: Sequence[Token]) -> bool:
    """`WITH a, b FOR …` names collections; SQL's WITH has AS before its query."""
    for token in found[1:]:
        if token.kind is Kind.WORD and token.upper in _AQL_OPERATIONS:
            return True
        if token.kind not in (Kind.WORD, Kind.QUOTED, Kind.BOUND) and token.text != ",":
            return False
        if token.upper == "AS":
            return False
    return False


def _clickhouse(found: Sequence[Token]) -> bool:
    words = [token.upper if token.kind is Kind.WORD else token.text for token in found]
    if not words or any(token.kind is Kind.TYPED for token in found):
        return bool(words)
    if words[0] in _CLICKHOUSE_FIRST or "PREWHERE" in words:
        return True
    pairs = set(pairwise(words))
    if pairs & {("ARRAY", "JOIN"), ("ASOF", "JOIN"), ("GLOBAL", "IN"), ("GLOBAL", "JOIN")}:
        return True
    if words[0] in {"CREATE", "ALTER"} and pairs & {("ENGINE", "="), ("ON", "CLUSTER")}:
        return True
    return _limit_by(words) or _after_table(words) or _format(found)


def _limit_by(words: Sequence[str]) -> bool:
    return any(
        word == "LIMIT" and "BY" in words[at + 2 : at + 5 : 2] for at, word in enumerate(words)
    )


def _after_table(words: Sequence[str]) -> bool:
    """FINAL, or SAMPLE with a number, directly behind a table of FROM or JOIN."""
    for at, word in enumerate(words):
        sampled = word == "SAMPLE" and words[at + 1 : at + 2] and words[at + 1][:1].isdigit()
        if (word == "FINAL" or sampled) and {"FROM", "JOIN"} & set(words[max(0, at - 6) : at - 1]):
            behind = words[max(0, at - 6) : at]
            start = max(i for i, name in enumerate(behind) if name in {"FROM", "JOIN"})
            if all(name in {".", "AS"} or name.isidentifier() for name in behind[start + 1 :]):
                return "WHERE" not in behind[start:]
    return False


def _format(found: Sequence[Token]) -> bool:
    """`… FORMAT JSONEachRow` at the end, or in front of an INSERT's data."""
    return found[0].upper in {"INSERT", "SELECT", "SHOW", "WITH"} and any(
        token.upper == "FORMAT" and _FORMAT.fullmatch(following.text)
        for token, following in pairwise(found)
    )


def _clickhouse_soft(found: Sequence[Token]) -> bool:
    return any(
        token.kind is Kind.WORD and following.text == "(" and _CLICKHOUSE_SOFT.fullmatch(token.text)
        for token, following in pairwise(found)
    )


def _postgresql(found: Sequence[Token]) -> bool:
    words = [token.upper if token.kind is Kind.WORD else token.text for token in found]
    if any(token.kind is Kind.NUMBERED or token.text in _POSTGRESQL_MARKS for token in found):
        return True
    if not words or words[0] in _POSTGRESQL_FIRST:
        return bool(words)
    pairs = set(pairwise(words))
    if ("ON", "CONFLICT") in pairs:
        return True
    if pairs & {("FOR", "UPDATE"), ("FOR", "SHARE"), ("FOR", "NO"), ("FOR", "KEY")}:
        return True
    return words[0] in {"DELETE", "INSERT", "UPDATE", "WITH", "MERGE"} and "RETURNING" in words


def _postgresql_soft(found: Sequence[Token]) -> bool:
    return any(token.kind is Kind.WORD and token.upper in _POSTGRESQL_SOFT for token in found)
