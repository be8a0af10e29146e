"""The certificates of a link's gateways: its own CA, one certificate per gateway, and when they are renewed.

The CA belongs to the stage, whose key is kept sealed with it: it signs the two gateways of this link and nothing else.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from skyspan.model.error import SpecError
from skyspan.model.secret import Secret

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CA_DAYS = 3650
"""How long a link's CA lasts."""

DAY_S = 86400.0

BACKDATED_S = 300.0
"""A certificate begins that long before it is made, for gateways whose clocks are a little behind."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate (PEM), its private key, and from when until when it holds (epoch seconds)."""

    certificate: str
    key: Secret
    begins: float
    ends: float

    def due(self, now: float) -> bool:
        """Whether it is to be renewed: the last third of its life has begun, or it is not valid yet."""
        return now < self.begins or now > self.ends - (self.ends - self.begins) / 3


def new_ca(name: str, now: float) -> Issued:
    """A CA that may only sign certificates of gateways, named after the link."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    key = _new_key()
    subject = _name(f"Skyspan {name}"[:64])
    builder = (
        _builder(subject, subject, key, (now, CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
    )
    return _issued(builder.sign(key, hashes.SHA256()), key)


def issue(ca: Issued, identity: str, days: int, now: float) -> Issued:
    """A gateway's certificate; `identity` is its subject alternative name, as IKE demands (RFC 7296, 3.5)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    signer = serialization.load_pem_private_key(ca.key.reveal().encode(), None)
    authority = x509.load_pem_x509_certificate(ca.certificate.encode())
    key = _new_key()
    builder = (
        _builder(authority.subject, _name(identity[:64]), key, (now, days))
        .add_extension(x509.SubjectAlternativeName([_alternative(identity)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
    )
    return _issued(builder.sign(signer, hashes.SHA256()), key)  # type: ignore[arg-type]


def given(certificate: str, key: Secret, where: str) -> Issued:
    """A certificate that the settings give; raises SpecError when it cannot be read or the key is another's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        read = x509.load_pem_x509_certificate(certificate.encode())
        private = serialization.load_pem_private_key(key.reveal().encode(), None)
    except (ValueError, TypeError) as error:
        raise SpecError(
            f"the certificate or the key of {where} cannot be read",
            hint="give both as PEM text, the key without a passphrase",
        ) from error
    if read.public_key() != private.public_key():
        raise SpecError(
            f"the key of {where} does not belong to its certificate",
            hint="give the key that the certificate was requested with",
        )
    return Issued(certificate, key, *_life(read))


def ends_at(certificate: str) -> float:
    """When a certificate (PEM) ends, in epoch seconds."""
    from cryptography import x509

    return _life(x509.load_pem_x509_certificate(certificate.encode()))[1]


def _life(certificate: x509.Certificate) -> tuple[float, float]:
    return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _builder(
    issuer: x509.Name, subject: x509.Name, key: EllipticCurvePrivateKey, life: tuple[float, int]
) -> x509.CertificateBuilder:
    from cryptography import x509

    now, days = life
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_date(now - BACKDATED_S))
        .not_valid_after(_date(now + days * DAY_S))
    )


def _date(stamp: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(stamp, dt.UTC)


def _name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(identity: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ip_address(identity))
    except ValueError:
        return x509.RFC822Name(identity) if "@" in identity else x509.DNSName(identity)


def _usage(*, signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issued(certificate: x509.Certificate, key: EllipticCurvePrivateKey) -> Issued:
    from cryptography.hazmat.primitives import serialization

    text = certificate.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Issued(text, Secret(private.decode()), *_life(certificate))
