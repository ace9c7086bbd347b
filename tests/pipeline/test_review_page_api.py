"""The JSON API says what the page says, and says of each answer what is in it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipeline.installation import Installation
from pipeline.results import export
from pipeline.review import judging

from .review_data import DATASET
from .review_page import as_role


def _answers_typed(verb: dict[str, Any]) -> bool:
    """Whether a route's description names the fields of what it answers, if anything."""
    code, answer = next((code, one) for code, one in verb["responses"].items() if code.startswith("2"))
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return code == "204" or "$ref" in schema.get("items", schema)


def test_the_api_says_what_the_queue_holds(browser: TestClient, here: Installation, ids: list[str]) -> None:
    """The same rows, page after page, and a description of itself."""
    first = browser.get("/api/records", params={"limit": 3}).json()
    rest = browser.get("/api/records", params={"limit": 3, "after": first["more_after"]}).json()
    assert [one["anomaly_id"] for one in first["records"] + rest["records"]] == ids
    assert rest["more_after"] is None
    whole = browser.get(f"/api/records/{ids[0]}").json()
    assert whole["record"] == {"amount": 900.0, "country": "DE"}
    assert browser.get("/api/counts").json()["driver"] == {"amount": 5}
    assert browser.get("/api/stats").json()["backlog"] == 5
    schema = browser.get("/api/openapi.json").json()
    assert {"/api/records", "/api/verdicts", "/api/groups", "/api/stats"} <= set(schema["paths"])
    open_ended = [
        path for path, verbs in schema["paths"].items() for verb in verbs.values() if not _answers_typed(verb)
    ]
    assert open_ended == ["/api/export/{dataset}"]  # a file
    for verb in (verb for verbs in schema["paths"].values() for verb in verbs.values()):
        assert verb["security"] == [{"HTTPBearer": []}]
        told = {code: answer for code, answer in verb["responses"].items() if code >= "400"}
        assert set(told) - {"409"} == {"401", "403", "404", "422", "503"}
        for answer in told.values():
            assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Refusal"}
    assert browser.get("/api/records/unknown").status_code == 404
    unread = browser.get("/api/records", params={"state": "fraud"})
    assert (unread.status_code, type(unread.json()["detail"])) == (422, str)


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_what_was_said_is_exported_by_the_api_too(
    browser: TestClient,
    here: Installation,
    ids: list[str],
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same file as from a shell; nothing of it stays on the server, and none of a dataset that is not
    one's own.
    """
    (own := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own))
    judging.give(here.ledger, ids[:2], "normal", by="ann", note="seen")
    answer = browser.get("/api/export/payments", params={"format": form, "history": True})
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == f'attachment; filename="payments-verdicts.{form}"'
    out = here.settings.home / f"shell.{form}"
    assert export.history(here, "payments", out) == 2
    assert answer.content == out.read_bytes()
    assert not list(own.iterdir())
    nothing = browser.get("/api/export/payments", params={"format": form})
    assert (nothing.status_code, "nothing was scored yet" in nothing.text) == (404, True)
    assert browser.get("/api/export/payments", params={"format": "xlsx"}).status_code == 422
    stranger = as_role(here, may_write=True, reads=frozenset({"orders"}))
    refused = stranger.get("/api/export/payments", params={"format": form, "history": True})
    assert (refused.status_code, "seen" in refused.text) == (404, False)


def test_a_dataset_that_is_none_is_answered_with_ones_own(browser: TestClient, here: Installation) -> None:
    """Not with folders of the server, nor with other people's datasets."""
    (here.settings.datasets / "secrets.yaml").write_text(DATASET.replace("payments", "secrets"))
    for history in (False, True):
        unknown = browser.get("/api/export/paymnets", params={"history": history})
        assert unknown.status_code == 404
        assert unknown.json()["detail"].endswith("or it is not yours to read: did you mean 'payments'?")
    stranger = as_role(here, may_write=True, reads=frozenset({"payments"}))
    for name in ("nope", "secrets"):
        refused = stranger.get(f"/api/export/{name}")
        assert refused.json() == {
            "detail": f"there is no dataset {name!r} here, or it is not yours to read: there is payments"
        }


def test_groups_of_the_api_are_those_of_the_page(
    browser: TestClient, here: Installation, ids: list[str]
) -> None:
    """What waits; what was judged is there for who asks."""
    judging.give(here.ledger, ids[:2], "normal", by="ann")
    for asked, n in ((None, 3), ("open", 3), ("normal", 2), ("any", 5)):
        (found,) = browser.get("/api/groups", params={"state": asked} if asked else {}).json()
        assert found["n"] == n
    assert '<span class="count">3 ' in browser.get("/groups").text
