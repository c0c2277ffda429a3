"""Just enough of ClickHouse's lexer: words, where they stand, the verb, the FORMAT clause."""

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
