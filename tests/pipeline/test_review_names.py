"""What people call a record: by its key; one without a key by where it lies, not by a hash of its content."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from pipeline.cli import app as program
from pipeline.installation import Installation
from pipeline.notify import digest
from pipeline.records.verdicts import name_of
from pipeline.review import claims, queue
from pipeline.review.filters import Filters

from .review_data import row, score
from .review_page import csrf

HASH = "2ad5893ceb44933b4e963782"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (f"{HASH}-1", "row 1119 (2026-01-30)"),
        (f"{HASH}-12", "row 1119 (2026-01-30)"),
        (HASH, HASH),  # an ObjectId of MongoDB's
        (f"{HASH.upper()}-1", f"{HASH.upper()}-1"),
        (f"{HASH}-1|x", f"{HASH}-1|x"),
        ("", ""),
    ],
)
def test_a_hash_of_content_is_no_name(key: str, name: str) -> None:
    assert name_of(key, "2026-01-30", 1119) == name


def test_a_record_without_a_key_has_one_name_wherever_it_is_shown(
    here: Installation, browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page, shell, digest and what is said of a claim; the id stays the handle, and the content's hash finds
    it still.
    """
    key, name = f"{HASH}-1", "row 1119 (2026-01-30)"
    score(here, [given := row(key, row_number=1119, signature="amount↑"), row("k", severity=2.0)])
    anomaly_id = given["anomaly_id"]
    for path in ("/", "/groups", f"/record/{anomaly_id}"):
        page = browser.get(path).text
        assert name in page, path
        assert HASH not in page.replace(f"it has no key: {key} stands", ""), path
    assert [one.name for one in queue.page(here.ledger, Filters(search=HASH[:6])).rows] == [name]
    monkeypatch.setenv("VAEWATCH_HOME", str(here.settings.home))
    monkeypatch.setenv("VAEWATCH_DATASETS", str(here.settings.datasets))
    assert "row 1119 of payments_2026-01.parquet" in browser.get(f"/record/{anomaly_id}").text
    for arguments, said in (
        (["list"], name),
        (["show", anomaly_id], "record row 1119 of payments_2026-01.parquet (counted from 0)"),
    ):
        text = CliRunner().invoke(program, ["review", *arguments]).stdout
        assert (said in text, HASH in text) == (True, False), text
    told = digest.digest(here, here.dataset("payments"), "2026-01-30")
    assert f"  3.5  {name}  amount" in told
    claims.claim(here.ledger, anomaly_id, by="bob")
    refused = browser.post(
        "/api/verdicts",
        json={"anomaly_ids": [anomaly_id], "verdict": "normal"},
        headers={"x-csrf-token": csrf(browser)},
    )
    assert refused.json()["detail"].startswith(f"bob is at record '{name}' until ")
    listed = browser.get("/api/records").json()["records"][0]
    assert (listed["record_key"], listed["row_number"]) == (key, 1119)
