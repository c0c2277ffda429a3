"""A connection that is silent, and a process that was not there to listen."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from plan2_sidecar.engines.resp import SILENCE_SECONDS, Channel
from plan2_sidecar.errors import ConnectionLost


async def _pong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers PING, and nothing else."""
    while command := await reader.read(100):
        if b"PING" in command:
            writer.write(b"+PONG\r\n")
    writer.close()


@pytest.fixture
async def channel() -> AsyncIterator[Channel]:
    server = await asyncio.start_server(_pong, "127.0.0.1", 0)
    channel = await Channel.open("127.0.0.1", server.sockets[0].getsockname()[1], None)
    yield channel
    channel.close()
    server.close()
    await server.wait_closed()


async def test_a_process_that_stood_still_hears_the_server_out(channel: Channel) -> None:
    reply = channel.ask("PING")

    time.sleep(SILENCE_SECONDS + 0.2)  # noqa: ASYNC251  it is the loop that stands still

    assert await reply == b"PONG"


async def test_a_server_that_is_silent_is_given_up(channel: Channel) -> None:
    with pytest.raises(ConnectionLost, match="no reply"):
        await channel.ask("BLPOP")

    assert channel.closed
