"""E-mail in Airflow: by its own connection where there is one, else by the environment's server."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.utils import db

from dags.installation import installation
from pipeline.errors import NotDelivered
from tests.pipeline.mail_server import mail_server

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Airflow's, on its own code
TO, SUBJECT, TEXT = (
    ["ann@example.com", "bob@example.com"],
    "orders day01: 2 wait",
    "orders day01: 2 wait\n  a < b",
)


@pytest.fixture(autouse=True)
def airflow(datasets: Path) -> None:
    """Airflow's tables: where a connection is looked for that the environment does not have."""
    db.initdb()


def test_airflows_connection_sends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who set up mail for Airflow has set it up for us."""
    with mail_server() as box:
        monkeypatch.setenv(
            "AIRFLOW_CONN_SMTP_DEFAULT",
            f"smtp://127.0.0.1:{box.port}/?disable_ssl=true&disable_tls=true&from_email=airflow%40example.com",
        )
        installation().post(TO, SUBJECT, TEXT)
    (message,) = box.messages
    assert (message["from"], message["to"]) == ("airflow@example.com", ", ".join(TO))
    assert message["subject"] == SUBJECT
    body = message.get_body(("html",))
    assert body
    assert "a &lt; b" in body.get_content()


def test_without_a_connection_the_environments_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same installation sends the same mail from a shell."""
    with mail_server() as box:
        monkeypatch.setenv("VAEWATCH_SMTP_URL", f"smtp://127.0.0.1:{box.port}")
        installation().post(TO, SUBJECT, TEXT)
    assert [message.get_content().splitlines() for message in box.messages] == [TEXT.splitlines()]


def test_a_connection_that_does_not_work_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not gone around: somebody would look for the mail in the wrong place."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_SMTP_DEFAULT", "smtp://ann:secret@127.0.0.1:1/?disable_ssl=true&disable_tls=true"
    )
    with pytest.raises(NotDelivered, match="connection smtp_default: ConnectionRefusedError") as fault:
        installation().post(TO, SUBJECT, TEXT)
    assert "secret" not in str(fault.value)
