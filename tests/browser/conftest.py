"""A review page, served by a thread or by `vaewatch review` itself, and a real Chromium in front of it."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from pipeline.config.settings import Settings
from pipeline.installation import Installation
from pipeline.web.alone import LOOPBACK, alone
from tests.browser import chromium
from tests.pipeline.review_data import put, reason, row

REPOSITORY = Path(__file__).resolve().parents[2]
DATASET = """\
dataset: payments
incoming: {path: ../incoming}
columns:
  amount: {type: float, role: numeric}
  fee: {type: float, role: numeric}
  country: {type: string, role: categorical}
"""
EVIL = "<img src=x onerror=\"document.title='broken into'\">"


def fill(here: Installation) -> None:
    """Fill two days of flagged records: six with one cause, one of another, one whose values are scripts.

    Two sampled ones are beside them.
    """
    here.settings.datasets.mkdir()
    (here.settings.datasets / "payments.yaml").write_text(DATASET)
    alike = [row(f"key-{i}", severity=8.0 - i / 2) for i in range(6)]
    other = row("other", severity=3.0, driver="fee", signature="fee↓", reasons=[reason("fee", observed="1")])
    evil = row(
        EVIL, severity=2.5, driver="country", signature="country≠", record={"country": EVIL, "amount": None},
        reasons=[reason("country", observed=EVIL, expected="DE (93%)", low=None, high=None)],
    )  # fmt: skip
    sampled = [
        row(f"sampled-{i}", severity=0.2, kind="sampled", driver="", signature="", reasons=[])
        for i in range(2)
    ]
    put(here.ledger, [*alike, other, evil, *sampled])
    put(here.ledger, [row("yesterday", "2026-01-29", severity=9.0)])


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    """A filled queue."""
    installation = Installation(Settings(home=tmp_path / "home", datasets=tmp_path / "datasets"))
    fill(installation)
    yield installation
    installation.close()


@pytest.fixture
def address(here: Installation) -> Iterator[str]:
    """The page's address with the token, served from a thread: a process takes seconds of a core to start."""
    token = secrets.token_urlsafe(24)
    listening = socket.create_server(("127.0.0.1", 0))
    app = alone(here, "ann", token, hosts=LOOPBACK)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    serving.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/?token={token}"
    server.should_exit = True
    serving.join(timeout=60)  # a record that was opened may be importing torch
    assert not serving.is_alive()


@pytest.fixture
def printed(here: Installation) -> Iterator[str]:
    """The address that the command prints."""
    settings = here.settings
    environment = os.environ | {
        "VAEWATCH_HOME": str(settings.home),
        "VAEWATCH_DATASETS": str(settings.datasets),
    }
    served = subprocess.Popen(
        [sys.executable, "-u", "-m", "pipeline.cli", "review", "--port", "0", "--by", "ann"],
        env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert served.stdout
    found = re.search(r"http://\S+", served.stdout.readline())
    assert found
    yield found[0]
    served.terminate()
    served.wait(timeout=60)


@pytest.fixture(scope="session")
def chromiums(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Chromiums]:
    if why_not := chromium.missing():
        pytest.skip(why_not)
    processes = chromium.Chromiums(tmp_path_factory.mktemp("chromium"))
    yield processes
    processes.close()


@pytest.fixture
def open_browser(chromiums: chromium.Chromiums) -> Iterator[Callable[..., Any]]:
    """A function that opens a browser: of a width, light or dark."""
    with chromiums.browsers() as start:
        yield start
