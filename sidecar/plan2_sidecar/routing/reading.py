"""A statement's tokens with what several rules ask of them: keywords in capitals, and depth."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from plan2_sidecar.routing.tokens import Kind, Token, keywords

_OPENING: Final = frozenset("([{")
_CLOSING: Final = frozenset(")]}")
# Behind one of these stands an operand or a name, so a keyword there is none.
BEFORE_OPERAND: Final = keywords(
    """
    AND AS BETWEEN BY CASE ELSE FROM HAVING IN INTO IS JOIN LIKE NOT ON OR RETURNING SELECT SET
    TABLE THEN UPDATE USING VALUES WHEN WHERE ( [ , . = < > + - / %
    """
)
_FORMAT: Final = re.compile(
    r"Arrow\w*|Avro|CSV\w*|JSON\w*|Markdown|Native|Null|ORC|Parquet|Pretty\w*|RowBinary\w*"
    r"|TSV\w*|TabSeparated\w*|Values|Vertical|XML"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """`words` are the tokens' texts, keywords in capitals and strings empty; `depth` counts the
    brackets around each.
    """

    tokens: Sequence[Token]
    words: Sequence[str]
    depth: Sequence[int]

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

    def pairs(self) -> frozenset[tuple[str, str]]:
        """Neighbours."""
        return frozenset(pairwise(self.words))

    def places(self, word: str) -> Iterator[int]:
        """Where the word stands."""
        return (at for at, found in enumerate(self.words) if found == word)

    def behind(self, at: int) -> int:
        """The place behind the bracket that closes the one at `at`."""
        inside = self.depth[at]
        closed = (i for i in range(at + 1, len(self)) if self.depth[i] == inside)
        return next(closed, len(self)) + 1


Rule = Callable[[Reading], str | None]
"""Answers the words that tell, or None."""


def read(tokens: Sequence[Token]) -> Reading:
    """The reading of these tokens; the data of an INSERT with FORMAT is left out."""
    depth, depths = 0, []
    for token in tokens:
        if token.kind is Kind.MARK and token.text in _CLOSING:
            depth -= 1
        depths.append(depth)
        if token.kind is Kind.MARK and token.text in _OPENING:
            depth += 1
    words = [token.upper if token.kind is Kind.WORD else token.text for token in tokens]
    whole = Reading(tokens, words, depths)
    at = format_clause(whole) if words[:1] == ["INSERT"] else None
    if at is None:
        return whole
    return Reading(tokens[: at + 2], words[: at + 2], depths[: at + 2])


def format_clause(found: Reading) -> int | None:
    """Where `FORMAT JSONEachRow` or its like stands."""
    for at in found.places("FORMAT"):
        named = found.kind(at + 1) is Kind.WORD and _FORMAT.fullmatch(found.tokens[at + 1].text)
        if named and found.word(at - 1) not in BEFORE_OPERAND:
            return at
    return None
