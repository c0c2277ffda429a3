"""Which privileges a statement needs, and which a grant covers."""

from collections.abc import Iterator

import sql_text

from plan2_sidecar.embedded.clickhouse_server import sql_text as lexer
from plan2_sidecar.embedded.clickhouse_server.sql_text import Token

# Table functions that reach nothing outside the engine.
_HARMLESS = """
    numbers numbers_mt zeros zeros_mt values generateRandom view null merge generate_series
    generateSeries one format fuzzJSON loop primes
"""
HARMLESS = frozenset(_HARMLESS.split())
OPEN_DATABASES = frozenset(("system", "information_schema", "INFORMATION_SCHEMA"))


def needed(words: list[Token], database: str) -> Iterator[tuple[str, str, str]]:
    """Each (privilege, database, table) that the statement wants granted."""
    verb = lexer.verb(words)
    uppers = [word.upper for word in words]
    if verb in ("SHOW", "DESCRIBE", "DESC", "EXISTS", "SET", "USE", ""):
        return
    if verb == "INSERT":
        index = uppers.index("INTO") + 1 if "INTO" in uppers else uppers.index("INSERT") + 1
        index += uppers[index] == "TABLE"
        place, table, behind = sql_text.name_at(words, index, database)
        yield "INSERT", place, table
        words = words[behind:]
    elif verb not in ("SELECT", "EXPLAIN", "WITH"):
        yield _definition(words, uppers, verb, database)
        if "SELECT" not in uppers:
            return
    for place, table in sql_text.tables_read(words, database):
        if place == "" and table not in HARMLESS:
            yield table.upper(), "*", "*"
        elif place and place not in OPEN_DATABASES:
            yield "SELECT", place, table


def _definition(
    words: list[Token], uppers: list[str], verb: str, database: str
) -> tuple[str, str, str]:
    noise = ("OR", "REPLACE", "TEMPORARY", "MATERIALIZED", "LIVE", "IF", "NOT", "EXISTS", "FROM")
    index = 1
    kind = ""
    while index < len(words) and (uppers[index] in noise or not kind):
        if uppers[index] in ("TABLE", "DATABASE", "VIEW", "DICTIONARY", "FUNCTION"):
            kind = uppers[index]
        elif uppers[index] not in noise:
            break
        index += 1
    if index >= len(words) or verb in ("SYSTEM", "KILL", "BACKUP", "RESTORE", "ATTACH"):
        return verb, "*", "*"
    if kind == "DATABASE":
        return f"{verb} DATABASE", words[index].text, "*"
    place, table, _ = sql_text.name_at(words, index, database)
    if verb in ("DELETE", "UPDATE"):
        return f"ALTER {verb}", place, table
    return f"{verb} {kind}".strip() if verb in ("CREATE", "DROP", "ALTER") else verb, place, table


def covers(grant: list[str], privilege: str, place: str, table: str) -> bool:
    """Whether a kept grant gives the privilege there."""
    held, held_place, held_table = grant
    if held_place not in ("*", place) or held_table not in ("*", table):
        return False
    return held in ("ALL", privilege) or privilege.startswith(held + " ")


def named(words: list[Token]) -> list[str]:
    """The privileges of a GRANT, columns left out."""
    text, depth = [""], 0
    for word in words:
        if word.text in "()":
            depth += 1 if word.text == "(" else -1
        elif depth == 0 and word.text == ",":
            text.append("")
        elif depth == 0:
            text[-1] = f"{text[-1]} {word.text.upper()}".strip()
    return ["ALL" if item == "ALL PRIVILEGES" else item for item in text if item]


def taken(grant: list[str], wanted: list[list[str]], give: bool) -> bool:
    """Already held when giving, or covered by what is revoked."""
    if give:
        return grant in wanted
    return any(covers(taken, grant[0], grant[1], grant[2]) for taken in wanted)
