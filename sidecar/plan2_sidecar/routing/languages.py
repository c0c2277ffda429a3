"""Which language a text is in, and whether it writes: told by how it begins and by its keywords."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from plan2_sidecar.routing.tokens import Kind, Token, keywords

_GRAPHQL: Final = re.compile(
    r"\s*(?:#[^\n]*\n\s*)*(?:query\b[^{]*)?\{\s*(?:#[^\n]*\n\s*)*(?:Get|Aggregate|Explore)\b"
)

_AQL_OPERATIONS: Final = keywords("FOR LET REMOVE RETURN UPSERT INSERT REPLACE UPDATE")
_AQL_WRITES: Final = keywords("INSERT REMOVE REPLACE UPDATE UPSERT")
_REPLACE_OBJECTS: Final = keywords("DATABASE DICTIONARY INTO TABLE TEMPORARY VIEW")

_SQL_FIRST: Final = keywords(
    """
    ALTER ANALYZE ATTACH BACKUP BEGIN CALL CHECK COMMENT COMMIT COPY CREATE DELETE DESC DESCRIBE
    DETACH DISCARD DO DROP EXCHANGE EXISTS EXPLAIN GRANT INSERT KILL LISTEN LOCK MERGE NOTIFY
    OPTIMIZE REASSIGN REFRESH REINDEX RENAME REPLACE RESET RESTORE REVOKE ROLLBACK SECURITY SELECT
    SET SHOW START SYSTEM TABLE TRUNCATE UNDROP UNLISTEN UPDATE USE VACUUM VALUES WITH
    """
)
_SQL_READS: Final = keywords("CHECK DESC DESCRIBE EXISTS EXPLAIN SELECT SHOW TABLE VALUES WITH")
# `INTO` is SELECT INTO; FOR UPDATE and FOR SHARE count as writes, since they take locks.
_SQL_WRITES: Final = keywords(
    "ALTER CREATE DELETE DROP GRANT INSERT INTO MERGE REVOKE TRUNCATE UPDATE"
)
# Read alone by name: what they do is a write's work.
_SQL_WRITING_FUNCTIONS: Final = keywords("NEXTVAL SETVAL PG_TERMINATE_BACKEND LO_UNLINK")
_ANY_WRITE: Final = re.compile(
    "|".join(sorted(_SQL_WRITES | _AQL_WRITES | _SQL_WRITING_FUNCTIONS | {"SHARE"})), re.IGNORECASE
)


def is_graphql(text: str) -> bool:
    """Weaviate's GraphQL: `{ Get { … } }`, Aggregate or Explore."""
    return _GRAPHQL.match(text) is not None


def is_aql(found: Sequence[Token]) -> bool:
    """ArangoDB's language, told by how the statement begins."""
    if not found or found[0].kind is not Kind.WORD:
        return False
    words = [token.upper if token.kind is Kind.WORD else token.text for token in found]
    second, third = [*words[1:3], "", ""][:2]
    match words[0]:
        case "FOR":
            return "IN" in words[2:12]
        case "LET":
            return third == "="
        case "RETURN":
            return len(words) > 1
        case "REMOVE":
            return bool({"IN", "INTO"} & set(words[2:]))
        case "UPSERT":
            return "INSERT" in words and bool({"UPDATE", "REPLACE"} & set(words))
        case "WITH":
            return _is_aql_with(found)
        case "INSERT" | "UPDATE" | "REPLACE":
            return second not in _REPLACE_OBJECTS and _is_aql_write(found, words)
        case _:
            return False


def is_sql(found: Sequence[Token]) -> bool:
    """Any SQL at all."""
    opening = [token for token in found[:3] if token.text != "("]
    return bool(opening) and opening[0].kind is Kind.WORD and opening[0].upper in _SQL_FIRST


def sql_writes(found: Sequence[Token]) -> bool:
    """Whether SQL may change something; when in doubt, it does."""
    words = [
        token.upper
        for at, token in enumerate(found)
        if token.kind is Kind.WORD and not _is_member(found, at)
    ]
    if not words or words[0] not in _SQL_READS:
        return True
    if words[0] in {"CHECK", "DESC", "DESCRIBE", "EXISTS", "SHOW"}:
        return False
    locks = {("FOR", "SHARE"), ("KEY", "SHARE")} & set(pairwise(words))
    return bool(locks) or not _SQL_WRITES.isdisjoint(words) or _calls_writing(found)


def aql_writes(found: Sequence[Token]) -> bool:
    """Whether AQL holds a data modification."""
    return any(
        token.kind is Kind.WORD and token.upper in _AQL_WRITES and not _is_member(found, at)
        for at, token in enumerate(found)
    )


def mentions_write(text: str) -> bool:
    """Whether a word of a write is anywhere in the text, a string or a longer word included."""
    return _ANY_WRITE.search(text) is not None


def _is_member(found: Sequence[Token], at: int) -> bool:
    """`u.update`, or the `update:` of an object."""
    behind_dot = at > 0 and found[at - 1].text == "." and (at < 2 or found[at - 2].text != ".")
    named = at + 1 < len(found) and found[at + 1].text == ":"
    in_object = at > 0 and found[at - 1].text in {"{", ","}
    return behind_dot or (named and in_object)


def _calls_writing(found: Sequence[Token]) -> bool:
    return any(
        token.upper in _SQL_WRITING_FUNCTIONS and found[at + 1].text == "("
        for at, token in enumerate(found[:-1])
    )


def _is_aql_write(found: Sequence[Token], words: Sequence[str]) -> bool:
    if words[1:2] == ["{"] or (len(found) > 1 and found[1].kind is Kind.BOUND):
        return True
    if words[0] == "INSERT":
        return len(words) > 2 and words[2] in {"INTO", "IN"}
    decisive = (token.upper for token in found[1:] if token.kind is Kind.WORD)
    return next((word for word in decisive if word in {"SET", "WITH", "IN"}), "SET") != "SET"


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
