"""Shopping carts that move from the legacy Redis to Dragonfly while the shop is open.

Dragonfly is asked first and gets every write. What it does not have yet is read from the legacy
Redis and brought over. A write or delete removes the legacy copy, so that none of it comes back
when the new value ends. While Dragonfly is away, carts can be read where they were, not changed.
"""

import json
from dataclasses import dataclass
from typing import Any

from plan2_client import QueryRejected, SyncClient, Unavailable

NEW, LEGACY = "dragonflydb", "redis"
CART_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class Cart:
    """`source` is the store that had it."""

    items: Any
    source: str


class Carts:
    """One cart a user, at the key it has always had."""

    def __init__(self, client: SyncClient) -> None:
        self._client = client

    def get(self, user: str) -> Cart | None:
        """Raises Unavailable when neither store answers."""
        key = f"cart:{user}"
        try:
            found = self._ask(NEW, "GET", key)
            if found is None and bring_over(self._client, key):
                return self._cart(self._ask(NEW, "GET", key), LEGACY)
        except Unavailable:
            return self._cart(self._ask(LEGACY, "GET", key), LEGACY)
        return self._cart(found, NEW)

    def put(self, user: str, items: Any) -> None:
        """Keep it for a week; raises Unavailable, and then it is as it was or as it is now."""
        key = f"cart:{user}"
        self._ask(NEW, "SET", key, json.dumps(items), "EX", CART_SECONDS)
        self._ask(LEGACY, "DEL", key)

    def delete(self, user: str) -> None:
        """Gone from both; the legacy one first, or a reader would bring it over again."""
        key = f"cart:{user}"
        self._ask(LEGACY, "DEL", key)
        self._ask(NEW, "DEL", key)

    def _ask(self, store: str, *command: str | int) -> Any:
        return self._client.query(list(command), target_database=store).data

    @staticmethod
    def _cart(text: str | None, source: str) -> Cart | None:
        return None if text is None else Cart(json.loads(text), source)


def bring_over(client: SyncClient, key: str) -> bool:
    """Copy one key of any type with the time it has left; False when the legacy has none.

    What Dragonfly already has is newer, and stays.
    """
    left = client.query(["PTTL", key], target_database=LEGACY).data
    dumped = client.query(["DUMP", key], target_database=LEGACY).data
    if dumped is None or left == -2:
        return False
    try:
        # 0 is for ever in RESTORE, -1 in PTTL.
        client.query(["RESTORE", key, max(left, 0), dumped], target_database=NEW)
    except QueryRejected as refusal:
        if refusal.engine_code != "BUSYKEY":
            raise
    return True
