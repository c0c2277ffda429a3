"""What the roles of the aclfile may do, on a real Redis and on Dragonfly's stand-in."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import redis
from redis.exceptions import NoPermissionError, ResponseError

from fixtures.fix_engines import make_dragonflydb, make_redis, run
from fixtures.provisioning import made_secret

FOR_APPLICATIONS = """
    SET a 1|GET a|INCR a|EXPIRE a 60|DEL a|LPUSH l 1|SORT l|KEYS *|SCAN 0|DBSIZE|INFO server|ROLE
    EVAL return(1) 0|SCRIPT LOAD return(1)|PUBLISH channel message|CLIENT ID|CLIENT TRACKING OFF
    MULTI|DISCARD|TIME|MEMORY USAGE a|CLIENT TRACKING ON NOLOOP|INFO replication|GETRANGE a 0 9
    UNLINK a|PTTL a
"""
FOR_READERS = "GET a|EXISTS a|SCAN 0|KEYS *|TTL a|INFO server|DBSIZE|PING|CLIENT ID|MULTI|DISCARD"
FOR_NOBODY = """
    CONFIG GET maxmemory|FLUSHALL|FLUSHDB|SHUTDOWN|ACL LIST|ACL SETUSER x|REPLICAOF NO ONE|SAVE
    BGSAVE|MONITOR|MODULE LIST|SWAPDB 0 1
"""
FOR_APPLICATIONS_ALONE = "SET a 1|DEL a|EXPIRE a 60|EVAL return(1) 0|PUBLISH channel message|SORT l"


@dataclass(frozen=True)
class Roles:
    application: "redis.Redis"
    reader: "redis.Redis"


def commands(text: str) -> list[str]:
    return [word.strip() for line in text.strip().splitlines() for word in line.split("|")]


@pytest.fixture(params=["redis", "dragonflydb"], scope="module")
def roles(request: pytest.FixtureRequest) -> Iterator[Roles]:
    admin = made_secret(request.param, {})
    made = make_dragonflydb() if request.param == "dragonflydb" else make_redis()
    aclfile = made.data / "users.acl"
    aclfile.write_text(admin["users.acl"])
    command = [word for word in made.command if not word.startswith("--requirepass=")]
    if "--requirepass" in command:
        command = command[: command.index("--requirepass")]
    option = (
        [f"--aclfile={aclfile}"] if request.param == "dragonflydb" else ["--aclfile", str(aclfile)]
    )
    with run(replace(made, command=(*command, *option))) as server:
        clients = [
            redis.Redis(host=server.host, port=server.port, username=user, password=password)
            for user, password in (
                ("default", admin["app-password"]),
                ("plan2-ro", admin["ro-password"]),
            )
        ]
        yield Roles(*clients)
        for client in clients:
            client.close()


@pytest.mark.parametrize("command", commands(FOR_APPLICATIONS))
def test_an_application_may(roles: Roles, command: str) -> None:
    assert not denied(roles.application, command)


@pytest.mark.parametrize("command", commands(FOR_READERS))
def test_a_reader_may(roles: Roles, command: str) -> None:
    assert not denied(roles.reader, command)


@pytest.mark.parametrize("command", commands(FOR_NOBODY))
def test_neither_may(roles: Roles, command: str) -> None:
    assert denied(roles.application, command)
    assert denied(roles.reader, command)


@pytest.mark.parametrize("command", commands(FOR_APPLICATIONS_ALONE))
def test_a_reader_may_not(roles: Roles, command: str) -> None:
    assert denied(roles.reader, command)


def denied(client: "redis.Redis", command: str) -> bool:
    try:
        client.execute_command(*command.split(" "))
    except NoPermissionError:
        return True
    except ResponseError as error:
        # DISCARD without MULTI and the like: understood and allowed, and of no use here.
        return "permission" in str(error)
    return False
