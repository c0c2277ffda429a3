"""Certificates over the years: two replicas, a Secret store and a clock moved by hand."""

import asyncio
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from plan2_operator.injector import app, certificates, keeper
from plan2_operator.injector.certificates import Leaf
from plan2_operator.injector.keeper import Contended, Keeper, NotRegistered, Stored
from plan2_operator.injector.secrets import Files

NAMES = ("plan2-injector.plan2-system.svc", "127.0.0.1")
CA, TLS = "plan2-injector-ca", "plan2-injector-tls"
DAY = timedelta(days=1)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class MemoryStore:
    """Secrets with versions and the webhook's caBundle, as the API server keeps them."""

    def __init__(self) -> None:
        self.secrets: dict[str, Stored] = {}
        self.trusted = b""
        self.registered = True
        self.writes = 0

    async def read(self, name: str) -> Stored | None:
        found = self.secrets.get(name)
        await asyncio.sleep(0)  # somebody else may write between a read and what follows it
        return found

    async def create(self, name: str, data: Mapping[str, bytes]) -> bool:
        if name in self.secrets:
            return False
        self._put(name, data, "1")
        return True

    async def replace(self, name: str, data: Mapping[str, bytes], version: str) -> bool:
        if name not in self.secrets or self.secrets[name].version != version:
            return False
        self._put(name, data, str(int(version) + 1))
        return True

    async def bundle(self) -> bytes:
        if not self.registered:
            raise NotRegistered("webhook")
        return self.trusted

    async def set_bundle(self, bundle: bytes) -> None:
        self.writes += 1
        self.trusted = bundle

    def _put(self, name: str, data: Mapping[str, bytes], version: str) -> None:
        self.writes += 1
        self.secrets[name] = Stored(dict(data), version)


class Replica:
    """A keeper with the TLS context it loads into."""

    def __init__(self, store: keeper.Store, clock: Clock, names: tuple[str, ...] = NAMES) -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.loads = 0
        self.keeper = Keeper(
            store,
            ca_secret=CA,
            tls_secret=TLS,
            server_names=names,
            clock=clock,
            load=self._load,
        )

    def _load(self, leaf: Leaf) -> None:
        self.loads += 1
        app.load(self.context, leaf)

    async def tick(self) -> None:
        await self.keeper.tick()

    @property
    def leaf(self) -> Leaf:
        assert self.keeper.served is not None
        return self.keeper.served


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def bundle(store: MemoryStore) -> list[x509.Certificate]:
    return list(certificates.read_bundle(store.trusted))


def is_trusted(store: MemoryStore, replica: Replica) -> bool:
    """Whether the API server, with its caBundle of now, accepts what the replica serves."""
    served = replica.leaf.certificate
    return any(certificates.is_signed_by(served, issuer) for issuer in bundle(store))


def handshake(store: MemoryStore, replica: Replica, name: str) -> None:
    """A TLS handshake in memory, as the API server makes it; raises ssl.SSLError."""
    client_context = ssl.create_default_context(cadata=store.trusted.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = replica.context.wrap_bio(to_server, to_client, server_side=True)
    pending = [client, server]
    for _ in range(8):
        for side in list(pending):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            pending.remove(side)
    assert not pending


async def test_the_first_round_makes_everything_and_is_trusted(
    store: MemoryStore, clock: Clock
) -> None:
    replica = Replica(store, clock)

    await replica.tick()

    assert replica.keeper.trusted
    assert is_trusted(store, replica)
    assert set(store.secrets) == {CA, TLS}


async def test_a_client_that_trusts_the_bundle_shakes_hands(
    store: MemoryStore, clock: Clock
) -> None:
    clock.now = datetime.now(UTC)  # OpenSSL looks at the machine's clock
    replica = Replica(store, clock)

    await replica.tick()

    handshake(store, replica, NAMES[0])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(store, replica, "elsewhere.svc")


async def test_a_loaded_renewal_is_what_the_next_handshake_sees(
    store: MemoryStore, clock: Clock
) -> None:
    clock.now = datetime.now(UTC)
    replica = Replica(store, clock)
    await replica.tick()
    store.secrets.clear()
    store.trusted = b""

    await replica.tick()

    assert replica.loads == 2
    handshake(store, replica, NAMES[0])


async def test_a_quiet_round_writes_and_loads_nothing(store: MemoryStore, clock: Clock) -> None:
    replica = Replica(store, clock)
    await replica.tick()
    writes = store.writes

    clock.now += 30 * DAY
    await replica.tick()

    assert (store.writes, replica.loads) == (writes, 1)


async def test_two_replicas_that_start_together_agree(store: MemoryStore, clock: Clock) -> None:
    replicas = [Replica(store, clock), Replica(store, clock)]

    await asyncio.gather(*(replica.tick() for replica in replicas))
    await asyncio.gather(*(replica.tick() for replica in replicas))

    assert replicas[0].leaf.certificate == replicas[1].leaf.certificate
    assert len(bundle(store)) == 1
    assert all(is_trusted(store, replica) for replica in replicas)


async def test_the_leaf_is_renewed_after_two_thirds_of_its_life(
    store: MemoryStore, clock: Clock
) -> None:
    replica = Replica(store, clock)
    await replica.tick()
    first = replica.leaf.certificate

    clock.now += 59 * DAY
    await replica.tick()
    assert replica.leaf.certificate == first

    clock.now += 2 * DAY
    await replica.tick()
    assert replica.leaf.certificate != first
    assert len(bundle(store)) == 1


async def test_the_other_replica_takes_the_renewed_leaf(store: MemoryStore, clock: Clock) -> None:
    one, other = Replica(store, clock), Replica(store, clock)
    await one.tick()
    await other.tick()

    clock.now += 61 * DAY
    await one.tick()
    await other.tick()

    assert one.leaf.certificate == other.leaf.certificate
    assert other.loads == 2


async def test_a_new_authority_is_trusted_before_it_signs(store: MemoryStore, clock: Clock) -> None:
    replica = Replica(store, clock)
    await replica.tick()
    authority = bundle(store)[0]
    clock.now = authority.not_valid_before_utc + certificates.AUTHORITY_LIFE * 2 / 3 - DAY
    await replica.tick()
    before = replica.leaf.certificate

    clock.now += 2 * DAY
    await replica.tick()

    assert len(bundle(store)) == 2
    assert replica.leaf.certificate == before
    assert is_trusted(store, replica)

    await replica.tick()

    assert replica.leaf.certificate != before
    assert replica.leaf.issuer != authority
    assert is_trusted(store, replica)


async def test_ten_years_of_two_replicas_without_one_untrusted_moment(
    store: MemoryStore, clock: Clock
) -> None:
    replicas = [Replica(store, clock), Replica(store, clock)]
    issuers = set()
    for day in range(0, 11 * 365, 5):
        clock.now = datetime(2026, 1, 1, tzinfo=UTC) + day * DAY
        for replica in replicas:
            await replica.tick()
            for each in replicas:
                assert each.keeper.served is None or is_trusted(store, each)
        issuers.add(replicas[0].leaf.issuer)
        assert clock.now < replicas[0].leaf.certificate.not_valid_after_utc

    assert len(issuers) == 2


async def test_an_expired_authority_leaves_the_bundle(store: MemoryStore, clock: Clock) -> None:
    replica = Replica(store, clock)
    await replica.tick()
    old = bundle(store)[0]
    clock.now = old.not_valid_after_utc - DAY
    await replica.tick()
    await replica.tick()
    assert old in bundle(store)

    clock.now += 2 * DAY
    await replica.tick()

    assert old not in bundle(store)
    assert is_trusted(store, replica)


async def test_a_bundle_that_somebody_emptied_is_written_again(
    store: MemoryStore, clock: Clock
) -> None:
    replica = Replica(store, clock)
    await replica.tick()

    store.trusted = b""
    await replica.tick()

    assert is_trusted(store, replica)


@pytest.mark.parametrize("name", [CA, TLS])
async def test_a_deleted_secret_is_made_again_without_an_untrusted_moment(
    store: MemoryStore, clock: Clock, name: str
) -> None:
    one, other = Replica(store, clock), Replica(store, clock)
    await one.tick()
    await other.tick()

    del store.secrets[name]
    await one.tick()

    assert is_trusted(store, one)
    assert is_trusted(store, other)
    await other.tick()
    await one.tick()
    assert is_trusted(store, one)
    assert is_trusted(store, other)


@pytest.mark.parametrize("name", [CA, TLS])
@pytest.mark.parametrize(
    "data",
    [{}, {"tls.crt": b"not a certificate", "tls.key": b"no key"}],
    ids=["empty", "garbage"],
)
async def test_a_spoilt_secret_is_made_anew(
    store: MemoryStore, clock: Clock, name: str, data: dict[str, bytes]
) -> None:
    replica = Replica(store, clock)
    await replica.tick()

    store.secrets[name] = Stored(data, "7")
    await replica.tick()
    await replica.tick()

    assert store.secrets[name].version == "8"
    assert is_trusted(store, replica)


async def test_another_service_name_is_another_leaf(store: MemoryStore, clock: Clock) -> None:
    await Replica(store, clock).tick()
    renamed = Replica(store, clock, names=("other.plan2-system.svc",))

    await renamed.tick()

    assert certificates.serves(renamed.leaf, ["other.plan2-system.svc"])


async def test_nothing_is_trusted_while_the_webhook_is_not_registered(
    store: MemoryStore, clock: Clock
) -> None:
    store.registered = False
    replica = Replica(store, clock)

    with pytest.raises(NotRegistered):
        await replica.tick()

    assert not replica.keeper.trusted


async def test_a_secret_that_never_stops_changing_is_given_up_for_this_round(clock: Clock) -> None:
    class Refusing(MemoryStore):
        async def create(self, name: str, data: Mapping[str, bytes]) -> bool:
            return False

    with pytest.raises(Contended):
        await Replica(Refusing(), clock).tick()


async def test_files_made_by_others_are_loaded_whenever_they_change(
    tmp_path: Path, clock: Clock
) -> None:
    loaded: list[tuple[Path, Path]] = []
    files = Files(tmp_path, lambda certificate, key: loaded.append((certificate, key)))
    with pytest.raises(FileNotFoundError):
        await files.tick()
    assert not files.trusted

    authority = certificates.new_authority(clock())
    for _ in range(2):
        for name, data in certificates.new_leaf(authority, NAMES, clock()).data().items():
            (tmp_path / name).write_bytes(data)
        await files.tick()
        await files.tick()

    assert loaded == [(tmp_path / "tls.crt", tmp_path / "tls.key")] * 2
    assert files.trusted
