"""As much reading of a statement's text as running it needs: its words, without its literals.

This is not a parser, and nothing is decided by it that the engine does not decide again.
"""

import re
from typing import Final

_SKIPPED: Final = re.compile(
    r"""
      --[^\n]*                      # a comment to the end of the line
    | /\*.*?(?:\*/|\Z)              # a comment between marks
    | '(?:[^'\\]++|''|\\.)*+(?:'|(?P<open_string>\\?\Z))
    | "(?:[^"\\]++|""|\\.)*+(?:"|(?P<open_name>\\?\Z))
    | `(?:[^`\\]++|\\.)*+(?:`|(?P<open_other>\\?\Z))
    | \$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|(?P<open_dollars>\Z))  # PostgreSQL's dollar quotes
    """,
    re.VERBOSE | re.DOTALL,
)
# A name that may be qualified, and the bracket behind it. Each is read once, however long it is.
_NAME: Final = re.compile(r'([\w$".]++)(\s*+\()?')
_WORD: Final = re.compile(r"[A-Za-z_]\w*")


def bare(text: str) -> str:
    """The text with comments, strings and quoted names blanked out."""
    return _SKIPPED.sub(_blank, text)


def called(text: str) -> set[str]:
    """What stands before an opening bracket, in small letters: words, qualified as they are.

    A quoted name among them is `"`.
    """
    names = _SKIPPED.sub(lambda match: '"' if match[0][0] == '"' else " ", text)
    joined = ".".join([part.strip() for part in names.split(".")])
    return {name.lower() for name, bracket in _NAME.findall(joined) if bracket}


def first_word(bare_text: str) -> str:
    """The first word in capitals, "" when there is none; opening brackets are stepped over."""
    found = _WORD.match(bare_text.lstrip(" \t\r\n(;"))
    return found.group().upper() if found else ""


def _blank(match: re.Match[str]) -> str:
    # What is left open is one engine's way to read it; another may see words in there.
    is_open = (match.lastgroup or "").startswith("open_")
    return f" {match[0][1:]}" if is_open else " "
