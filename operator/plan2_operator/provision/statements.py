"""Which statements of `bootstrap.sql` are still to run; the journal itself is the engine's.

A statement's fingerprint covers it and all before it. One that ran is not run again while the
list up to it stays the same: appending runs what was appended, and a list whose third statement
failed goes on with the third once it is mended. A change runs everything from there on.
"""

import hashlib
from collections.abc import Mapping, Sequence


def fingerprints(statements: Sequence[str]) -> list[str]:
    """One hexadecimal digest a statement, in order."""
    digest = hashlib.sha256()
    found = []
    for statement in statements:
        # The length goes in too: ["a", "b"] and ["ab"] are not the same list.
        text = statement.strip().encode()
        digest.update(f"{len(text)}:".encode() + text)
        found.append(digest.hexdigest())
    return found


def first_pending(wanted: Sequence[str], applied: Mapping[int, str]) -> int:
    """The index of the first statement to run; `len(wanted)` when all have run.

    `applied` maps an index to the fingerprint that the journal holds for it.
    """
    for index, fingerprint in enumerate(wanted):
        if applied.get(index) != fingerprint:
            return index
    return len(wanted)
