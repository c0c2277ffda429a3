"""Names and clauses of access statements, on the words of the product's lexer."""

import itertools

from plan2_sidecar.embedded.clickhouse_server.sql_text import Token


def name_at(words: list[Token], index: int, database: str) -> tuple[str, str, int]:
    """(database, table, index behind) of `db.table`, `db.*`, `*.*` or `table` at an index."""
    first = words[index].text
    if index + 2 < len(words) and words[index + 1].text == ".":
        return first, words[index + 2].text, index + 3
    return database, first, index + 1


def tables_read(words: list[Token], database: str) -> list[tuple[str, str]]:
    """The tables behind FROM and JOIN, and `*functions*` as ("", name)."""
    found = []
    local = {
        word.text
        for word, following in itertools.pairwise(words)
        if word.is_name and following.upper == "AS"
    }
    for index, word in enumerate(words[:-1]):
        if word.upper not in ("FROM", "JOIN", "TABLE") or not words[index + 1].is_name:
            continue
        if words[index + 1].upper in ("SELECT", "FUNCTION", "IF"):
            continue
        place, table, behind = name_at(words, index + 1, database)
        if behind < len(words) and words[behind].text == "(" and words[behind].kind == "mark":
            found.append(("", table))
        elif table not in local or place != database:
            found.append((place, table))
    return found


class Words:
    """Tokens taken from the front."""

    def __init__(self, words: list[Token]) -> None:
        self.rest = words

    def __bool__(self) -> bool:
        return bool(self.rest)

    def peek(self) -> str:
        return self.rest[0].upper if self.rest else ""

    def take(self) -> str:
        return self.rest.pop(0).upper if self.rest else ""

    def skip(self, *keywords: str) -> bool:
        """Take these words if they are next, all of them or none."""
        if [word.upper for word in self.rest[: len(keywords)]] != list(keywords):
            return False
        del self.rest[: len(keywords)]
        return True

    def names(self) -> list[str]:
        """`a, b@host, c`: the names, hosts left out."""
        found = [self.rest.pop(0).text]
        while self.rest and self.rest[0].text in (",", "@"):
            separator = self.rest.pop(0).text
            name = self.rest.pop(0).text
            if separator == ",":
                found.append(name)
        return found

    def split(self, keyword: str) -> tuple[list[Token], list[Token]]:
        for index, word in enumerate(self.rest):
            if word.upper == keyword:
                return self.rest[:index], self.rest[index + 1 :]
        return self.rest, []

    def text(self) -> str:
        return " ".join(word.text for word in self.rest)
