"""Caches in two levels: a little in this process, the rest in DragonflyDB, shared by all sidecars.

    keys      what a key is called in the store, with the store's epoch in front
    l1        the level in this process: bounded by bytes, least recently used goes first
    flights   many who want one thing cause one call
    link      the connection to the store that tells what others change
    epoch     the number in PostgreSQL that makes everything older in the store unreadable
    tiers     the two levels as one: get, put, delete, and reading through
    sweep     taking away what an older epoch left in the store
    answers   answers of queries, and what a write makes of them

What is cached belongs to the callers: `api.cache`, sessions, the registry, configuration, queries.
"""
