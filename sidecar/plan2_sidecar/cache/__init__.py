"""Caches in two levels: a little in this process, the rest in DragonflyDB, shared by all sidecars.

    keys         what a key is called in the store, with the store's epoch in front
    l1           the level in this process: bounded by bytes, least recently used goes first
    shared       the level that all sidecars share, and what it tells of others' changes
    link         the connection it may be believed over
    asking       commands under way on it without a task, as `words` writes them
    epoch        the number in PostgreSQL that makes everything older in the store unreadable
    incarnation  which run of the store's process answers
    levels       one look through both, and its counters
    tiers        the two as one: get, put, delete; `found` is what they answer
    reading      reading through, with `entry` as the stored form
    flights      many who want one thing cause one call
    sweep        taking away what an older epoch left in the store
    answers      answers of queries, and what a write makes of them
    tags         what a query is about; pure
    tables       which tables a write to one changes answers about

What is cached belongs to the callers: `api.cache`, sessions, the registry, configuration, queries.
"""
