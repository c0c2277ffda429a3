"""Queries that are objects: MongoDB's and Weaviate's, told apart by their members."""

from collections.abc import Mapping
from typing import Any

_MONGODB = frozenset(
    {"delete", "documents", "filter", "many", "pipeline", "projection", "sort", "update", "upsert"}
)
_WEAVIATE = frozenset(
    {"bm25", "hybrid", "nearText", "nearVector", "objects", "properties", "where"}
)


def is_mongodb(query: Mapping[str, Any]) -> bool:
    """Members that only MongoDB's forms have."""
    return not _MONGODB.isdisjoint(query)


def is_weaviate(query: Mapping[str, Any]) -> bool:
    """Members that only Weaviate's forms have."""
    return not _WEAVIATE.isdisjoint(query)


def mongodb_writes(query: Mapping[str, Any]) -> bool:
    """Whether the query changes documents; `$out` and `$merge` do."""
    if not {"delete", "documents", "update"}.isdisjoint(query):
        return True
    pipeline = query.get("pipeline")
    if not isinstance(pipeline, list):
        return False
    return any(
        isinstance(stage, Mapping) and not {"$out", "$merge"}.isdisjoint(stage)
        for stage in pipeline
    )


def weaviate_writes(query: Mapping[str, Any]) -> bool:
    """Whether the query inserts objects."""
    return "objects" in query
