"""Redis commands that carry data, and how to tell them from SQL that begins alike.

Commands that change the connection or the server (SELECT, AUTH, MULTI, SUBSCRIBE, CONFIG …) are
left out: a shared connection cannot serve them, and several are SQL as well.
"""

from collections.abc import Sequence
from typing import Final

from plan2_sidecar.routing.tokens import keywords

READS = keywords(
    """
    BITCOUNT BITFIELD_RO BITPOS DBSIZE DUMP ECHO EXISTS EXPIRETIME GEODIST GEOHASH GEOPOS
    GEORADIUS_RO GEOSEARCH GET GETBIT GETRANGE HEXISTS HGET HGETALL HKEYS HLEN HMGET HRANDFIELD
    HSCAN HSTRLEN HVALS INFO KEYS LCS LINDEX LLEN LPOS LRANGE MEMORY MGET OBJECT PEXPIRETIME
    PFCOUNT PING PTTL RANDOMKEY SCAN SCARD SDIFF SINTER SINTERCARD SISMEMBER SMEMBERS SMISMEMBER
    SORT_RO SRANDMEMBER SSCAN STRLEN SUBSTR SUNION TIME TTL TYPE XINFO XLEN XPENDING XRANGE XREAD
    XREVRANGE ZCARD ZCOUNT ZDIFF ZINTER ZINTERCARD ZLEXCOUNT ZMSCORE ZRANDMEMBER ZRANGE
    ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN
    ZSCORE ZUNION EVALSHA_RO EVAL_RO FCALL_RO GEORADIUSBYMEMBER_RO HEXPIRETIME HPTTL HTTL
    LASTSAVE JSON.GET JSON.MGET JSON.TYPE JSON.OBJKEYS JSON.ARRLEN JSON.STRLEN FT.SEARCH
    """
)
WRITES = keywords(
    """
    APPEND BITFIELD BITOP BLMOVE BLPOP BRPOP COPY DECR DECRBY DEL EVAL EVALSHA EXPIRE EXPIREAT
    FLUSHALL FLUSHDB GEOADD GEOSEARCHSTORE GETDEL GETEX GETSET HDEL HEXPIRE HINCRBY HINCRBYFLOAT
    HMSET HSET HSETNX INCR INCRBY INCRBYFLOAT LINSERT LMOVE LPOP LPUSH LPUSHX LREM LSET LTRIM
    MOVE MSET MSETNX PERSIST PEXPIRE PEXPIREAT PFADD PFMERGE PSETEX PUBLISH RENAME RENAMENX
    RESTORE RPOP RPOPLPUSH RPUSH RPUSHX SADD SDIFFSTORE SET SETBIT SETEX SETNX SETRANGE
    SINTERSTORE SMOVE SORT SPOP SREM SUNIONSTORE TOUCH UNLINK XACK XADD XAUTOCLAIM XCLAIM XDEL
    XGROUP XREADGROUP XTRIM XSETID FCALL GEORADIUS GEORADIUSBYMEMBER HGETDEL HGETEX HPERSIST
    HPEXPIRE HSETEX LMPOP SPUBLISH ZMPOP
    ZADD ZDIFFSTORE ZINCRBY ZINTERSTORE ZPOPMAX ZPOPMIN ZRANGESTORE ZREM
    ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZUNIONSTORE JSON.SET JSON.DEL JSON.MERGE
    JSON.NUMINCRBY JSON.ARRAPPEND CL.THROTTLE FT.CREATE FT.DROPINDEX
    """
)
COMMANDS = READS | WRITES

# `SET <one of these> …` is SQL's way of speaking about the session.
_SET_OBJECTS: Final = keywords(
    "CONSTRAINTS DEFAULT LOCAL NAMES ROLE SCHEMA SESSION TIME TRANSACTION XML"
)
_SET_OPTIONS: Final = keywords("GET KEEPTTL NX XX")
_SET_VALUES: Final = keywords("EX EXAT IFEQ IFNE PX PXAT")
_EXISTS_OBJECTS: Final = keywords("DATABASE DICTIONARY TABLE TEMPORARY VIEW")


def is_command(words: Sequence[str]) -> bool:
    """Whether `words`, split at spaces, are a Redis command rather than SQL."""
    if not words:
        return False
    name = words[0].upper()
    if name not in COMMANDS:
        return False
    rest = [word.upper() for word in words[1:]]
    match name:
        case "SET":
            return _is_set(rest) and rest[0] not in _SET_OBJECTS
        case "GET":
            return len(rest) == 1
        case "EXISTS":
            return bool(rest) and (len(rest) == 1 or rest[0] not in _EXISTS_OBJECTS)
        case "COPY":
            return len(rest) >= 2 and _is_plain(rest)
        case "RENAME":
            return len(rest) == 2
        case "MOVE":
            return len(rest) == 2 and rest[1].isdigit()
        case "RESTORE":
            return len(rest) >= 3 and rest[1].isdigit()
        case _:
            return True


def may_be(words: Sequence[str]) -> bool:
    """Whether what is SQL by its beginning could be a command as well: `SET role admin`."""
    rest = [word.upper() for word in words[1:]]
    return words[:1] != [] and words[0].upper() == "SET" and _is_set(rest)


def is_read(name: str) -> bool:
    """Whether the command of that name changes nothing."""
    return name.upper() in READS


def _is_plain(rest: Sequence[str]) -> bool:
    """`COPY a b`, and not `COPY a FROM STDIN`."""
    return not {"FROM", "TO", "STDIN"} & set(rest) and "(" not in "".join(rest)


def _is_set(rest: Sequence[str]) -> bool:
    """A key, a value, and nothing behind them but options."""
    if len(rest) < 2 or "=" in rest[0] or rest[1].startswith("=") or rest[1] == "TO":
        return False
    options = iter(rest[2:])
    for option in options:
        if option in _SET_VALUES:
            if next(options, None) is None:
                return False
        elif option not in _SET_OPTIONS:
            return False
    return True
