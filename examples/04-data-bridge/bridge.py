"""Copies keys from the legacy Redis to Dragonfly, with the time they have left: a Job.

    python bridge.py --match 'cart:*'

What Dragonfly already has is newer and stays, so it may be run again at any time. It prints what
it did; the exit code is 1 when a key could not be copied.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator

from carts import LEGACY, NEW, bring_over

from plan2_client import Plan2Error, SyncClient


def keys(client: SyncClient, match: str) -> Iterator[str]:
    """Every key of the legacy Redis that fits; one may come twice."""
    cursor = "0"
    while True:
        command = ["SCAN", cursor, "MATCH", match, "COUNT", 500]
        cursor, found = client.query(command, target_database=LEGACY).data
        yield from found
        if cursor == "0":
            return


def copy(client: SyncClient, key: str) -> str:
    """What became of the key."""
    if client.query(["EXISTS", key], target_database=NEW).data:
        return "already there"
    return "copied" if bring_over(client, key) else "gone meanwhile"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--match", default="*", help="which keys, as SCAN has it")
    match = parser.parse_args().match
    outcomes: Counter[str] = Counter()
    with SyncClient(timeout_ms=10_000) as client:
        client.ready()
        for key in keys(client, match):
            try:
                outcomes[copy(client, key)] += 1
            except Plan2Error as error:
                outcomes["failed"] += 1
                print(f"{key}: {error}", file=sys.stderr)
    print("\n".join(f"{count:>8} {outcome}" for outcome, count in sorted(outcomes.items())))
    return 1 if outcomes["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
