"""A plain message by e-mail, through the server that the environment names.

Belongs here: one message, handed to one SMTP server. Does not: what is said, or to whom (notify/digest.py).
Inside Airflow, Airflow's own SMTP connection comes first; see dags/mail.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pipeline.errors import NotDelivered

if TYPE_CHECKING:
    from smtplib import SMTP

    from pipeline.config.settings import Settings

PATIENCE = 10.0  # seconds
# bytes, below what mail allows: some programs show a folded subject as empty
LONGEST_LINE = 900


def server(settings: Settings) -> str:
    """Return the address of the mail server, credentials included.

    Raises:
        NotDelivered: none is named.
    """
    if settings.smtp_url is None:
        raise NotDelivered("no mail server is named: set VAEWATCH_SMTP_URL, like smtp://mail.example:25")
    return settings.smtp_url.get_secret_value()


def post(settings: Settings, to: Sequence[str], subject: str, text: str) -> None:
    """Send a message.

    Raises:
        NotDelivered: no server is configured, or it did not accept the message for every recipient.
    """
    import smtplib
    from email import policy
    from email.message import EmailMessage
    from email.utils import formatdate, make_msgid

    url = server(settings)
    message = EmailMessage(policy=policy.default.clone(max_line_length=LONGEST_LINE))
    message["From"], message["To"], message["Subject"] = settings.mail_from, ", ".join(to), subject
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain="vaewatch")
    message["Auto-Submitted"] = "auto-generated"  # prevents out-of-office replies
    message.set_content(text)
    try:
        with _connected(url) as client:
            refused = client.send_message(message)
    except (smtplib.SMTPException, OSError) as fault:
        raise NotDelivered(f"mail server: {type(fault).__name__}: {fault}") from fault
    except UnicodeError as fault:  # its text would show a piece of the password
        raise NotDelivered(f"mail server: {type(fault).__name__}") from None
    if refused:
        raise NotDelivered(f"mail server: it refused {', '.join(sorted(refused))}")


def _connected(url: str) -> SMTP:
    """Open a connection; before a password is sent, it is encrypted and the certificate checked."""
    import smtplib
    import ssl

    server = urlsplit(url)
    host, checked = server.hostname or "", ssl.create_default_context()
    if server.scheme == "smtps":
        client: SMTP = smtplib.SMTP_SSL(host, server.port or 465, timeout=PATIENCE, context=checked)
    else:
        client = smtplib.SMTP(host, server.port or 25, timeout=PATIENCE)
    try:
        if server.username:
            if server.scheme == "smtp":
                client.starttls(context=checked)
            client.login(unquote(server.username), unquote(server.password or ""))
    except BaseException:
        client.close()
        raise
    return client
