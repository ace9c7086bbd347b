"""Suppression rules on the review page: drafted, tried, saved and ended, with a script or without."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient

from pipeline.installation import Installation
from pipeline.review import queue
from pipeline.review.filters import Filters

from .review_data import put, row
from .review_page import csrf


def saved_at(draft: str) -> str:
    """Where the page of a draft sends what is to be saved, as what it showed."""
    found = re.search(r'formaction="([^"#]*)', draft)
    assert found
    return html.unescape(found[1])


def test_a_rule_is_drafted_with_several_conditions_and_without_a_script(
    here: Installation, browser: TestClient
) -> None:
    """Each try leaves room for one more; all of them must hold, and one column cannot have two values."""
    put(
        here.ledger, [row(f"k{i}", record={"country": "DE", "at": "night" if i else "day"}) for i in range(3)]
    )
    draft = browser.get("/rules", params={"dataset": "payments", "signature": "amount↑"}).text
    assert re.findall(r'name="column" value="([^"]*)"', draft) == [""]
    assert '<option value="amount">' in draft
    chosen = {"dataset": "payments", "signature": "amount↑", "column": ["country", "at", ""], "value": ["DE", "night", ""]}  # fmt: skip
    tried = browser.get("/rules", params=chosen).text
    assert "would have hidden <b>2</b>" in tried
    assert re.findall(r'name="column" value="([^"]*)"', tried) == ["country", "at", ""]
    last = re.search(r'name="ends_on" value="([^"]*)"', tried)
    assert last
    kept = {**chosen, "ends_on": last[1], "note": "nightly", "csrf": csrf(browser)}
    assert "rule 1 holds" in browser.post(saved_at(tried), data=kept).text
    (rule,) = browser.get("/api/rules").json()
    assert rule["conditions"] == {"country": "DE", "at": "night"}
    assert queue.total(here.ledger, Filters(suppressed=True)) == 2
    assert (rule["n_hidden"], rule["n_confirmed"]) == (2, 0)
    page = browser.get("/rules").text
    assert '<a href="/?suppressed=true">2 records</a>' in page
    assert re.findall(r'<td class="n[^>]*>([^<]*)</td>', page) == ["2", "0"]
    twice = browser.get("/rules", params={**chosen, "column": ["at", "at"], "value": ["day", "night"]})
    assert twice.status_code == 422
    assert "two values" in twice.text


def test_rules_by_the_api_are_those_of_the_page(
    here: Installation, browser: TestClient, ids: list[str]
) -> None:
    """Tried without writing, kept, ended."""
    token, last = {"x-csrf-token": csrf(browser)}, (datetime.now(UTC).date() + timedelta(days=5)).isoformat()
    asked = {"dataset": "payments", "column": "country", "value": "DE"}
    assert browser.get("/api/rules/preview", params=asked).json()["n_hidden"] == 5
    # a column without its value would be no condition at all, and the preview that of a wider rule
    slip = browser.get("/api/rules/preview", params=asked | {"column": ["country", "card"]})
    assert (slip.status_code, "2 columns and 1 values" in slip.json()["detail"]) == (422, True)
    rule = {"dataset": "payments", "conditions": {"country": "DE"}, "ends_on": last, "note": "known"}
    made = browser.post("/api/rules", json=rule, headers=token)
    assert (made.status_code, made.json()["by"]) == (201, "ann")
    assert browser.get("/api/records").json()["records"] == []
    number = made.json()["number"]
    assert browser.post(f"/api/rules/{number}/end", headers=token).json() == {"n_released": 5}
    assert len(browser.get("/api/records").json()["records"]) == 5
    nothing = browser.post("/api/rules", json=rule | {"conditions": {}}, headers=token)
    assert nothing.status_code == 422
    assert "hide everything" in nothing.json()["detail"]


@pytest.mark.parametrize(("country", "back"), [("DE", "5 records are"), ("IS", "1 record is")])
def test_who_ends_a_rule_is_told_how_many_records_come_back(
    here: Installation, browser: TestClient, ids: list[str], country: str, back: str
) -> None:
    put(here.ledger, [row("alone", "2026-01-31", record={"country": "IS"})])
    token, last = csrf(browser), (datetime.now(UTC).date() + timedelta(days=5)).isoformat()
    rule = {"dataset": "payments", "conditions": {"country": country}, "ends_on": last, "note": "known"}
    number = browser.post("/api/rules", json=rule, headers={"x-csrf-token": token}).json()["number"]
    ended = browser.post(f"/rules/{number}/end", data={"csrf": token})
    assert f"rule {number} is ended; {back} in the queue again" in ended.text
    again = browser.post(f"/rules/{number}/end", data={"csrf": token})
    assert "vaewatch review rules list" in again.text


def test_page_and_api_refuse_what_no_record_can_have(browser: TestClient, ids: list[str]) -> None:
    """A slip of the pen would be a rule that hides nothing; a rule that hides nothing yet says so."""
    token, last = csrf(browser), (datetime.now(UTC).date() + timedelta(days=5)).isoformat()
    rule = {"dataset": "payments", "ends_on": last, "note": "known"}
    slip = {"column": "contry", "value": "DE"}
    answers = [
        browser.get("/rules", params={"dataset": "payments", **slip}),
        browser.post("/rules", data={**rule, **slip, "csrf": token}),
        browser.get("/api/rules/preview", params={"dataset": "payments", **slip}),
        browser.post(
            "/api/rules", json=rule | {"conditions": {"contry": "DE"}}, headers={"x-csrf-token": token}
        ),
    ]
    assert [answer.status_code for answer in answers] == [422] * 4
    assert all("did you mean country?" in answer.text for answer in answers)
    assert browser.get("/api/rules").json() == []
    french = {"column": "country", "value": "FR"}
    saved = saved_at(browser.get("/rules", params={"dataset": "payments", **french}).text)
    assert "hidden no record" in browser.post(saved, data={**rule, **french, "csrf": token}).text
    made = browser.post(
        "/api/rules", json=rule | {"conditions": {"country": "FR"}}, headers={"x-csrf-token": token}
    )
    assert made.json()["preview"]["n_hidden"] == 0


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"column": ["contry"], "value": ["DE"]}, "did you mean country?"),
        ({"column": ["amount"], "value": ["many"]}, "amount is of type float"),
        ({"column": ["country", "country"], "value": ["DE", "FR"]}, "given two values"),
        ({"column": [""], "value": ["DE"]}, "value 'DE' has no column"),
        ({"signature": "amont↑"}, "did you mean amount?"),
        ({"ends_on": "next week"}, "is not a day like"),
        ({"ends_on": "2020-01-01"}, "its last day must lie within"),
    ],
)
@pytest.mark.parametrize("verb", ["try", "save"])
def test_a_slip_in_a_draft_leads_back_to_it_with_all_that_was_typed(
    browser: TestClient, ids: list[str], typed: dict[str, list[str]], said: str, verb: str
) -> None:
    """The sentence stands beside the form; nothing is saved, and nothing has to be typed again."""
    last = (datetime.now(UTC).date() + timedelta(days=5)).isoformat()
    draft = {"dataset": "payments", "signature": "amount↑", "ends_on": last, "note": "a <b>sale</b>"} | typed
    if verb == "try":
        answer = browser.get("/rules", params=draft)
    else:
        answer = browser.post("/rules", data=draft | {"csrf": csrf(browser)})
    assert answer.status_code == 422
    slip = re.search(r'id="slip" role="alert">([^<]*)<', answer.text)
    assert slip
    assert said in html.unescape(slip[1])
    kept = {html.unescape(value) for value in re.findall(r'<input [^>]*value="([^"]*)"', answer.text)}
    said_values = [
        given for value in draft.values() for given in (value if isinstance(value, list) else [value])
    ]
    assert kept >= set(said_values)
    assert browser.get("/api/rules").json() == []


def test_a_rule_without_a_reason_is_not_saved_and_its_preview_stays(
    browser: TestClient, ids: list[str]
) -> None:
    """Only saving asks for the note: what it would hide is known before."""
    last = (datetime.now(UTC).date() + timedelta(days=5)).isoformat()
    draft = {"dataset": "payments", "signature": "amount↑", "ends_on": last}
    tried = browser.get("/rules", params=draft)
    assert tried.status_code == 200
    answer = browser.post(saved_at(tried.text), data=draft | {"csrf": csrf(browser)})
    assert answer.status_code == 422
    assert "it needs a note that says why" in answer.text
    assert "would have hidden <b>5</b>" in answer.text


@pytest.mark.parametrize(
    ("edited", "is_shown_first"),
    [
        ({}, False),
        ({"note": "a sale", "ends_on": (datetime.now(UTC).date() + timedelta(days=9)).isoformat()}, False),
        ({"column": "amount", "value": "9e2"}, False),  # as the page showed it: 900.0
        ({"column": "amount", "value": "901"}, True),
        ({"column": "country", "value": "DE"}, True),
        ({"signature": ""}, True),
        ({"column": "", "value": ""}, True),
    ],
)
def test_what_is_saved_is_what_was_shown(
    browser: TestClient, ids: list[str], edited: dict[str, str], is_shown_first: bool
) -> None:
    """A rule that was edited after it was tried would hide what nobody has looked at: it is shown first, and
    saved when one presses again.
    """
    last = (datetime.now(UTC).date() + timedelta(days=5)).isoformat()
    draft = {"dataset": "payments", "signature": "amount↑", "column": "amount", "value": "900", "ends_on": last, "note": "known"}  # fmt: skip
    token = {"csrf": csrf(browser)}
    tried = browser.get("/rules", params=draft).text
    answer = browser.post(saved_at(tried), data=draft | edited | token)
    assert ("Not saved yet: it was changed after it was tried" in answer.text) == is_shown_first
    assert len(browser.get("/api/rules").json()) == (not is_shown_first)
    if is_shown_first:
        assert answer.status_code == 409
        assert "would have hidden" in answer.text
        assert "rule 1 holds" in browser.post(saved_at(answer.text), data=draft | edited | token).text
    unseen = browser.post("/rules", data=draft | token)  # by no page that showed anything
    assert "Not saved yet" in unseen.text
