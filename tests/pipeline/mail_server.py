"""A mail server that keeps what it is sent: aiosmtpd's, on loopback."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


@dataclass
class Mailbox:
    """What arrived, and how to reach the server."""

    port: int
    messages: list[EmailMessage] = field(default_factory=list)
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, to: str, _options: Any) -> str:  # noqa: N802
        """Take or refuse a recipient; the name is aiosmtpd's."""
        if to in self.unknown:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(to)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        """Keep a message; the name is aiosmtpd's."""
        self.messages.append(
            cast("EmailMessage", message_from_bytes(envelope.content, policy=policy.default))
        )
        return "250 kept"

    def check(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        self.logins.append((given.login, given.password))
        return AuthResult(success=given.password == b"s3cret:/@", handled=False)


@contextmanager
def mail_server(tls: ssl.SSLContext | None = None) -> Iterator[Mailbox]:
    """A server that takes messages; with `tls`, after STARTTLS and a login only."""
    with socket.create_server(("127.0.0.1", 0)) as probe:  # the controller cannot be asked for any free port
        box = Mailbox(probe.getsockname()[1])
    more = {"tls_context": tls, "require_starttls": True, "auth_required": True, "authenticator": box.check} if tls else {}  # fmt: skip
    controller = Controller(box, hostname="127.0.0.1", port=box.port, **more)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()
