# SPDX-License-Identifier: Apache-2.0
"""TLS to a real Mosquitto: verified unless `insecure` is spelt out; and two daemons of one name."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Make = Callable[..., Any]
Wait = Callable[..., None]
CAMERA = "v4l2:/dev/video99"


class Authority:
    """A certificate authority of our own, and the server certificates it made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        self.sign("ca", self.name, self.key, constraint, days=2)

    def sign(
        self, file: str, subject: x509.Name, key: Any, extension: x509.ExtensionType, days: float
    ) -> None:
        now = datetime.datetime.now(datetime.timezone.utc)
        begin = now - datetime.timedelta(days=10)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(self.key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        (self.folder / f"{file}.pem").write_bytes(pem)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (self.folder / f"{file}.key").write_bytes(private)

    def server(self, host: str, days: float = 2) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        self.sign("server", name, ec.generate_private_key(ec.SECP256R1()), names, days)


@pytest.fixture
def tls_broker(make_broker: Make, tmp_path: Path) -> Callable[..., Any]:
    def make(host: str = "localhost", days: float = 2) -> Any:
        Authority(tmp_path).server(host, days)
        broker = make_broker(
            f"certfile {tmp_path / 'server.pem'}", f"keyfile {tmp_path / 'server.key'}"
        )
        broker.start()
        broker.address = f"mqtts://localhost:{broker.port}"
        return broker

    return make


class Address:
    """What serve() asks of a broker, with another url."""

    def __init__(self, url: str) -> None:
        self.url = url


def test_a_verified_broker(tls_broker: Make, serve: Make) -> None:
    broker = tls_broker()
    daemon = serve(Address(broker.address), {"frames": 5}, mqtt='ca_file = "ca.pem"')
    assert daemon.ends() == 0
    assert "NOT verified" not in daemon.said()


@pytest.mark.parametrize(
    ("host", "days", "keys", "said"),
    [
        ("localhost", 2, "", "certificate is not accepted: unable to get local issuer"),
        ("elsewhere", 2, 'ca_file = "ca.pem"', "certificate is not accepted: Hostname mismatch"),
        ("localhost", -1, 'ca_file = "ca.pem"', "certificate is not accepted: certificate has exp"),
    ],
)
def test_a_broker_that_is_not_who_it_says(
    tls_broker: Make, serve: Make, wait_for: Wait, host: str, days: float, keys: str, said: str
) -> None:
    broker = tls_broker(host, days)
    daemon = serve(Address(broker.address), {"frames": None}, uri=CAMERA, mqtt=keys)
    wait_for(lambda: said in daemon.said(), said)
    assert daemon.process.poll() is None
    assert "connected to" not in daemon.said()


def test_insecure_is_said_aloud(tls_broker: Make, serve: Make) -> None:
    broker = tls_broker("elsewhere")
    daemon = serve(Address(broker.address), {"frames": 5}, mqtt="insecure = true")
    assert daemon.ends() == 0
    assert "the broker's certificate is NOT verified" in daemon.said()


def test_a_ca_file_that_is_none_is_a_config_error(serve: Make, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    daemon = serve(Address("mqtts://localhost:1"), {}, mqtt='ca_file = "ca.pem"')
    assert daemon.ends() == 78
    assert f"{tmp_path}/ca.pem: not usable as CA file" in daemon.said().splitlines()[-1]


def test_two_daemons_of_one_name(broker: Any, serve: Make, wait_for: Wait, tmp_path: Path) -> None:
    first = serve(broker, {"frames": None}, uri=CAMERA)
    wait_for(lambda: "connected" in first.said(), "a connection")
    (tmp_path / "second").mkdir()
    serve(broker, {"frames": None}, uri=CAMERA, folder=tmp_path / "second")
    second = tmp_path / "second" / "serve.log"
    reason = "does a second daemon named n1 run?"
    wait_for(lambda: reason in first.said() + second.read_text(), "the reason in a log", 30)
    assert first.said().count("connected to") <= 4
