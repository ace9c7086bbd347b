"""E-mail without Airflow: a real server takes it, or the fault is reported without the password."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.config.dataset import Dataset
from pipeline.config.settings import Settings, load_settings
from pipeline.errors import ConfigError, NotDelivered
from pipeline.installation import Installation
from pipeline.mail import post
from pipeline.notify import digest

from .mail_server import Mailbox, mail_server
from .review_data import row, score

PASSWORD = "s3cret%3A%2F%40"  # noqa: S105  # of a server that lives for a test; as an address holds it


@pytest.fixture
def relay() -> Iterator[Mailbox]:
    """A server that takes anything."""
    with mail_server() as box:
        yield box


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate for 127.0.0.1, signed by itself, in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vaewatch test")])
    signed = (
        x509
        .CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = tmp_path / "server.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + signed.public_bytes(pem)
    )
    return path


@pytest.fixture
def guarded(certificate: Path) -> Iterator[Mailbox]:
    """A server that wants encryption and a login."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with mail_server(tls) as box:
        yield box


def settings(url: str | None, home: Path = Path("unused")) -> Settings:
    return Settings(home=home, smtp_url=url, mail_from="vaewatch@example.com")  # type: ignore[arg-type]  # as the environment gives it


def dataset(*addresses: str) -> Dataset:
    columns = {"amount": {"type": "float", "role": "numeric"}}
    plain = {"dataset": "payments", "incoming": {"path": "in"}, "columns": columns}
    return Dataset.model_validate({**plain, "review": {"email": list(addresses)}})


def test_a_digest_arrives_in_every_mailbox(relay: Mailbox, tmp_path: Path) -> None:
    """The first line is the subject, so that a night can be judged without opening it."""
    here = Installation(settings(f"smtp://127.0.0.1:{relay.port}", tmp_path))
    said: list[str] = []
    digest.tell(here, dataset("ann@example.com"), said.append)
    assert (said, relay.messages) == ([], [])  # nothing waits: nothing is sent
    score(here, [row("k0", record={"country": "Österreich"})])
    text = digest.digest(here, dataset(), "2026-01-30")
    digest.tell(here, dataset("ann@example.com", "bob@example.com"), said.append)
    here.close()
    assert text
    assert said == []
    (message,) = relay.messages
    assert message["to"] == "ann@example.com, bob@example.com"
    assert message["from"] == "vaewatch@example.com"
    assert message["subject"] == text.splitlines()[0]
    assert message.get_content().splitlines() == text.splitlines()


def test_a_password_goes_over_an_encrypted_connection_only(
    guarded: Mailbox, relay: Mailbox, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that offers no encryption, or another one's certificate, does not get to see it."""
    login, to = f"smtp://ann:{PASSWORD}@127.0.0.1", ["bob@example.com"]
    with pytest.raises(NotDelivered, match="CERTIFICATE_VERIFY_FAILED"):
        post(settings(f"{login}:{guarded.port}"), to, "s", "t")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    post(settings(f"{login}:{guarded.port}"), to, "s", "t")
    assert guarded.logins == [(b"ann", b"s3cret:/@")]
    assert len(guarded.messages) == 1
    with pytest.raises(NotDelivered, match="STARTTLS"):
        post(settings(f"{login}:{relay.port}"), to, "s", "t")
    assert relay.messages == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, "VAEWATCH_SMTP_URL"),
        ("smtp://127.0.0.1:1", "ConnectionRefusedError"),
        ("smtp://ann:wrong@127.0.0.1:{port}", "SMTPAuthenticationError"),
        ("smtp://ann:schl%C3%BCssel@127.0.0.1:{port}", "UnicodeEncodeError"),
    ],
)
def test_what_is_not_delivered_is_told_without_the_password(
    url: str | None, said: str, guarded: Mailbox, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is read by more people than may send mail."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(NotDelivered, match=said) as fault:
        post(settings(url and url.format(port=guarded.port)), ["bob@example.com"], "s", "t")
    assert not [word for word in ("wrong", "schl", "ü", "xfc") if word in str(fault.value)]


def test_a_recipient_that_is_refused_is_named(relay: Mailbox) -> None:
    """The others get theirs."""
    relay.unknown.add("gone@example.com")
    with pytest.raises(NotDelivered, match=r"refused gone@example\.com"):
        post(
            settings(f"smtp://127.0.0.1:{relay.port}"),
            ["gone@example.com", "bob@example.com"],
            "s",
            "t",
        )
    assert len(relay.messages) == 1


@pytest.mark.parametrize("url", ["mail.example", "http://mail.example", "smtp://", "smtp://a b@c/d"])
def test_a_server_that_is_none_is_refused_at_the_start(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the night, when there is something to say; and without showing what may be a password."""
    monkeypatch.setenv("VAEWATCH_SMTP_URL", url)
    with pytest.raises(ConfigError, match=r"VAEWATCH_SMTP_URL: .*smtps://") as fault:
        load_settings()
    assert url not in str(fault.value).replace("smtp://host", "").replace("smtps://host", "")


def test_the_settings_do_not_show_the_password() -> None:
    """Settings end up in tracebacks."""
    assert "s3cret" not in repr(settings(f"smtp://ann:{PASSWORD}@mail.example"))
