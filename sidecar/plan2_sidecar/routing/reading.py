"""A statement's tokens with what several rules ask of them: keywords in capitals, and depth."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from plan2_sidecar.routing.tokens import Kind, Token, keywords

_OPENING: Final = frozenset("([{")
_CLOSING: Final = frozenset(")]}")
# Behind one of these stands an operand or a name, so a keyword there is none.
BEFORE_OPERAND: Final = keywords(
    """
    AND AS BETWEEN BY CASE ELSE FROM HAVING IN INTO IS JOIN LIKE NOT ON OR RETURNING SELECT SET
    TABLE THEN UPDATE USING VALUES WHEN WHERE ( [ , . = < > + - / % | ? : ! ~ :: -> * COLUMN ADD
    """
)
# What may follow a table, or a name that is its alias.
CLAUSES: Final = keywords(
    """
    ANTI ARRAY ASOF CROSS EXCEPT FULL GROUP HAVING INNER INTERSECT JOIN LEFT LIMIT NATURAL ON
    ORDER RETURNING RIGHT SEMI SET UNION USING WHERE
    """
)
_FORMAT: Final = re.compile(
    r"Arrow\w*|Avro|CSV\w*|JSON\w*|Markdown|Native|Null|ORC|Parquet|Pretty\w*|RowBinary\w*"
    r"|TSV\w*|TabSeparated\w*|Values|Vertical|XML"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """`words` are the tokens' texts, keywords in capitals and strings empty; `depth` counts the
    brackets around each, `opening` is the place of the innermost one (-1 for none).
    """

    tokens: Sequence[Token]
    words: Sequence[str]
    depth: Sequence[int]
    opening: Sequence[int]
    closing: Mapping[int, int]
    index: Mapping[str, Sequence[int]]

    def __len__(self) -> int:
        return len(self.tokens)

    def word(self, at: int) -> str:
        """The word there, "" outside."""
        return self.words[at] if 0 <= at < len(self.words) else ""

    def kind(self, at: int) -> Kind | None:
        """The token's kind, None outside."""
        return self.tokens[at].kind if 0 <= at < len(self.tokens) else None

    def is_name(self, at: int) -> bool:
        """Whether a name, or a keyword that may be one, stands there."""
        return 0 <= at < len(self.tokens) and self.tokens[at].is_name

    def has(self, *words: str) -> bool:
        """Whether one of the words stands anywhere."""
        return any(word in self.index for word in words)

    def pair(self, first: str, second: str) -> bool:
        """Whether the two stand side by side."""
        return any(self.word(at + 1) == second for at in self.places(first))

    def places(self, word: str) -> Sequence[int]:
        """Where the word stands."""
        return self.index.get(word, ())

    def before(self, at: int, *words: str) -> bool:
        """Whether one of the words stands anywhere before `at`."""
        return any(self.index[word][0] < at for word in words if word in self.index)

    def behind(self, at: int) -> int:
        """The place behind the bracket that closes the one at `at`."""
        return self.closing.get(at, len(self)) + 1


Rule = Callable[[Reading], str | None]
"""Answers the words that tell, or None."""


def read(tokens: Sequence[Token]) -> Reading:
    """The reading of these tokens; the data of an INSERT with FORMAT is left out."""
    end = len(tokens)
    while end and tokens[end - 1].text == ";":
        end -= 1
    whole = _read(tokens[:end])
    at = format_clause(whole) if whole.word(0) == "INSERT" else None
    return whole if at is None else _read(tokens[: at + 2])


def alter_action(found: Reading) -> int:
    """Where the action of `ALTER TABLE [IF EXISTS] [ONLY] name …` begins; 0 for none."""
    if (found.word(0), found.word(1)) != ("ALTER", "TABLE"):
        return 0
    at = 4 if (found.word(2), found.word(3)) == ("IF", "EXISTS") else 2
    at += 1 if found.word(at) == "ONLY" and found.is_name(at + 1) else 0
    return at + (3 if found.word(at + 1) == "." else 1)


def _read(tokens: Sequence[Token]) -> Reading:
    depth: list[int] = []
    opening: list[int] = []
    closing: dict[int, int] = {}
    index: dict[str, list[int]] = {}
    words = [token.upper if token.kind is Kind.WORD else token.text for token in tokens]
    inside: list[int] = []
    for at, token in enumerate(tokens):
        is_mark = token.kind is Kind.MARK
        if is_mark and token.text in _CLOSING and inside:
            closing[inside.pop()] = at
        depth.append(len(inside))
        opening.append(inside[-1] if inside else -1)
        index.setdefault(words[at], []).append(at)
        if is_mark and token.text in _OPENING:
            inside.append(at)
    return Reading(tokens, words, depth, opening, closing, index)


def format_clause(found: Reading) -> int | None:
    """Where `FORMAT JSONEachRow` or its like stands."""
    for at in found.places("FORMAT"):
        named = found.kind(at + 1) is Kind.WORD and _FORMAT.fullmatch(found.tokens[at + 1].text)
        if named and found.word(at - 1) not in BEFORE_OPERAND:
            return at
    return None
