"""What only ClickHouse can parse, and what it is known for."""

import re
from typing import Final

from plan2_sidecar.routing.reading import (
    BEFORE_OPERAND,
    CLAUSES,
    Reading,
    Rule,
    alter_action,
    format_clause,
)
from plan2_sidecar.routing.tokens import Kind, keywords

_FIRST: Final = keywords(
    "ATTACH BACKUP DESC DESCRIBE DETACH EXCHANGE EXISTS KILL OPTIMIZE RENAME SYSTEM UNDROP USE"
)
_STATEMENTS: Final = frozenset(
    {
        *(("CHECK", "TABLE"), ("CHECK", "GRANT"), ("CREATE", "ROW")),
        *(("REPLACE", "TABLE"), ("REPLACE", "DICTIONARY")),
        *(("RESTORE", "TABLE"), ("RESTORE", "DATABASE"), ("RESTORE", "ALL")),
        *(
            (verb, thing)
            for verb in ("ALTER", "CREATE", "DROP")
            for thing in ("DICTIONARY", "LIVE", "NAMED", "QUOTA", "SETTINGS", "WINDOW")
        ),
    }
)
_ALTER_ACTIONS: Final = keywords(
    "CLEAR DELETE FETCH FREEZE MATERIALIZE MODIFY MOVE REPLACE UNFREEZE UPDATE"
)
_LITERAL_AHEAD: Final = keywords("SELECT ( , = IN VALUES AND OR WHERE IF THEN ELSE")
_NO_OPERAND: Final = frozenset({",", ")", "=", ".", ";", "<", ">", "IS", "IN"})


def _typed(found: Reading) -> str | None:
    return next((token.text for token in found.tokens if token.kind is Kind.TYPED), None)


def _backquoted(found: Reading) -> str | None:
    quoted = (token.text for token in found.tokens if token.kind is Kind.QUOTED)
    return next((text for text in quoted if text.startswith("`")), None)


def _statement(found: Reading) -> str | None:
    first, second = found.word(0), found.word(1)
    if first in _FIRST:
        return first
    if (first, second) in _STATEMENTS:
        return f"{first} {second}"
    if first == "INSERT" and "FUNCTION" in found.words[1:4] and found.is_name(4):
        return "INSERT INTO FUNCTION"
    if first == "DROP" and second in {"DATABASE", "DICTIONARY", "TABLE", "VIEW"}:
        last = len(found) - 1
        named = last > 2 and found.word(last - 1) not in BEFORE_OPERAND | {"EXISTS"}
        return "SYNC" if named and found.word(last) == "SYNC" else None
    return None


def _engine_clause(found: Reading) -> str | None:
    """`ENGINE = …` of a definition: before its SELECT, outside its brackets."""
    if found.word(0) not in {"CREATE", "REPLACE"}:
        return None
    for at in found.places("ENGINE"):
        if found.depth[at] or found.word(at - 1) in BEFORE_OPERAND:
            continue
        if found.before(at, "SELECT", "WHERE"):
            return None
        if found.word(at + 1) == "=" or found.word(at + 1).endswith("MERGETREE"):
            return "ENGINE ="
    return None


def _on_cluster(found: Reading) -> str | None:
    if found.word(0) not in {"ALTER", "CREATE", "DROP", "TRUNCATE"}:
        return None
    if found.word(1) not in {"TABLE", "DATABASE", "VIEW", "MATERIALIZED"}:
        return None
    for at in found.places("CLUSTER"):
        named = found.is_name(at + 1) or found.kind(at + 1) is Kind.STRING
        if found.word(at - 1) == "ON" and named and not found.before(at, "SELECT"):
            return "ON CLUSTER"
    return None


def _alter_action(found: Reading) -> str | None:
    """What ClickHouse alone does with ALTER TABLE: `ALTER TABLE t DELETE WHERE …`."""
    at = alter_action(found)
    if not at:
        return None
    action, target, third = found.word(at), found.word(at + 1), found.word(at + 2)
    if action in _ALTER_ACTIONS and target:
        return f"ALTER TABLE … {action}"
    if (action, target) == ("ADD", "INDEX") and found.has("TYPE"):
        return "ALTER TABLE … ADD INDEX"
    if (action, target) == ("ADD", "PROJECTION") and found.has("SELECT"):
        return "ALTER TABLE … ADD PROJECTION"
    dropped = action == "DROP" and target in {"INDEX", "PARTITION", "PROJECTION"}
    if dropped and at + 2 < len(found) and third not in {"CASCADE", "RESTRICT", ",", ";"}:
        return f"ALTER TABLE … DROP {target}"
    return None


def _limit_by(found: Reading) -> str | None:
    for at in found.places("LIMIT"):
        second = at + 4 if found.word(at + 2) in {",", "OFFSET"} else at + 2
        if found.word(second) == "BY":
            return "LIMIT … BY"
    return None


def _prewhere(found: Reading) -> str | None:
    for at in found.places("PREWHERE"):
        keyword = found.before(at, "FROM") and found.word(at - 1) not in BEFORE_OPERAND
        if keyword and at + 1 < len(found) and found.word(at + 1) not in _NO_OPERAND | CLAUSES:
            return "PREWHERE"
    return None


def _sample(found: Reading) -> str | None:
    for at in found.places("SAMPLE"):
        behind_name = found.is_name(at - 1) and found.word(at - 1) not in BEFORE_OPERAND
        if found.kind(at + 1) is Kind.NUMBER and behind_name and found.before(at, "FROM"):
            return "SAMPLE"
    return None


def _settings(found: Reading) -> str | None:
    for at in found.places("SETTINGS"):
        if found.is_name(at + 1) and found.word(at + 2) == "=" and found.word(at - 1) != "UPDATE":
            return "SETTINGS"
    return None


def _format(found: Reading) -> str | None:
    """`… FORMAT JSONEachRow` at the end, or in front of an INSERT's data."""
    if found.word(0) not in {"INSERT", "SELECT", "SHOW", "WITH", "EXPLAIN", "VALUES", "("}:
        return None
    return None if format_clause(found) is None else "FORMAT"


def _with(found: Reading) -> str | None:
    """`WITH TOTALS` and its like, which follow a list; and `WITH 1 AS x`."""
    for at in found.places("WITH"):
        following, then = found.word(at + 1), found.word(at + 2)
        if not at or found.word(at - 1) in BEFORE_OPERAND or then in {"AS", "("}:
            continue
        if following in {"TOTALS", "FILL"}:
            return f"WITH {following}"
        if following in {"ROLLUP", "CUBE"} and found.before(at, "GROUP"):
            return f"WITH {following}"
    value = found.kind(1) in {Kind.NUMBER, Kind.STRING} or found.word(1) in {"(", "["}
    return "WITH a value AS" if found.word(0) == "WITH" and value else None


def _interval(found: Reading) -> str | None:
    for at in found.places("INTERVAL"):
        if found.kind(at + 1) is Kind.NUMBER and found.is_name(at + 2):
            return "INTERVAL with a bare number"
    return None


def _array_literal(found: Reading) -> str | None:
    if found.has("ARRAY"):
        return None
    ahead = (found.word(at - 1) for at in found.places("["))
    return next(("[…]" for word in ahead if word in _LITERAL_AHEAD), None)


def _array_join(found: Reading) -> str | None:
    return "ARRAY JOIN" if found.pair("ARRAY", "JOIN") else None


def _into_outfile(found: Reading) -> str | None:
    for at in found.places("OUTFILE"):
        if found.word(at - 1) == "INTO" and found.kind(at + 1) is Kind.STRING:
            return "INTO OUTFILE"
    return None


def _wrapped_types(found: Reading) -> str | None:
    """`Nullable(…)` where a column is defined."""
    if found.word(0) not in {"CREATE", "ALTER"}:
        return None
    for at, token in enumerate(found.tokens):
        wrapped = token.text in {"Nullable", "LowCardinality"} and found.word(at + 1) == "("
        if wrapped and found.is_name(at - 1):
            return token.text
    return None


CERTAIN: Final[tuple[Rule, ...]] = (
    _typed,
    _statement,
    _prewhere,
    _limit_by,
    _engine_clause,
    _on_cluster,
    _alter_action,
    _format,
    _settings,
    _sample,
    _array_join,
    _interval,
    _with,
    _array_literal,
    _into_outfile,
    _wrapped_types,
    _backquoted,
)

_CAMEL: Final = re.compile(r"[a-z]+\d*[A-Z]\w*")
_FUNCTIONS: Final = keywords(
    "cluster has median numbers quantile quantiles rand remote s3 today tuple uniq url yesterday"
    " zeros"
)
_TYPE: Final = re.compile(
    r"U?Int(?:8|16|32|64|128|256)|Float(?:32|64)|String|FixedString|Date(?:Time)?(?:32|64)"
    r"|Decimal(?:32|64|128|256)|LowCardinality|Nullable|Enum(?:8|16)"
)
_SHOWN: Final = keywords(
    """
    ACCESS CLUSTERS COLUMNS CREATE DATABASES DICTIONARIES DICTIONARY FUNCTIONS GRANTS INDEX
    INDEXES KEYS MERGES POLICIES PROCESSLIST PROFILES QUOTAS ROLES SETTINGS TABLES USERS VIEW
    """
)
_EXPLAINED: Final = keywords("AST ESTIMATE PIPELINE PLAN QUERY SYNTAX TABLE")
_JOINS: Final = (
    *(("ASOF", "JOIN"), ("ASOF", "LEFT"), ("ANY", "JOIN"), ("ANY", "LEFT")),
    *(("GLOBAL", "JOIN"), ("GLOBAL", "LEFT"), ("GLOBAL", "ANY")),
    *(("GLOBAL", "IN"), ("GLOBAL", "NOT"), ("SEMI", "JOIN"), ("ANTI", "JOIN")),
)
_NOT_CALLED: Final = frozenset({"AS", "INTO", "RECURSIVE", "WITH"})


def _function(found: Reading) -> str | None:
    for at, token in enumerate(found.tokens):
        if token.kind is not Kind.WORD or found.word(at + 1) != "(":
            continue
        if found.word(at - 1) in _NOT_CALLED:
            continue
        if token.text in _FUNCTIONS or _CAMEL.fullmatch(token.text):
            return f"{token.text}()"
    return None


def _cast(found: Reading) -> str | None:
    for at in found.places("::"):
        if at + 1 < len(found) and _TYPE.fullmatch(found.tokens[at + 1].text):
            return f"::{found.tokens[at + 1].text}"
    return None


def _final(found: Reading) -> str | None:
    """FINAL behind a table; PostgreSQL would take it for an alias."""
    for at in found.places("FINAL"):
        at_table = at - 1
        for _ in range(3):  # schema.table AS alias
            if found.word(at_table - 1) in {".", "AS"}:
                at_table -= 2
        behind = found.word(at_table - 1) in {"FROM", "JOIN"}
        aliased = found.is_name(at_table - 1) and found.word(at_table - 2) in {"FROM", "JOIN"}
        if found.is_name(at - 1) and (behind or aliased) and not found.pair("FINAL", "."):
            return "FINAL"
    return None


def _joins(found: Reading) -> str | None:
    return next((" ".join(pair) for pair in _JOINS if found.pair(*pair)), None)


def _shown(found: Reading) -> str | None:
    if found.word(0) == "SHOW" and found.word(1) in _SHOWN:
        return f"SHOW {found.word(1)}"
    if found.word(0) == "SHOW" and {"FULL", "CHANGED", "TEMPORARY"} & {found.word(1)}:
        return f"SHOW {found.word(1)}"
    if found.word(0) == "EXPLAIN" and found.word(1) in _EXPLAINED:
        return f"EXPLAIN {found.word(1)}"
    return None


def _marks(found: Reading) -> str | None:
    if found.has("=="):
        return "=="
    if found.pair("SYSTEM", "."):
        return "system."
    return "* EXCEPT" if found.pair("*", "EXCEPT") or found.pair("*", "REPLACE") else None


LIKELY: Final[tuple[Rule, ...]] = (_function, _cast, _final, _joins, _shown, _marks)
