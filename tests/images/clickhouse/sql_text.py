"""Just enough of ClickHouse's lexer: words, where they stand, and the trailing FORMAT clause."""

import itertools
import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|\#!?[ ][^\n]*|/\*.*?\*/)
    |(?P<string>'(?:[^'\\]|\\.|'')*')
    |(?P<quoted>`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*")
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>[0-9][0-9A-Za-z_.]*)
    |(?P<mark>.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Token:
    """`text` without quotes for names and strings; `kind` string, quoted, word, number or mark."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def upper(self) -> str:
        """A keyword's spelling; empty for what cannot be one."""
        return self.text.upper() if self.kind == "word" else ""

    @property
    def is_name(self) -> bool:
        return self.kind in ("word", "quoted")


def tokens(sql: str) -> list[Token]:
    """Without blanks and comments."""
    found = []
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup or "mark"
        if kind != "space":
            text = match.group()
            if kind in ("string", "quoted"):
                text = _unquoted(text)
            found.append(Token(kind, text, match.start(), match.end()))
    return found


def _unquoted(text: str) -> str:
    quote = text[0]
    inner = text[1:-1].replace(quote * 2, quote)
    return re.sub(r"\\(.)", r"\1", inner, flags=re.DOTALL)


def output_format(words: list[Token], default: str) -> str:
    """The format named by FORMAT outside parentheses, else the default."""
    depth, named = 0, default
    for word, following in itertools.pairwise(words):
        depth += {"(": 1, ")": -1}.get(word.text if word.kind == "mark" else "", 0)
        if depth == 0 and word.upper == "FORMAT" and following.kind == "word":
            named = following.text
    return named


def verb(words: list[Token]) -> str:
    """The statement's first keyword; INSERT or SELECT behind a leading WITH."""
    first = next((word.upper for word in words if word.upper), "")
    if first == "WITH":
        uppers = {word.upper for word in words}
        return "INSERT" if "INSERT" in uppers else "SELECT"
    return first


READS = frozenset(
    ("SELECT", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "WITH", "SET", "USE", "CHECK", "")
)


def reads_only(words: list[Token]) -> bool:
    """What `readonly` lets through."""
    return verb(words) in READS


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
