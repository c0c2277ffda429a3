"""As much reading of a statement's text as running it needs: its words, without its literals.

This is not a parser, and nothing is decided by it that the engine does not decide again.
"""

import re
from typing import Final

_SKIPPED: Final = re.compile(
    r"""
      --[^\n]*                      # a comment to the end of the line
    | /\*.*?(?:\*/|\Z)              # a comment between marks
    | '(?:[^'\\]|''|\\.)*'          # a string
    | "(?:[^"\\]|""|\\.)*"          # a quoted name
    | `(?:[^`\\]|\\.)*`
    | \$(\w*)\$.*?\$\1\$            # PostgreSQL's dollar quotes
    """,
    re.VERBOSE | re.DOTALL,
)
_WORD: Final = re.compile(r"[A-Za-z_]\w*")


def bare(text: str) -> str:
    """The text with comments, strings and quoted names blanked out."""
    return _SKIPPED.sub(" ", text)


def first_word(bare_text: str) -> str:
    """The first word in capitals, "" when there is none; opening brackets are stepped over."""
    found = _WORD.match(bare_text.lstrip(" \t\r\n(;"))
    return found.group().upper() if found else ""
