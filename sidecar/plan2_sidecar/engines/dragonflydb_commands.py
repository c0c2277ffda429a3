"""Which commands of the Redis protocol only read, and which no shared connection can carry.

Data only. A command in neither set is a write as far as `readOnly` goes.
"""

from typing import Final

REFUSED: Final = frozenset(
    {
        # They wait on the connection.
        *("BLPOP", "BRPOP", "BLMOVE", "BRPOPLPUSH", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP"),
        *("WAIT", "WAITAOF", "MONITOR", "SYNC", "PSYNC", "REPLCONF"),
        *("SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"),
        *("UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"),
        # They change it for everybody.
        *("MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH", "SELECT", "AUTH", "HELLO", "RESET"),
        *("QUIT", "CLIENT", "ASKING", "READONLY", "READWRITE"),
    }
)

_READS: Final = frozenset(
    {
        *("PING", "ECHO", "TIME", "DBSIZE", "INFO", "LASTSAVE", "COMMAND", "ROLE", "MEMORY"),
        *("GET", "MGET", "STRLEN", "GETRANGE", "SUBSTR", "GETBIT", "BITCOUNT", "BITPOS"),
        *("BITFIELD_RO", "LCS", "DIGEST"),
        *("EXISTS", "TYPE", "TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME", "KEYS", "SCAN", "TOUCH"),
        *("RANDOMKEY", "DUMP", "OBJECT", "SORT_RO"),
        *("HGET", "HMGET", "HGETALL", "HKEYS", "HVALS", "HLEN", "HEXISTS", "HSTRLEN", "HSCAN"),
        *("HRANDFIELD", "HTTL", "HPTTL", "HEXPIRETIME", "HPEXPIRETIME", "FIELDTTL"),
        *("LRANGE", "LLEN", "LINDEX", "LPOS"),
        *("SMEMBERS", "SISMEMBER", "SMISMEMBER", "SCARD", "SRANDMEMBER", "SINTER", "SUNION"),
        *("SDIFF", "SINTERCARD", "SSCAN"),
        *("ZRANGE", "ZREVRANGE", "ZRANGEBYSCORE", "ZREVRANGEBYSCORE", "ZRANGEBYLEX"),
        *("ZREVRANGEBYLEX", "ZSCORE", "ZMSCORE", "ZRANK", "ZREVRANK", "ZCARD", "ZCOUNT"),
        *("ZLEXCOUNT", "ZINTER", "ZUNION", "ZDIFF", "ZINTERCARD", "ZRANDMEMBER", "ZSCAN"),
        *("XRANGE", "XREVRANGE", "XLEN", "XREAD", "XINFO", "XPENDING"),
        *("GEODIST", "GEOHASH", "GEOPOS", "GEOSEARCH", "GEORADIUS_RO", "GEORADIUSBYMEMBER_RO"),
        *("PFCOUNT", "EVAL_RO", "EVALSHA_RO", "FCALL_RO"),
        *("JSON.GET", "JSON.MGET", "JSON.TYPE", "JSON.STRLEN", "JSON.ARRLEN", "JSON.OBJLEN"),
        *("JSON.OBJKEYS", "JSON.ARRINDEX", "JSON.RESP"),
        *("FT.SEARCH", "FT.INFO", "FT.AGGREGATE", "FT._LIST"),
        *("BF.EXISTS", "BF.MEXISTS", "CF.EXISTS", "CMS.QUERY", "TOPK.LIST"),
    }
)


def is_read(name: str) -> bool:
    """Whether the command, in capitals, can change nothing."""
    return name in _READS
