"""The HTTP API: one module a resource, `wire` for bodies, `problems` for errors, `door` for who
may come in."""
