"""A trading engine: an order is money in PostgreSQL, a hedge in ArangoDB, a trade in ClickHouse.

No transaction spans the three, so an order is a saga: the money is taken, the hedge is drawn, the
trade is written, and when a step fails the ones before it are undone in reverse. In between others
see the money taken. The order's own id is the key of the saga: sent again, it is not done again.
It places four orders, prints what became of them, and exits 0 when the books are right.
"""

import sys
import uuid
from dataclasses import dataclass, field
from typing import Any

from plan2_client import (
    CompensationFailed,
    CrossDbResult,
    Operation,
    OperationFailed,
    Statement,
    SyncClient,
)

ACCOUNT = "acc-1"


@dataclass(frozen=True)
class Order:
    """`amount` is quantity times price, in the account's currency."""

    symbol: str
    quantity: int
    price: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def amount(self) -> float:
        return self.quantity * self.price


def steps(order: Order) -> list[Operation]:
    """Taken in this order; each says how it is undone."""
    return [
        Operation(
            id="money",
            target_database="postgresql",
            query="UPDATE accounts SET balance = balance - $1 WHERE id = $2 RETURNING balance",
            params=[order.amount, ACCOUNT],
            compensate=Statement(
                query="UPDATE accounts SET balance = balance + $1 WHERE id = $2",
                params=[order.amount, ACCOUNT],
            ),
        ),
        Operation(
            id="hedge",
            target_database="arangodb",
            query="INSERT @edge INTO hedges",
            params={
                "edge": {
                    "_key": order.id,
                    "_from": f"instruments/{order.symbol}",
                    "_to": "instruments/CASH",
                    "quantity": order.quantity,
                }
            },
            depends_on=["money"],
            compensate=Statement(
                query="FOR h IN hedges FILTER h._key == @key REMOVE h IN hedges",
                params={"key": order.id},
            ),
        ),
        Operation(
            id="trade",
            target_database="clickhouse",
            query="INSERT INTO trades (order_id, symbol, quantity, price) VALUES"
            " ({id:String}, {symbol:String}, {quantity:Int64}, {price:Float64})",
            params={
                "id": order.id,
                "symbol": order.symbol,
                "quantity": order.quantity,
                "price": order.price,
            },
            depends_on=["hedge"],
        ),
    ]


def place(client: SyncClient, order: Order) -> str:
    """`filled`, `refused by …` with everything undone, or `pending`; raises CompensationFailed."""
    try:
        result = client.cross_db(
            steps(order), mode="saga", idempotency_key=order.id, timeout_ms=15_000
        )
    except CompensationFailed:
        # Somebody has to look: `members` of the error says which step was left as it is.
        raise
    except OperationFailed as failure:
        failed = [one for one in failure.members["operations"] if "problem" in one]
        return f"refused by {', '.join(one['id'] for one in failed)}"
    return outcome(result)


def outcome(result: CrossDbResult) -> str:
    return "filled" if result.state == "committed" else "pending"


def books(client: SyncClient, order: Order) -> tuple[float, int, int]:
    """The balance, and how many hedges and trades the order has."""
    balance = client.query(
        "SELECT balance FROM accounts WHERE id = $1",
        params=[ACCOUNT],
        target_database="postgresql",
    ).data[0]["balance"]
    hedges = client.query(
        "FOR h IN hedges FILTER h._key == @key RETURN h._key",
        params={"key": order.id},
        target_database="arangodb",
    ).data
    trades = client.query(
        "SELECT count() AS n FROM trades WHERE order_id = {id:String}",
        params={"id": order.id},
        target_database="clickhouse",
    ).data[0]["n"]
    return float(balance), len(hedges), trades


def open_account(client: SyncClient) -> None:
    """The example's account, with 1000 in it."""
    client.query(
        "INSERT INTO accounts (id, balance) VALUES ($1, 1000)"
        " ON CONFLICT (id) DO UPDATE SET balance = 1000",
        params=[ACCOUNT],
        target_database="postgresql",
    )


def main() -> int:
    first = Order("ACME", 10, 50.0)
    expected: list[tuple[str, Order, str, tuple[float, int, int]]] = [
        ("an order", first, "filled", (500.0, 1, 1)),
        ("the same, sent again", first, "filled", (500.0, 1, 1)),
        ("beyond the balance", Order("ACME", 100, 50.0), "refused by money", (500.0, 0, 0)),
        (
            "a symbol not listed",
            Order("NOWHERE", 1, 10.0),
            "refused by trade",
            (500.0, 0, 0),
        ),
    ]
    right: list[Any] = []
    with SyncClient() as client:
        client.ready()
        open_account(client)
        print(f"{'order':<28}{'became':<20}{'balance':>8}{'hedges':>8}{'trades':>8}")
        for title, order, wanted, wanted_books in expected:
            became, seen = place(client, order), books(client, order)
            print(f"{title:<28}{became:<20}{seen[0]:>8.2f}{seen[1]:>8}{seen[2]:>8}")
            right.append((became, seen) == (wanted, wanted_books))
    print("the books are right" if all(right) else "the books are wrong")
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
