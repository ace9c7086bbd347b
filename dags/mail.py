"""E-mail the way this Airflow sends it: by its connection `smtp_default`, through its SMTP provider.

Belongs here: handing a message to the provider. Does not: the message (pipeline/notify/digest.py). Where
Airflow has no such connection, the environment's server is asked, as without Airflow (pipeline/mail.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config.settings import Settings

CONNECTION = "smtp_default"  # the provider's own default


def post(settings: Settings, to: Sequence[str], subject: str, text: str) -> None:
    """Send a message.

    Raises:
        NotDelivered: the server of Airflow's connection, or without one the environment's, did not accept it.
    """
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    from pipeline import mail

    try:
        Connection.get(CONNECTION)
    except AirflowNotFoundException:
        return mail.post(settings, to, subject, text)
    return _by_provider(settings.mail_from, to, subject, text)


def _by_provider(sender: str, to: Sequence[str], subject: str, text: str) -> None:
    from smtplib import SMTPException

    from airflow.providers.smtp.hooks.smtp import SmtpHook
    from airflow.sdk.exceptions import AirflowException

    from pipeline.errors import NotDelivered

    try:
        with SmtpHook(CONNECTION) as hook:
            hook.send_email_smtp(
                from_email=hook.from_email or sender,
                to=list(to),
                subject=subject,
                html_content=f"<pre>{escape(text)}</pre>",
            )
    except (AirflowException, SMTPException, OSError) as fault:
        raise NotDelivered(f"Airflow's connection {CONNECTION}: {type(fault).__name__}: {fault}") from fault
