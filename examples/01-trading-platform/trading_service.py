"""A trading service in one file: it writes to six databases and reads back, through 127.0.0.1.

It knows no address and no password: `PLAN2_URL` and `PLAN2_API_TOKEN_FILE` are put into its
environment by the injector. Only the standard library is used. It prints a table and exits 0
only when every engine gave back what was written.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

URL = os.environ["PLAN2_URL"]
TOKEN_FILE = os.environ.get("PLAN2_API_TOKEN_FILE")
PATIENCE_SECONDS = float(os.environ.get("PATIENCE_SECONDS", "60"))


def query(engine: str, query: Any, params: Any = None) -> Any:
    """One call to the sidecar; the rows (or the reply) of the engine."""
    body = {"query": query, "targetDatabase": engine}
    if params is not None:
        body["params"] = params
    headers = {"Content-Type": "application/json"}
    if TOKEN_FILE:
        headers["Authorization"] = f"Bearer {Path(TOKEN_FILE).read_text().split()[0]}"
    request = urllib.request.Request(
        f"{URL}/api/v2/query", data=json.dumps(body).encode(), headers=headers
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)["data"]
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        raise RuntimeError(f"{error.code} {problem.get('code')}: {problem.get('detail')}") from None


def postgresql(number: int, _key: str) -> tuple[Any, Any]:
    query(
        "postgresql",
        "INSERT INTO accounts (id, owner, balance) VALUES ($1, $2, $3)",
        [number, "ada", "100.50"],
    )
    rows = query("postgresql", "SELECT owner, balance FROM accounts WHERE id = $1", [number])
    return rows, [{"owner": "ada", "balance": 100.50}]


def dragonflydb(_number: int, key: str) -> tuple[Any, Any]:
    query("dragonflydb", ["SET", f"quote:{key}", "101.25", "EX", "600"])
    return query("dragonflydb", ["GET", f"quote:{key}"]), "101.25"


def clickhouse(number: int, _key: str) -> tuple[Any, Any]:
    query(
        "clickhouse",
        "INSERT INTO trades (id, symbol, price)"
        " VALUES ({id:UInt64}, {symbol:String}, {price:Float64})",
        {"id": number, "symbol": "ACME", "price": 101.25},
    )
    rows = query(
        "clickhouse",
        "SELECT symbol, price FROM trades WHERE id = {id:UInt64}",
        {"id": number},
    )
    return rows, [{"symbol": "ACME", "price": 101.25}]


def weaviate(_number: int, key: str) -> tuple[Any, Any]:
    headline = f"ACME rises {key}"
    query(
        "weaviate",
        {
            "collection": "NewsArticle",
            "objects": [{"properties": {"headline": headline}, "vector": [0.1, 0.2, 0.3]}],
        },
    )
    where = f'{{path: ["headline"], operator: Equal, valueText: "{headline}"}}'
    graphql = f"{{ Get {{ NewsArticle(where: {where}) {{ headline }} }} }}"
    return query("weaviate", graphql)["Get"]["NewsArticle"], [{"headline": headline}]


def arangodb(_number: int, key: str) -> tuple[Any, Any]:
    query("arangodb", "INSERT @doc INTO instruments", {"doc": {"_key": key, "symbol": "ACME"}})
    rows = query(
        "arangodb",
        "FOR i IN instruments FILTER i._key == @key RETURN i.symbol",
        {"key": key},
    )
    return rows, ["ACME"]


def mongodb(_number: int, key: str) -> tuple[Any, Any]:
    query("mongodb", {"collection": "settings", "documents": [{"_id": key, "theme": "dark"}]})
    rows = query("mongodb", {"collection": "settings", "filter": {"_id": key}})
    return rows, [{"_id": key, "theme": "dark"}]


ENGINES: list[Callable[[int, str], tuple[Any, Any]]] = [
    postgresql,
    dragonflydb,
    clickhouse,
    weaviate,
    arangodb,
    mongodb,
]


def attempt(engine: Callable[[int, str], tuple[Any, Any]]) -> tuple[bool, str, float]:
    """Write and read back, again until it works or patience ends: ok, what was seen, ms."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        key = uuid.uuid4().hex
        started = time.perf_counter()
        try:
            seen, expected = engine(uuid.UUID(key).int >> 66, key)
            milliseconds = (time.perf_counter() - started) * 1000
            if seen == expected:
                return True, "ok", milliseconds
            return False, f"wrote {expected}, read {seen}", milliseconds
        except (RuntimeError, OSError) as error:
            if time.monotonic() > give_up:
                return False, str(error), (time.perf_counter() - started) * 1000
            time.sleep(1)


def main() -> int:
    print(f"{'engine':<13}{'operation':<24}{'result':<10}{'ms':>8}")
    answered = 0
    for engine in ENGINES:
        ok, result, milliseconds = attempt(engine)
        answered += ok
        print(f"{engine.__name__:<13}{'write and read back':<24}{result:<10}{milliseconds:>8.1f}")
    print(f"{answered} of {len(ENGINES)} engines answered through {URL}")
    return 0 if answered == len(ENGINES) else 1


if __name__ == "__main__":
    sys.exit(main())
