"""The digest: sent where something waits and only there, and never the reason that a batch is not scored."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.dataset import Dataset
from pipeline.config.settings import Settings
from pipeline.detection.measures import Measures
from pipeline.installation import Installation
from pipeline.monitoring import store
from pipeline.monitoring.findings import Finding
from pipeline.notify import digest
from pipeline.review import judging

from .review_data import put, reason, refused, row, score

QUIET = Measures(1000, 1000, 5, 5.0, 0.5, 0.01, 1000, 0)
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
    assert first == "payments 2026-01-30: 5 of 1,000 records wait for review (model version 3)"
    assert [line.split()[:2] for line in rows] == [["7.0", "k4"], ["6.0", "k3"], ["5.0", "k2"]]
    assert "amount 900 (expected 12.5)" in rows[0]
    assert link.strip() == "https://review.example/?dataset=payments&batch=2026-01-30"


def test_it_marks_the_thousands_of_quantities_and_leaves_codes(here: Installation) -> None:
    quantity = reason("amount", observed="38484", expected="1760.5", low=100.0, high=2000.0)
    code = reason("code", observed="5411", expected="5912 (93%)", low=None, high=None)
    put(here.ledger, [row("k0", reasons=[quantity, code])])
    text = digest.digest(here, dataset(), "2026-01-30")
    assert text
    assert "amount 38,484 (expected 1,760.5); code 5411 (expected 5912, 93% likely)" in text


def test_where_nothing_waits_nothing_is_said(here: Installation) -> None:
    """A message every night is a message that nobody reads."""
    rows = [row("k0"), row("k1", kind="sampled")]
    score(here, rows)
    judging.give(here.ledger, [rows[0]["anomaly_id"]], "normal", by="ann")
    said: list[str] = []
    digest.tell(here, dataset(digest_file="digest.txt"), said.append)
    assert said == []
    assert not (here.settings.home / "digest.txt").exists()


def test_it_goes_to_a_file_and_a_webhook(
    here: Installation, webhook: tuple[str, list[dict[str, Any]], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the dataset's file wants it; the address stays in the environment."""
    address, received, _ = webhook
    monkeypatch.setenv(SECRET, address)
    score(here, [row("k0")])
    digest.tell(here, dataset(digest_file="told/digest.txt", webhook=SECRET), pytest.fail)
    (text,) = (one["text"] for one in received)
    assert text == digest.digest(here, dataset(), "2026-01-30")
    assert text in (here.settings.home / "told" / "digest.txt").read_text(encoding="utf-8")
    digest.tell(here, dataset(webhook=SECRET), pytest.fail)
    assert len(received) == 1


FILE = {"digest_file": "told.txt"}


def told(here: Installation) -> list[str]:
    """The first line of each message so far."""
    file = here.settings.home / "told.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [line.partition(" UTC ")[2] for line in lines if " UTC " in line]


@pytest.mark.parametrize("at_once", [True, False], ids=["one process", "a process a batch"])
def test_of_a_backlog_one_message_says_all_and_the_newest_batch_has_its_own(
    here: Installation, at_once: bool
) -> None:
    """Thirty messages on the first night are thirty that nobody reads, whoever scores which batch."""
    days = [f"2026-01-{day:02}" for day in range(1, 31)]
    for day in days:
        here.ledger.record_validation(replace(refused(day), status="accepted", n_accepted=9))
    for day in days:
        score(here, [row(f"k{day}", batch_id=day, severity=3.0 + int(day[-2:]) / 10)])
        if not at_once:
            digest.tell(here, dataset(**FILE), pytest.fail)
            assert len(told(here)) == 2 * (day == days[-1])
    digest.tell(here, dataset(**FILE), pytest.fail)
    assert told(here) == [
        "payments 2026-01-01 to 2026-01-29: 29 records of 29 batches wait for review (29 batches scored)",
        "payments 2026-01-30: 1 of 1,000 records wait for review (model version 3)",
    ]
    text = (here.settings.home / "told.txt").read_text(encoding="utf-8")
    assert "5.9  k2026-01-29  amount 900 (expected 12.5), batch 2026-01-29" in text


def test_of_records_as_severe_a_backlogs_message_names_those_of_the_highest_scores(
    here: Installation,
) -> None:
    """As the pages do: whichever batch they are of."""
    days = [f"2026-01-{day:02}" for day in range(1, 6)]
    scores = (500.0, 100.0, 400.0, 200.0, 300.0)
    for day, points in zip(days, scores, strict=True):
        score(here, [row(f"k{points:.0f}", batch_id=day, severity=4.0, anomaly_score=points)])
    text = digest.of_backlog(here, dataset(**FILE), days) or ""
    assert re.findall(r"4\.0  (k\d+)", text) == ["k500", "k400", "k300"]


def test_each_batch_is_told_once_whatever_is_tried_again(here: Installation) -> None:
    """A step that died half way left batches scored and untold; the next try tells them."""
    days = ["2026-01-28", "2026-01-29", "2026-01-30"]
    score(here, [row("k0", batch_id=days[0]), row("k1", batch_id=days[1])])
    for _ in range(2):
        digest.tell(here, dataset(**FILE), pytest.fail)
    assert [line.partition(":")[0] for line in told(here)] == [f"payments {day}" for day in days[:2]]
    here.ledger.record_validation(replace(refused(days[2]), status="accepted", n_accepted=9))
    score(here, [row("k2", batch_id=days[0])])  # scored again, which is news
    digest.tell(here, dataset(**FILE), pytest.fail)
    assert len(told(here)) == 2
    digest.tell(here, dataset(**FILE), pytest.fail, failed=days[2:])  # it is waited for no longer
    assert [line.partition(":")[0] for line in told(here)][2:] == [f"payments {days[0]}"]
    put(here.ledger, [row("k3", batch_id=days[1])])  # filled in later, by hand: no news
    digest.tell(here, dataset(**FILE), pytest.fail, failed=days[2:])
    assert len(told(here)) == 3


def test_what_was_scored_before_somebody_wanted_to_hear_of_it_is_not_told(here: Installation) -> None:
    """A webhook that is set up today is not for last month."""
    score(here, [row("k0", batch_id="2026-01-29")])
    digest.tell(here, dataset(), pytest.fail)
    score(here, [row("k1")])
    digest.tell(here, dataset(**FILE), pytest.fail)
    assert [line.partition(":")[0] for line in told(here)] == ["payments 2026-01-30"]


def test_an_alarm_is_in_the_first_line(here: Installation) -> None:
    """Whoever reads the subject alone must not act on flags that are in doubt."""
    alarm = Finding("drift:amount", "alarm", "amount: values moved by 3 standard deviations", "ask")
    for day in ("2026-01-28", "2026-01-29", "2026-01-30"):
        score(here, [row(f"k{day}", batch_id=day)])
        findings = (alarm,) if day != "2026-01-28" else ()
        one = store.Watched(day, date.fromisoformat(day), QUIET, findings, 3, datetime.now(UTC))
        store.replace(here.ledger, "payments", one)
    digest.tell(here, dataset(**FILE), pytest.fail)
    assert told(here) == [
        "payments 2026-01-28 to 2026-01-29: 2 records of 2 batches wait for review (2 batches scored; 1 with "
        "an alarm: read the page first)",
        "payments 2026-01-30: Do not rely on these flags yet; 1 of 1,000 records wait for review (model version 3)",
    ]
    text = (here.settings.home / "told.txt").read_text(encoding="utf-8")
    assert "\n  alarm: amount: values moved by 3 standard deviations\n" in text


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
    score(here, [row("k0")])
    said: list[str] = []
    (here.settings.home / "file").write_text("in the way")
    digest.tell(here, dataset(webhook=SECRET, digest_file="file/digest.txt"), said.append)
    assert len(said) == 2
    assert all(line.startswith("message not delivered: ") for line in said)
    assert "secret" not in " ".join(said)
