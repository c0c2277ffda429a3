"""The MongoDB front: logins, users, roles and the replica set here, everything else by FerretDB.

Each client connection owns one to FerretDB, opened with its first command that needs it. Commands
are checked (logged in, allowed by a role, primary) and then passed as the bytes they came in.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import scram
import transactions
import users as roles
import wire
from bson import Binary
from replica_set import ReplicaSet, ReplicaSetError
from users import UserError, Users
from wire import Message

SELF_SECONDS = 2.0
Document = dict[str, Any]


class Refused(Exception):
    """An error document: code, name, message."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.code, self.name = code, name


class Front:
    """What all connections share. `authorised` is whether logins are required."""

    def __init__(
        self, users: Users, replica_set: ReplicaSet, ferretdb: Path, port: int, authorised: bool
    ) -> None:
        self.users = users
        self.replica_set = replica_set
        self.ferretdb = ferretdb
        self.port = port
        self.authorised = authorised
        self.identity = secrets.token_hex(12)
        self.shutdown = asyncio.Event()
        self.transactions = transactions.Transactions()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it leaves."""
        connection = Connection(self, writer.get_extra_info("peername"))
        gone = (asyncio.IncompleteReadError, ConnectionError, OSError, wire.Malformed)
        try:
            with contextlib.suppress(*gone):
                while True:
                    message = wire.parse(await wire.read_raw(reader))
                    answer = await connection.answer(message)
                    if not message.more:
                        writer.write(answer)
                        await writer.drain()
        finally:
            with contextlib.suppress(*gone):
                await connection.left()
            connection.close()
            writer.close()


class Connection:
    """One client: who it is logged in as, and its line to FerretDB."""

    def __init__(self, front: Front, peer: Any) -> None:
        self._front = front
        self._local = bool(peer) and str(peer[0]) in ("127.0.0.1", "::1")
        self._logged_in: set[tuple[str, str]] = set()
        self._talk: scram.Conversation | None = None
        self._talk_database = ""
        self._line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def answer(self, message: Message) -> bytes:
        """The whole answer, header included."""
        try:
            self._check(message)
            own = self._own(message.command)
            if own is not None:
                document = own(message.body, message.database)
                if asyncio.iscoroutine(document):
                    document = await document
                return message.reply(document | {"ok": 1.0})
            return await self._pass(message)
        except (Refused, UserError, ReplicaSetError) as refused:
            return message.reply(
                {
                    "ok": 0.0,
                    "errmsg": str(refused),
                    "code": refused.code,
                    "codeName": refused.name,
                }
            )

    async def left(self) -> None:
        """Undo what the client left open."""
        await self._front.transactions.left(id(self), self._ask)

    def close(self) -> None:
        if self._line:
            self._line[1].close()

    # -- what may be run -----------------------------------------------------------------------

    def _check(self, message: Message) -> None:
        command, database = message.command, message.database
        if command in roles.OPEN:
            return
        if self._front.authorised and not self._exempt(command, database):
            if not self._logged_in:
                raise Refused(13, "Unauthorized", f"Command {command} requires authentication")
            if not self._front.users.allowed(self._logged_in, _acts_as(message), database):
                shown = {name: message.body[name] for name in list(message.body)[:1]}
                text = f"not authorized on {database} to execute command {shown}"
                raise Refused(13, "Unauthorized", text)
        if not self._front.replica_set.writable and not command.startswith("replSet"):
            writes = command in roles.WRITE or command.endswith(("User", "Users"))
            if writes or command in roles.READ:
                raise Refused(10107, "NotWritablePrimary", "not primary")

    def _exempt(self, command: str, database: str) -> bool:
        """The localhost exception: while there is no user at all."""
        if self._front.users or not self._local or database != "admin":
            return False
        return command in ("createUser", "replSetInitiate", "replSetGetStatus")

    def _own(self, command: str) -> "Callable[[Mapping[str, Any], str], Any] | None":
        return {
            "hello": self._hello,
            "isMaster": self._is_master,
            "ismaster": self._is_master,
            "_isSelf": lambda body, database: {"id": self._front.identity},
            "saslStart": self._sasl_start,
            "saslContinue": self._sasl_continue,
            "logout": self._logout,
            "connectionStatus": self._connection_status,
            "endSessions": lambda body, database: {},
            "createUser": self._create_user,
            "updateUser": self._update_user,
            "dropUser": self._drop_user,
            "dropAllUsersFromDatabase": lambda body, database: {
                "n": self._front.users.drop_all(database)
            },
            "grantRolesToUser": self._grant,
            "revokeRolesFromUser": self._revoke,
            "usersInfo": lambda body, database: {
                "users": self._front.users.info(database, body["usersInfo"])
            },
            "replSetInitiate": self._initiate,
            "replSetReconfig": self._reconfigure,
            "replSetGetStatus": lambda body, database: self._front.replica_set.status(),
            "replSetGetConfig": self._get_config,
            "setFeatureCompatibilityVersion": lambda body, database: {},
            "listDatabases": self._list_databases,
            "shutdown": self._shutdown,
        }.get(command)

    # -- handshake and login -------------------------------------------------------------------

    def _is_master(self, body: Mapping[str, Any], database: str) -> Document:
        legacy = self._hello(body, database, legacy=True)
        return legacy | ({"helloOk": True} if body.get("helloOk") else {})

    def _hello(self, body: Mapping[str, Any], database: str, legacy: bool = False) -> Document:
        answer: Document = self._front.replica_set.hello(legacy)
        answer |= {
            "maxBsonObjectSize": 16 * 1024 * 1024,
            "maxMessageSizeBytes": wire.MAX_MESSAGE_BYTES,
            "maxWriteBatchSize": 100_000,
            "localTime": datetime.now(UTC),
            "logicalSessionTimeoutMinutes": 30,
            "connectionId": id(self) & 0x7FFFFFFF,
            "minWireVersion": 0,
            "maxWireVersion": 21,
            "readOnly": False,
        }
        if asked := body.get("saslSupportedMechs"):
            known_database, _, name = str(asked).partition(".")
            if mechanisms := self._front.users.mechanisms(known_database, name):
                answer["saslSupportedMechs"] = mechanisms
        if start := body.get("speculativeAuthenticate"):
            # A speculative login that fails is left out; the client then tries aloud.
            with contextlib.suppress(Refused):
                spoken = self._sasl_start(start, str(start.get("db", "admin")))
                answer["speculativeAuthenticate"] = spoken
        return answer

    def _sasl_start(self, body: Mapping[str, Any], database: str) -> Document:
        mechanism = str(body.get("mechanism", ""))
        if mechanism not in scram.ITERATIONS:
            text = f"Received authentication for mechanism {mechanism} which is not enabled"
            raise Refused(334, "MechanismUnavailable", text)
        options = body.get("options") or {}
        try:
            self._talk, challenge = scram.Conversation.start(
                mechanism,
                bytes(body["payload"]),
                bool(options.get("skipEmptyExchange")),
                lambda name: self._front.users.keys(database, name, mechanism),
            )
        except scram.Denied as denied:
            raise Refused(18, "AuthenticationFailed", "Authentication failed.") from denied
        self._talk_database = database
        return {"conversationId": 1, "done": False, "payload": Binary(challenge)}

    def _sasl_continue(self, body: Mapping[str, Any], database: str) -> Document:
        talk = self._talk
        try:
            if talk is None:
                raise scram.Denied("no login under way")
            payload = talk.step(bytes(body["payload"]))
        except (scram.Denied, ValueError) as denied:
            self._talk = None
            raise Refused(18, "AuthenticationFailed", "Authentication failed.") from denied
        if talk.done:
            self._logged_in.add((self._talk_database, talk.user))
            self._talk = None
        return {"conversationId": 1, "done": talk.done, "payload": Binary(payload)}

    def _logout(self, body: Mapping[str, Any], database: str) -> Document:
        self._logged_in = {who for who in self._logged_in if who[0] != database}
        return {}

    def _connection_status(self, body: Mapping[str, Any], database: str) -> Document:
        who = sorted(self._logged_in)
        info = [self._front.users.info(place, name) for place, name in who]
        return {
            "authInfo": {
                "authenticatedUsers": [{"user": name, "db": place} for place, name in who],
                "authenticatedUserRoles": [r for found in info for u in found for r in u["roles"]],
            }
        }

    # -- users ---------------------------------------------------------------------------------

    def _create_user(self, body: Mapping[str, Any], database: str) -> Document:
        if not body.get("pwd"):
            raise Refused(2, "BadValue", "Must provide a 'pwd' field for all user documents")
        name, listed = str(body["createUser"]), body.get("roles", [])
        self._front.users.create(database, name, str(body["pwd"]), listed)
        return {}

    def _update_user(self, body: Mapping[str, Any], database: str) -> Document:
        name = str(body["updateUser"])
        self._front.users.update(database, name, body.get("pwd"), body.get("roles"))
        return {}

    def _drop_user(self, body: Mapping[str, Any], database: str) -> Document:
        self._front.users.drop(database, str(body["dropUser"]))
        return {}

    def _grant(self, body: Mapping[str, Any], database: str) -> Document:
        self._front.users.grant(database, str(body["grantRolesToUser"]), body["roles"], True)
        return {}

    def _revoke(self, body: Mapping[str, Any], database: str) -> Document:
        self._front.users.grant(database, str(body["revokeRolesFromUser"]), body["roles"], False)
        return {}

    async def _list_databases(self, body: Mapping[str, Any], database: str) -> Document:
        raw = wire.request(dict(body) | {"$db": "admin"})
        answer = wire.answer(await self._ask(raw))
        visible = self._front.users.databases(self._logged_in) if self._front.authorised else None
        if visible is not None:
            answer["databases"] = [db for db in answer["databases"] if db["name"] in visible]
        return answer

    # -- replica set and server ----------------------------------------------------------------

    async def _initiate(self, body: Mapping[str, Any], database: str) -> Document:
        config = dict(body["replSetInitiate"] or {})
        for member in config.get("members", []):
            if self._front.replica_set.config is None:
                await self._must_be_me(str(member["host"]))
        self._front.replica_set.initiate(config, f"localhost:{self._front.port}")
        return {}

    async def _must_be_me(self, host: str) -> None:
        """As mongod does: call the address and see that the one who answers is this server."""
        name, _, port = host.rpartition(":")
        text = f"No host described in new configuration maps to this node: {host}"
        try:
            async with asyncio.timeout(SELF_SECONDS):
                reader, writer = await asyncio.open_connection(name or host, int(port or 27017))
                writer.write(wire.request({"_isSelf": 1, "$db": "admin"}))
                answer = wire.answer(await wire.read_raw(reader))
                writer.close()
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
            raise Refused(93, "InvalidReplicaSetConfig", f"{text} ({error})") from error
        if answer.get("id") != self._front.identity:
            raise Refused(93, "InvalidReplicaSetConfig", text)

    def _reconfigure(self, body: Mapping[str, Any], database: str) -> Document:
        self._front.replica_set.reconfigure(dict(body["replSetReconfig"]))
        return {}

    def _get_config(self, body: Mapping[str, Any], database: str) -> Document:
        config = self._front.replica_set.config
        if config is None:
            raise self._front.replica_set.not_initialised()
        return {"config": config}

    def _shutdown(self, body: Mapping[str, Any], database: str) -> Document:
        self._front.shutdown.set()
        return {}

    # -- FerretDB ------------------------------------------------------------------------------

    async def _pass(self, message: Message) -> bytes:
        try:
            if message.opcode != wire.OP_MSG:
                return await self._ask(message.raw)
            raw = await self._front.transactions.run(message, id(self), self._ask)
        except transactions.NoTransaction as error:
            text = f"Given transaction number does not match any in-progress transactions {error}"
            raise Refused(251, "NoSuchTransaction", text) from error
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            self._line = None
            raise Refused(91, "ShutdownInProgress", f"the server is not there: {error}") from error
        return raw

    async def _ask(self, raw: bytes) -> bytes:
        if self._line is None:
            self._line = await asyncio.open_unix_connection(str(self._front.ferretdb))
        reader, writer = self._line
        writer.write(raw)
        await writer.drain()
        return await wire.read_raw(reader)


def _acts_as(message: Message) -> str:
    """An aggregation that writes counts as a write."""
    if message.command == "aggregate":
        stages = message.body.get("pipeline") or []
        if any(isinstance(stage, Mapping) and {"$out", "$merge"} & set(stage) for stage in stages):
            return "insert"
    return message.command
