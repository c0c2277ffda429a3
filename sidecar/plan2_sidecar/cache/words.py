"""Commands as the wire has them, for the few that are sent on every call of a service."""


def reading(name: bytes) -> bytes:
    """GET and PTTL, which leave together."""
    size = len(name)
    return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n*2\r\n$4\r\nPTTL\r\n$%d\r\n%b\r\n" % (
        size,
        name,
        size,
        name,
    )


def setting(name: bytes, value: bytes, ttl_seconds: int | None) -> bytes:
    """SET, with EX where the value has an end."""
    start = b"$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(value), value)
    if ttl_seconds is None:
        return b"*3\r\n" + start
    seconds = b"%d" % ttl_seconds
    return b"*5\r\n%b$2\r\nEX\r\n$%d\r\n%b\r\n" % (start, len(seconds), seconds)
