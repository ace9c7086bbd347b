"""The digest: said where something waits, silent where nothing does, and never the reason that a batch is not
scored.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Dataset
from pipeline.installation import Installation
from pipeline.review import digest, judging
from pipeline.settings import Settings

from .review_data import put, row

SECRET = "VAEWATCH_TEST__WEBHOOK"  # noqa: S105  # the name of a variable


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(Settings(home=tmp_path / "home", datasets=tmp_path / "datasets"))
    yield installation
    installation.close()


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]], list[int]]]:
    """A server that keeps what it is sent, and answers with the last status it was told."""
    received: list[dict[str, Any]] = []
    status = [200]

    class Keeps(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # http.server's name
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(status[-1])
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Keeps)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/a-secret-path", received, status
    server.shutdown()
    server.server_close()


def dataset(**review: Any) -> Dataset:
    plain = {
        "dataset": "payments",
        "incoming": {"path": "in"},
        "columns": {"amount": {"type": "float", "role": "numeric"}},
    }
    return Dataset.model_validate({**plain, "review": review})


def test_it_says_how_many_and_the_three_most_severe(here: Installation) -> None:
    """What a person reads on a telephone before breakfast."""
    put(here.ledger, [row(f"k{i}", severity=3.0 + i) for i in range(5)])
    text = digest.digest(here, dataset(page="https://review.example/"), "2026-01-30")
    assert text
    first, *rows, link = text.splitlines()
    assert first == "payments 2026-01-30: 5 of 1000 records wait for review (model version 3)"
    assert [line.split()[:2] for line in rows] == [["7.0", "k4"], ["6.0", "k3"], ["5.0", "k2"]]
    assert "amount 900 (expected 12.5)" in rows[0]
    assert link.strip() == "https://review.example/?dataset=payments&batch=2026-01-30"


def test_where_nothing_waits_nothing_is_said(here: Installation) -> None:
    """A message every night is a message that nobody reads."""
    rows = [row("k0"), row("k1", kind="sampled")]
    put(here.ledger, rows)
    judging.give(here.ledger, [rows[0]["anomaly_id"]], "normal", by="ann")
    said: list[str] = []
    digest.tell(here, dataset(digest_file="digest.txt"), "2026-01-30", said.append)
    digest.tell(here, dataset(), "never seen", said.append)
    assert said == []
    assert not (here.settings.home / "digest.txt").exists()


def test_it_goes_to_a_file_and_a_webhook(
    here: Installation, webhook: tuple[str, list[dict[str, Any]], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the dataset's file wants it; the address stays in the environment."""
    address, received, _ = webhook
    monkeypatch.setenv(SECRET, address)
    put(here.ledger, [row("k0")])
    said: list[str] = []
    digest.tell(here, dataset(digest_file="told/digest.txt", webhook=SECRET), "2026-01-30", said.append)
    assert said == [received[0]["text"]]
    assert said[0] in (here.settings.home / "told" / "digest.txt").read_text(encoding="utf-8")
    digest.tell(here, dataset(webhook=SECRET), "2026-01-30", said.append, aloud=False)
    assert [one["text"] for one in received] == said * 2  # of many batches the log has a line each


@pytest.mark.parametrize("address", [None, "http://127.0.0.1:9/secret", "not an address", "refusing"])
def test_what_cannot_be_delivered_is_told_without_the_address(
    here: Installation,
    webhook: tuple[str, list[dict[str, Any]], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    address: str | None,
) -> None:
    """A webhook that is down costs a line in the log, not the batch; its address is a secret."""
    served, _, status = webhook
    status.append(500)
    if address is not None:
        monkeypatch.setenv(SECRET, served if address == "refusing" else address)
    put(here.ledger, [row("k0")])
    said: list[str] = []
    (here.settings.home / "file").write_text("in the way")
    digest.tell(here, dataset(webhook=SECRET, digest_file="file/digest.txt"), "2026-01-30", said.append)
    assert len(said) == 3
    assert all(line.startswith("not delivered: ") for line in said[1:])
    assert "secret" not in " ".join(said)
