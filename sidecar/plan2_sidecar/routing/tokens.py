"""Query text as words and marks, without its comments and strings: what routing reads.

This is no parser. It knows enough of SQL, AQL and GraphQL to never take a word inside a string
or a comment for a keyword.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

_PATTERN = r"""
  (?P<space>\s+)
| (?P<comment>--[^\n]* | //[^\n]* | \#(?![>\-])[^\n]* | /\*.*?\*/)
| (?P<heredoc>\$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$)
| (?P<string>'(?:[^'%(skip)s]|''%(escaped)s)*')
| (?P<quoted>"(?:[^"\\]|\\.|"")*" | `[^`]*`)
| (?P<typed>\{\s*[A-Za-z_]\w*\s*:\s*[A-Z][A-Za-z0-9]*(?:\([^{}]*\))?\s*\})
| (?P<bound>@@?[A-Za-z_]\w*)
| (?P<numbered>\$\d+)
| (?P<number>\d+(?:\.\d+)*(?:[eE][+-]?\d+)?)
| (?P<word>[^\W\d][\w$]*)
| (?P<mark>->>|\#>>|\#>|->|@>|<@|::|~\*|!~\*?|:=|==|.)
"""
_FLAGS = re.VERBOSE | re.DOTALL
# A backslash escapes in ClickHouse, AQL and JSON, and is a plain character in PostgreSQL.
_ESCAPING = re.compile(_PATTERN % {"skip": r"\\", "escaped": r"|\\."}, _FLAGS)
_LITERAL = re.compile(_PATTERN % {"skip": "", "escaped": ""}, _FLAGS)


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


_KINDS = {
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
    return _tokens(_ESCAPING, text)


def readings(text: str) -> list[list[Token]]:
    """The ways `text` can be read: two when a backslash stands in front of a quote."""
    first = tokens(text)
    return [first, _tokens(_LITERAL, text)] if "\\'" in text else [first]


def _tokens(pattern: re.Pattern[str], text: str) -> list[Token]:
    found = []
    for match in pattern.finditer(text):
        kind = _KINDS.get(match.lastgroup or "")
        if kind is Kind.STRING:
            found.append(Token(kind, "", ""))
        elif kind is not None:
            found.append(Token(kind, match[0], match[0].upper()))
    return found
