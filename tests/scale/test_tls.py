"""``rediss://``: the service speaks TLS to Redis, and trusts only the authority it was told of."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from admission.errors import StoreUnavailable
from admission.store.connection import check_server, open_redis
from tests.ports import free_port
from tests.scale.conftest import binary_of
from tests.scale.servers import PASSWORD, one


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, secret


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls_with_a_known_authority_only(tmp_path: Path, *, trusted: bool) -> None:
    certificate, key = _certificate(tmp_path)
    port = free_port()
    options = (
        *("--tls-port", str(port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
        *("--tls-ca-cert-file", str(certificate)),
    )
    async with one(binary_of("redis"), *options):
        known = f"?ssl_ca_certs={certificate}" if trusted else ""
        client = open_redis(f"rediss://:{PASSWORD}@127.0.0.1:{port}/0{known}")
        if trusted:
            await check_server(client)
        else:
            with pytest.raises(StoreUnavailable):
                await check_server(client)
        await client.aclose()
