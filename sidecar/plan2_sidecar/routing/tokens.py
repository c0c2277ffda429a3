"""Query text as words and marks, without its comments and strings: what routing reads.

This is no parser. It knows enough of SQL, AQL and GraphQL to never take a word inside a string
or a comment for a keyword. Where languages read a text apart differently, it is read both ways;
of a long text the first LONGEST characters are read.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

# What is left open runs to the end, and nothing is tried twice: the time to read a text grows with
# its length alone.
_PATTERN: Final = r"""
  (?P<space>\s+)
| (?P<comment>%(comment)s)
| (?P<heredoc>\$(?P<tag>[A-Za-z_]*)\$.*?(?:\$(?P=tag)\$|\Z))
| (?P<string>%(string)s)
| (?P<quoted>%(quoted)s)
| (?P<typed>\{\s*[A-Za-z_]\w*\s*:\s*[A-Z][A-Za-z0-9]*(?:\([^{}]*\))?\s*\})
| (?P<bound>@@?[A-Za-z_]\w*)
| (?P<numbered>\$\d+)
| (?P<number>\d+(?:\.\d+)*(?:[eE][+-]?\d+)?)
| (?P<word>[^\W\d][\w$]*)
| (?P<mark>->>|\#>>|\#>|->|@>|<@|::|~\*|!~\*?|:=|==|=~|.)
"""
# In PostgreSQL comments nest; three levels are more than anybody writes.
_NESTED: Final = r"/\*(?:[^*/]++|\*(?!/)|/(?!\*)|%s)*+(?:\*/|\Z)"
_POSTGRESQL_COMMENT: Final = r"--[^\n]* | " + _NESTED % (_NESTED % _NESTED % r"(?!)")
_CLICKHOUSE_COMMENT: Final = r"--[^\n]* | //[^\n]* | \#(?![>\-])[^\n]* | /\*.*?(?:\*/|\Z)"
_AQL_COMMENT: Final = r"//[^\n]* | /\*.*?(?:\*/|\Z)"


def _quoted(mark: str, *, escapes: bool, doubles: bool) -> str:
    """What stands between two of `mark`."""
    inside = [rf"[^{mark}\\]++" if escapes else f"[^{mark}]++"]
    if doubles:
        inside.append(mark * 2)
    if escapes:
        inside.append(r"\\.")
    return rf"{mark}(?:{'|'.join(inside)})*+(?:{mark}|\\?\Z)"


_ESCAPED_STRING: Final = _quoted("'", escapes=True, doubles=True)
_PLAIN_STRING: Final = f"[eE]{_ESCAPED_STRING} | {_quoted(chr(39), escapes=False, doubles=True)}"
_AQL_STRING: Final = " | ".join(_quoted(mark, escapes=True, doubles=False) for mark in "'\"")
_ESCAPED_NAME: Final = " | ".join(_quoted(mark, escapes=True, doubles=True) for mark in '"`')
_PLAIN_NAME: Final = " | ".join(_quoted(mark, escapes=False, doubles=True) for mark in '"`')
_AQL_NAME: Final = " | ".join(_quoted(mark, escapes=True, doubles=False) for mark in "`\u00b4")


def _reader(comment: str, string: str, quoted: str) -> re.Pattern[str]:
    parts = {"comment": comment, "string": string, "quoted": quoted}
    return re.compile(_PATTERN % parts, re.VERBOSE | re.DOTALL)


# A backslash escapes in ClickHouse, and is a plain character in PostgreSQL.
_CLICKHOUSE: Final = _reader(_CLICKHOUSE_COMMENT, _ESCAPED_STRING, _ESCAPED_NAME)
_POSTGRESQL: Final = _reader(_POSTGRESQL_COMMENT, _PLAIN_STRING, _PLAIN_NAME)
_AQL: Final = _reader(_AQL_COMMENT, _AQL_STRING, _AQL_NAME)
# What the two SQL engines may read differently: escapes, further comments, nested comments.
_TELLING: Final = re.compile(r"""\\['"`]|\#|//|/\*(?:[^*/]++|\*(?!/)|/(?!\*))*+/\*""")
# Longer texts are data for the most part; what they do is told by their beginning.
LONGEST: Final = 32 * 1024


class Kind(Enum):
    """What a token is."""

    WORD = auto()
    STRING = auto()
    QUOTED = auto()
    TYPED = auto()
    BOUND = auto()
    NUMBERED = auto()
    NUMBER = auto()
    MARK = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """`upper` is the text in capitals, for keywords; strings keep no text."""

    kind: Kind
    text: str
    upper: str

    @property
    def is_name(self) -> bool:
        """A name, or a keyword that may be one."""
        return self.kind is Kind.WORD or self.kind is Kind.QUOTED


_KINDS: Final = {
    "word": Kind.WORD,
    "string": Kind.STRING,
    "heredoc": Kind.STRING,
    "quoted": Kind.QUOTED,
    "typed": Kind.TYPED,
    "bound": Kind.BOUND,
    "numbered": Kind.NUMBERED,
    "number": Kind.NUMBER,
    "mark": Kind.MARK,
}


def keywords(text: str) -> frozenset[str]:
    """The words of `text`: how a table of keywords stays readable."""
    return frozenset(text.split())


def tokens(text: str) -> list[Token]:
    """The tokens of `text`, a backslash in a string read as an escape."""
    return _tokens(_CLICKHOUSE, text)


def readings(text: str) -> list[list[Token]]:
    """The ways SQL can be read: ClickHouse's, and PostgreSQL's where it may differ."""
    first = tokens(text)
    return [first, _tokens(_POSTGRESQL, text)] if _TELLING.search(text[:LONGEST]) else [first]


def aql_tokens(text: str) -> list[Token]:
    """The tokens of `text` as ArangoDB reads it: `--` is no comment there."""
    return _tokens(_AQL, text)


def _tokens(pattern: re.Pattern[str], text: str) -> list[Token]:
    found = []
    for match in pattern.finditer(text[:LONGEST]):
        kind = _KINDS.get(match.lastgroup or "")
        if kind is Kind.STRING:
            found.append(Token(kind, "", ""))
        elif kind is not None:
            found.append(Token(kind, match[0], match[0].upper()))
    return found
