"""The injector's own certificate authority and the server certificate it signs.

Pure: keys and certificates are made and read here and the time is passed in; `keeper` decides
when, and where they are kept. Two certificates apart, so that the server's can change often
while the webhook's caBundle hardly ever does.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE: Final = timedelta(days=3650)
LEAF_LIFE: Final = timedelta(days=90)
# The API server's clock may be behind ours.
SKEW: Final = timedelta(hours=1)

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
BUNDLE: Final = "ca-bundle.crt"
ISSUER: Final = "ca.crt"

Key = ec.EllipticCurvePrivateKey


class Unreadable(ValueError):
    """A Secret that does not hold what it should; it is made anew."""


@dataclass(frozen=True)
class Authority:
    """What signs, and the certificates to trust: its own, and those it took over from."""

    certificate: x509.Certificate
    key: Key
    trusted: tuple[x509.Certificate, ...]

    def data(self) -> dict[str, bytes]:
        """The authority as a Secret's data."""
        return {
            CERTIFICATE: pem(self.certificate),
            KEY: _key_pem(self.key),
            BUNDLE: bundle(self.trusted),
        }


@dataclass(frozen=True)
class Leaf:
    """The server certificate with its key, and the certificate that signed it."""

    certificate: x509.Certificate
    key: Key
    issuer: x509.Certificate

    def data(self) -> dict[str, bytes]:
        """The certificate as a Secret's data, in the form of `kubernetes.io/tls`."""
        return {
            CERTIFICATE: pem(self.certificate),
            KEY: _key_pem(self.key),
            ISSUER: pem(self.issuer),
        }


def new_authority(now: datetime, previous: Iterable[x509.Certificate] = ()) -> Authority:
    """A fresh authority; those of `previous` that have not expired stay trusted beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # A name of its own, so that nobody takes one generation for another.
    name = _name(f"plan2-injector-ca-{serial:x}"[:64])
    certificate = (
        _builder(name, name, key, serial, now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key, (certificate, *unexpired(previous, now)))


def new_leaf(authority: Authority, server_names: Sequence[str], now: datetime) -> Leaf:
    """A server certificate for DNS names and addresses, the first of which is its subject."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    subject = _name(server_names[0][:64])
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = (
        _builder(subject, authority.certificate.subject, key, serial, now, LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer_key, critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_alternative(name) for name in server_names]),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    return Leaf(certificate, key, authority.certificate)


def read_authority(data: Mapping[str, bytes]) -> Authority:
    """The authority in a Secret's data; raises Unreadable."""
    certificate, key = _pair(data)
    trusted = read_bundle(data.get(BUNDLE, b""))
    others = tuple(other for other in trusted if other != certificate)
    return Authority(certificate, key, (certificate, *others))


def read_leaf(data: Mapping[str, bytes]) -> Leaf:
    """The server certificate in a Secret's data; raises Unreadable."""
    certificate, key = _pair(data)
    issuers = read_bundle(data.get(ISSUER, b""))
    if not issuers:
        raise Unreadable(f"{ISSUER} holds no certificate")
    return Leaf(certificate, key, issuers[0])


def read_bundle(text: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM bundle, none for an unreadable one."""
    try:
        return tuple(x509.load_pem_x509_certificates(text)) if text.strip() else ()
    except ValueError:
        return ()


def bundle(certificates: Iterable[x509.Certificate]) -> bytes:
    """The certificates as one PEM bundle."""
    return b"".join(pem(certificate) for certificate in certificates)


def pem(certificate: x509.Certificate) -> bytes:
    """One certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def unexpired(
    certificates: Iterable[x509.Certificate], now: datetime
) -> tuple[x509.Certificate, ...]:
    """Those still valid at `now`."""
    return tuple(one for one in certificates if now < one.not_valid_after_utc)


def is_due(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether two thirds of its life are over."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return now >= certificate.not_valid_before_utc + life * 2 / 3


def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` itself signed the certificate."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def serves(leaf: Leaf, server_names: Iterable[str]) -> bool:
    """Whether the certificate is good for every one of the names."""
    try:
        extension = leaf.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return False
    return {_alternative(name) for name in server_names} <= set(extension.value)


def _pair(data: Mapping[str, bytes]) -> tuple[x509.Certificate, Key]:
    try:
        certificate = x509.load_pem_x509_certificate(data[CERTIFICATE])
        key = serialization.load_pem_private_key(data[KEY], password=None)
    except KeyError as error:
        raise Unreadable(f"{error.args[0]} is missing") from error
    except (ValueError, TypeError) as error:
        raise Unreadable(str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Unreadable(f"{KEY} is not an elliptic curve key")
    if key.public_key() != certificate.public_key():
        raise Unreadable(f"{KEY} is not the key of {CERTIFICATE}")
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, serial: int, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
