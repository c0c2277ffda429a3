"""Engines that know a step again by a name: ClickHouse by a token, Weaviate by its objects' ids."""

import re
import uuid
from typing import Any, Final

import msgspec

from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.clickhouse import ClickHouse
from plan2_sidecar.query import Query
from plan2_sidecar.sagas import repeats

_WINDOW: Final = re.compile(r"\b((?:non_)?replicated_deduplication_window)\s*=\s*'?(\d+)")
_TABLES: Final = """
    SELECT engine, engine_full FROM system.tables
    WHERE name = {table:String}
        AND database = if({database:String} = '', currentDatabase(), {database:String})
"""
_DEFAULTS: Final = """
    SELECT name, value FROM system.merge_tree_settings
    WHERE name IN ('non_replicated_deduplication_window', 'replicated_deduplication_window')
"""


async def deduplicates(client: ClickHouse, query: Query, deadline: Deadline) -> bool:
    """Whether the table that the INSERT names remembers the tokens it has seen."""
    target = repeats.inserted_into(query.query)
    if target is None:
        return False
    database, table = target
    params = {"table": table, "database": database or ""}
    found = await _rows(client, Query(query=_TABLES, params=params), deadline)
    if not found or "MergeTree" not in found[0]["engine"]:
        return False
    kind = "replicated" if found[0]["engine"].startswith(("Replicated", "Shared")) else ""
    wanted = f"{kind or 'non_replicated'}_deduplication_window"
    own = {name: int(value) for name, value in _WINDOW.findall(found[0]["engine_full"])}
    if wanted in own:
        return own[wanted] > 0
    defaults = await _rows(client, Query(query=_DEFAULTS), deadline)
    return any(row["name"] == wanted and int(row["value"]) > 0 for row in defaults)


async def _rows(client: ClickHouse, query: Query, deadline: Deadline) -> list[dict[str, Any]]:
    result = await client.execute(query, deadline)
    rows: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(result.data))
    return rows


def with_ids(query: Query, op_id: str) -> Query:
    """The insert of objects with an id for each that has none: the same for the same operation."""
    if not isinstance(query.query, dict) or not isinstance(query.query.get("objects"), list):
        return query
    objects = [
        {"id": str(uuid.uuid5(uuid.UUID(op_id), str(at))), **each}
        if isinstance(each, dict)
        else each
        for at, each in enumerate(query.query["objects"])
    ]
    return msgspec.structs.replace(query, query={**query.query, "objects": objects})
