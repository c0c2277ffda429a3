"""Keeps a trusted server certificate in the server, over renewals and beside a second replica.

`tick` is level-based: it reads the two Secrets and the webhook's caBundle, makes what is
missing or due, and loads what is to be served. Replicas agree without a lock: a Secret is
created with POST or replaced at the version read, and who comes second takes what the first
one wrote. The order of a renewal is what keeps every handshake valid:

    new authority beside the old one -> caBundle trusts both -> (next tick) new leaf -> serve

Time is passed in. Where the Secrets stand is `secrets`' business.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeVar

from cryptography import x509

from plan2_operator.injector import certificates
from plan2_operator.injector.certificates import Authority, Leaf, Unreadable

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 5

Made = TypeVar("Made", Authority, Leaf)


class NotRegistered(Exception):
    """The webhook's configuration is not there (yet), so nobody can trust a certificate."""


class Contended(Exception):
    """A Secret changed under every attempt to write it; the next tick tries again."""


@dataclass(frozen=True)
class Stored:
    """A Secret's data, and the version a replacement has to name."""

    data: Mapping[str, bytes]
    version: str


class Store(Protocol):
    """Where certificates are kept, and who is told which authority to trust."""

    async def read(self, name: str) -> Stored | None:
        """The Secret, or None."""

    async def create(self, name: str, data: Mapping[str, bytes]) -> bool:
        """Make the Secret; False when somebody else has made it."""

    async def replace(self, name: str, data: Mapping[str, bytes], version: str) -> bool:
        """Write over that version of the Secret; False when it is no longer that one."""

    async def bundle(self) -> bytes:
        """The webhook's caBundle; raises NotRegistered."""

    async def set_bundle(self, bundle: bytes) -> None:
        """Have the API server trust these authorities; raises NotRegistered."""


class Keeper:
    """One replica's view: what it serves, and whether the API server trusts that."""

    def __init__(
        self,
        store: Store,
        *,
        ca_secret: str,
        tls_secret: str,
        server_names: Sequence[str],
        clock: Callable[[], datetime],
        load: Callable[[Leaf], None],
    ) -> None:
        self._store = store
        self._ca_secret = ca_secret
        self._tls_secret = tls_secret
        self._server_names = server_names
        self._clock = clock
        self._load = load
        self.served: Leaf | None = None
        self.authority: Authority | None = None
        self.trusted = False

    async def tick(self) -> None:
        """Bring Secrets, caBundle and the served certificate to where they should be."""
        authority = await self._settled_authority()
        before = certificates.read_bundle(await self._store.bundle())
        if set(before) != set(authority.trusted):
            await self._store.set_bundle(certificates.bundle(authority.trusted))
        leaf = await self._settled_leaf(authority, trusted_before=before)
        if self.served is None or leaf.certificate != self.served.certificate:
            self._load(leaf)
            logger.info("serving a certificate valid to %s", leaf.certificate.not_valid_after_utc)
        self.served, self.authority = leaf, authority
        self.trusted = leaf.issuer in authority.trusted

    async def _settled_authority(self) -> Authority:
        for _ in range(ATTEMPTS):
            stored = await self._store.read(self._ca_secret)
            current = _read(certificates.read_authority, stored, self._ca_secret)
            now = self._clock()
            if current is not None and not certificates.is_due(current.certificate, now):
                return Authority(
                    current.certificate, current.key, certificates.unexpired(current.trusted, now)
                )
            previous = current.trusted if current is not None else await self._last_issuer()
            made = certificates.new_authority(now, previous)
            if await self._write(self._ca_secret, stored, made.data()):
                return made
        raise Contended(self._ca_secret)

    async def _settled_leaf(
        self, authority: Authority, *, trusted_before: Sequence[x509.Certificate]
    ) -> Leaf:
        for _ in range(ATTEMPTS):
            stored = await self._store.read(self._tls_secret)
            current = _read(certificates.read_leaf, stored, self._tls_secret)
            now = self._clock()
            if current is not None and self._good(current, authority, now):
                # The API server learns of a new caBundle a moment after it is written, so the
                # old certificate stays until the new authority was seen in it.
                fresh = authority.certificate not in trusted_before
                if fresh or not self._due(current, authority, now):
                    return current
            made = certificates.new_leaf(authority, self._server_names, now)
            if await self._write(self._tls_secret, stored, made.data()):
                return made
        raise Contended(self._tls_secret)

    def _good(self, leaf: Leaf, authority: Authority, now: datetime) -> bool:
        return (
            now < leaf.certificate.not_valid_after_utc
            and leaf.issuer in authority.trusted
            and certificates.is_signed_by(leaf.certificate, leaf.issuer)
            and certificates.serves(leaf, self._server_names)
        )

    def _due(self, leaf: Leaf, authority: Authority, now: datetime) -> bool:
        return leaf.issuer != authority.certificate or certificates.is_due(leaf.certificate, now)

    async def _last_issuer(self) -> tuple[x509.Certificate, ...]:
        """Who signed what may still be served; for when the authority's Secret is gone."""
        stored = await self._store.read(self._tls_secret)
        leaf = _read(certificates.read_leaf, stored, self._tls_secret)
        return () if leaf is None else (leaf.issuer,)

    async def _write(self, name: str, stored: Stored | None, data: Mapping[str, bytes]) -> bool:
        if stored is None:
            return await self._store.create(name, data)
        return await self._store.replace(name, data, stored.version)


def _read(
    read: Callable[[Mapping[str, bytes]], Made], stored: Stored | None, name: str
) -> Made | None:
    if stored is None:
        return None
    try:
        return read(stored.data)
    except Unreadable as error:
        logger.warning("Secret %s is made anew: %s", name, error)
        return None
