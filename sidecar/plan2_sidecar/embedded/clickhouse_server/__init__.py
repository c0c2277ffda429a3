"""ClickHouse's engine (chdb) behind ClickHouse's HTTP interface, in a process of its own.

Only the standard library, aiohttp and chdb are imported, and nothing of the rest of the sidecar:
the tests' ClickHouse image holds this package alone.
"""
