"""Transactions as mongod has them, over a FerretDB without: one at a time, undone from copies.

While one is open everybody else waits, so nobody sees what may still be undone. Before a
transaction first writes to a collection, the collection is copied; an abort puts the copy back.
A transaction whose client leaves is aborted. What this server's own death interrupts is not
undone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import wire
from users import WRITE

# What a command says about its session, which FerretDB need not see.
_OF_SESSIONS = ("lsid", "txnNumber", "autocommit", "startTransaction", "$clusterTime")
_LARGE = 100_000
Document = dict[str, Any]
Ask = Callable[[bytes], Awaitable[bytes]]


class NoTransaction(Exception):
    """The transaction was aborted, or never was."""


@dataclass
class _Open:
    """An open transaction: whose it is, the copies, the connections it used."""

    identity: tuple[bytes, int]
    copies: dict[tuple[str, str], list[Document]] = field(default_factory=dict)
    connections: set[int] = field(default_factory=set)


class Transactions:
    """What all connections share."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._open: _Open | None = None

    async def run(self, message: wire.Message, connection: int, ask: Ask) -> bytes:
        """The answer to a command, in its transaction or outside of any."""
        body = message.body
        plain = wire.with_body(
            message.raw, {name: body[name] for name in body if name not in _OF_SESSIONS}
        )
        if body.get("autocommit") is not False:
            async with self._turn:
                return await ask(plain)
        identity = (bytes(body["lsid"]["id"]), int(body["txnNumber"]))
        if body.get("startTransaction"):
            await self._turn.acquire()
            self._open = _Open(identity)
        if self._open is None or self._open.identity != identity:
            raise NoTransaction
        self._open.connections.add(connection)
        if message.command in ("commitTransaction", "abortTransaction"):
            await self._end(ask, keep=message.command == "commitTransaction")
            return message.reply({"ok": 1.0})
        if message.command in WRITE:
            await self._copy(self._open, message.database, str(body[message.command]), ask)
        without = {"readConcern", "writeConcern", *_OF_SESSIONS}
        return await ask(
            wire.with_body(message.raw, {name: body[name] for name in body if name not in without})
        )

    async def left(self, connection: int, ask: Ask) -> None:
        """A connection ended: what was open on it is undone."""
        if self._open is not None and connection in self._open.connections:
            await self._end(ask, keep=False)

    async def _copy(self, opened: _Open, database: str, collection: str, ask: Ask) -> None:
        if (database, collection) in opened.copies:
            return
        find = {"find": collection, "batchSize": _LARGE, "singleBatch": True, "$db": database}
        found = wire.answer(await ask(wire.request(find)))
        opened.copies[database, collection] = found.get("cursor", {}).get("firstBatch", [])

    async def _end(self, ask: Ask, *, keep: bool) -> None:
        opened, self._open = self._open, None
        try:
            if opened is not None and not keep:
                for (database, collection), documents in opened.copies.items():
                    await self._put_back(database, collection, documents, ask)
        finally:
            self._turn.release()

    async def _put_back(
        self, database: str, collection: str, documents: list[Document], ask: Ask
    ) -> None:
        every: Mapping[str, Any] = {"q": {}, "limit": 0}
        emptied = {"delete": collection, "deletes": [every], "$db": database}
        await ask(wire.request(emptied))
        if documents:
            again = {"insert": collection, "documents": documents, "$db": database}
            await ask(wire.request(again))
