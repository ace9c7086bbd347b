"""The review page is harmless whatever a record holds and whatever is sent to it."""

from __future__ import annotations

import html
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from pipeline.installation import Installation
from pipeline.review import suppression
from pipeline.web.access import POLICY
from pipeline.web.shapes import Choice, Grouped, Paged

from .review_data import put, reason, row
from .review_page import csrf, every_route

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }} {% raw %}",
    "</textarea></script><svg/onload=alert(1)>",
    "javascript:alert(1)",
    "x" * 1_000_000,
    "\x1b[31m\u202e\N{ZERO WIDTH SPACE}",
]


def test_every_answer_forbids_scripts_that_are_not_ours(
    browser: TestClient, app: FastAPI, ids: list[str]
) -> None:
    """If an escape were ever missing, a stranger's text would still not run."""
    for method, path in every_route(app):
        answer = browser.request(method, path)
        assert answer.headers["content-security-policy"] == POLICY, (method, path)
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "unsafe" not in POLICY


class Harmless(HTMLParser):
    """Fails on a script that is not ours, an attribute that acts, or an address that does."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one tag."""
        given = dict(attrs)
        assert tag not in {"iframe", "object", "embed", "base", "style"}
        if tag == "script":
            assert str(given.get("src")).startswith("/assets/review.js?")
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            assert name != "style"
            if name in {"href", "src", "action", "formaction"}:
                assert str(value).startswith(("/", "#")), (tag, value)
                assert not str(value).startswith("//")

    def handle_data(self, data: str) -> None:
        """Text is text."""


each_hostile = pytest.mark.parametrize("text", HOSTILE, ids=[repr(text[:20]) for text in HOSTILE])


def look(browser: TestClient, page: str, status: int = 200, **asked: str) -> str:
    """What a page holds, which is harmless and of a size to be read."""
    answer = browser.get(page, params=asked or None)
    assert answer.status_code == status, (page, answer.text[:300])
    Harmless().feed(answer.text)
    assert len(answer.text) < 120_000, page
    return answer.text


@each_hostile
def test_a_record_that_is_all_script_and_a_megabyte_wide_is_harmless_on_every_page(
    here: Installation, browser: TestClient, text: str
) -> None:
    """Every value, key, column, reason, note and name is a stranger's."""
    reasons = [reason(text[:200], observed=text[:300], expected=f"{text[:200]} (93%)", low=None, high=None)]
    evil = row(
        text,
        driver=text[:200],
        signature=f"{text[:200]}↑",
        reasons=reasons,
        terms=[{"column": text[:200], "nats": 300.0}],
        record={text[:200]: text, "amount": text},
    )
    put(here.ledger, [evil])
    name = evil["anomaly_id"]
    token = {"x-csrf-token": csrf(browser)}
    said = {"anomaly_ids": [name], "verdict": "normal", "note": text[:4000]}
    assert browser.post("/api/verdicts", json=said, headers=token).status_code == 200
    for page in ("/?state=any", f"/record/{name}?state=any", "/groups", "/overview", "/rules"):
        look(browser, page)
    for part in ("neighbours", "nearest", "clearing", "versions"):
        look(browser, f"/record/{name}/{part}")
        look(browser, f"/record/{name}/{part}?part=true")


@each_hostile
def test_a_rule_that_is_all_script_is_harmless_wherever_it_shows(
    here: Installation, browser: TestClient, text: str
) -> None:
    """What it hides, why and by whom are strangers' words, too, and stand on pages of their own."""
    signature, conditions = f"{text[:200]}↑", {text[:100]: text[:100]}
    hidden = row(text[:200], signature=signature, record=conditions)
    put(here.ledger, [hidden, row("in sight")])
    ends_on = (datetime.now(UTC) + timedelta(days=9)).date().isoformat()
    rule = suppression.Rule("payments", signature, conditions, ends_on, text[:300], text[:200])
    kept = suppression.save(here.ledger, rule)
    assert "Now hidden:" in look(browser, "/rules")
    assert hidden["anomaly_id"] not in look(browser, "/")
    assert hidden["anomaly_id"] in look(browser, "/?suppressed=true")
    assert "hidden by rules" in look(browser, "/overview")
    assert f"hidden by rule {kept.number}" in look(browser, f"/record/{hidden['anomaly_id']}?suppressed=true")
    suppression.end(here.ledger, kept.number, by=text[:200])
    assert "</time> by " in look(browser, "/rules")


@each_hostile
def test_what_is_typed_into_a_search_or_a_draft_is_harmless(
    ids: list[str], browser: TestClient, text: str
) -> None:
    """An address is a stranger's, too: it comes by mail."""
    typed = dict.fromkeys(("search", "driver", "reviewer", "signature"), text[:200])
    look(browser, "/", **typed, told=text[:300])
    look(browser, "/groups", signature=text[:200], told=text[:300])
    assert "is not one of dataset, " in look(browser, "/", status=422, **{f"a{text[:200]}": "1"})
    draft = {"signature": text[:200], "note": text[:300], "column": text[:99], "value": text[:99]}
    assert "there is no column" in look(browser, "/rules", status=422, dataset="payments", **draft)


@pytest.mark.parametrize("body", [b"x" * 1_000_001, None])
def test_a_body_that_is_too_long_or_of_no_length_is_not_read(browser: TestClient, body: bytes | None) -> None:
    """It would be read before anybody asks who sent it."""

    def endless() -> Iterator[bytes]:
        yield b"x"

    answer = browser.post("/api/verdicts", content=body or endless())
    assert answer.status_code == (413 if body else 411)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_version", "9" * 23),
        ("model_version", "-1"),
        ("severity", "9" * 23),
        ("severity", "5"),
        ("severity", "²"),
        ("since", "2026-1-5"),
        ("since", "2026-02-30"),
        ("until", "٢٠٢٦-٠١-٠١"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(browser: TestClient, name: str, value: str) -> None:
    """Not taken for another one, and not handed to a database that cannot hold it."""
    for page in ("/", "/api/records", *(["/groups"] if name in Grouped.model_fields else [])):
        answer = browser.get(page, params={name: value})
        assert answer.status_code == 422, page
        assert name in answer.text


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("oddness", "bogus", "oddness (how it is odd): 'bogus' is not one of 'above', 'below', 'missing',"),
        ("state", "fraud", "state (verdict): 'fraud' is not one of 'open',"),
        ("kind", "any", "kind (why here): 'any' is not one of 'flagged', 'sampled' or 'cleared'"),
        ("severity", "5", "severity: 5 is not one of 0, 2, 3, 4, 6, 10 or 16"),
        (
            "since",
            "2026-02-30",
            "since (from): '2026-02-30' is not a calendar day, written like 2026-01-31",
        ),
        ("until", "yesterday", "until (to): 'yesterday' is not a calendar day"),
        ("model_version", "new", "model_version (model version): 'new' is not a whole number"),
        ("model_version", "-1", "model_version (model version): '-1' is less than 0"),
        (
            "model_version",
            "9" * 12,
            "model_version (model version): '999999999999' is more than 2,147,483,647",
        ),
        ("search", "x" * 201, "search (begins with): it is longer than 200 characters"),
        ("suppressed", "maybe", "suppressed: 'maybe' is neither true nor false"),
    ],
)
def test_what_a_filter_cannot_be_is_said_in_the_page_s_words(
    browser: TestClient, name: str, value: str, said: str
) -> None:
    """With what it can be, and by the name that the page has for it; a program reads the same."""
    page = html.unescape(browser.get("/", params={name: value}).text)
    told = browser.get("/api/records", params={name: value}).json()["detail"]
    assert told.startswith(said)
    assert told in page


def test_a_filter_that_does_not_exist_is_refused_with_those_that_do(
    browser: TestClient, ids: list[str]
) -> None:
    """A list that ignores it would look like what was asked for; what a page says was done is no filter."""
    for page, models in (
        ("/", Paged),
        ("/api/records", Paged),
        ("/api/counts", Choice),
        ("/groups", Grouped),
    ):
        answer = browser.get(page, params={"severty": "4", "state": "open"})
        assert answer.status_code == 422, page
        assert f"'severty' is not one of {', '.join(models.model_fields)}" in html.unescape(answer.text)
    for page in ("/", "/groups", f"/record/{ids[0]}"):
        assert browser.get(page, params={"told": "undone", "act": "1", "other": ""}).status_code == 200


def test_a_number_that_no_rule_can_have_is_refused(browser: TestClient) -> None:
    """An integer of the database ends somewhere."""
    assert browser.post(f"/rules/{'9' * 23}/end", data={"csrf": csrf(browser)}).status_code == 422


def test_a_nul_is_refused_wherever_it_stands(browser: TestClient, ids: list[str]) -> None:
    """PostgreSQL would answer as if it were down."""
    for address in ("/?search=k%00", "/?driver=%00", "/record/%00", "/api/records?after=%00", "/?told=%00"):
        assert browser.get(address).status_code == 400, address
    token = {"x-csrf-token": csrf(browser)}
    said = {"anomaly_ids": ["\0"], "verdict": "normal"}
    assert browser.post("/api/verdicts", json=said, headers=token).status_code == 422
    group = {"dataset": "payments", "signature": "\0", "verdict": "normal", "n": 5}
    assert browser.post("/api/groups/verdicts", json=group, headers=token).status_code == 422
    form = {"csrf": token["x-csrf-token"]}
    for path, fields in (
        ("/verdicts", {"verdict": "normal", "anomaly_id": "\0"}),
        ("/groups/verdicts", {k: str(v) for k, v in group.items()}),
        ("/undo", {"act": "\0"}),
        ("/rules", {"dataset": "\0"}),
    ):
        assert browser.post(path, data=form | fields).status_code == 422, path


@pytest.mark.parametrize(("site", "is_said"), [("same-origin", True), ("cross-site", False), ("none", False)])
def test_a_link_from_elsewhere_does_not_say_what_was_done(
    browser: TestClient, site: str, is_said: bool
) -> None:
    """Whoever sends a link would speak in the product's voice."""
    page = browser.get("/", params={"told": "your token ran out"}, headers={"sec-fetch-site": site})
    assert ("your token ran out" in page.text) is is_said
