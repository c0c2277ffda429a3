"""The only source of chance in the operator: passwords, keys and tokens."""

import secrets
import string
from typing import Final

LENGTH: Final = 32
# Letters and digits alone: the same text goes into URIs, XML, ACL files and shells unquoted.
ALPHABET: Final = string.ascii_letters + string.digits


def generate() -> str:
    """32 letters and digits (190 bits), a letter first, no newline."""
    first = secrets.choice(string.ascii_letters)
    return first + "".join(secrets.choice(ALPHABET) for _ in range(LENGTH - 1))
