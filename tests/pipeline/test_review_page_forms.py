"""Verdicts and claims that the review page's forms send: they do what they say, without a script, too."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient

from pipeline.installation import Installation
from pipeline.review import claims, judging, queue, record
from pipeline.review.filters import Filters

from .review_data import put, row
from .review_page import csrf


def test_the_basics_work_without_a_script(browser: TestClient, here: Installation, ids: list[str]) -> None:
    """Forms and links: judge ticked records, see it said, take it back."""
    form = {
        "csrf": csrf(browser),
        "verdict": "data_error",
        "anomaly_id": ids[:2],
        "query": "driver=amount",
        "page": "queue",
    }
    answer = browser.post("/verdicts", data=form)
    assert answer.url.path == "/"
    assert answer.url.params["driver"] == "amount"
    assert "data error: 2 records" in answer.text
    assert queue.counts(here.ledger, Filters())["state"] == {"open": 3, "data_error": 2}
    undone = browser.post("/undo", data={"csrf": csrf(browser), "act": answer.url.params["act"]})
    assert "withdrawn: data error on k0, k1 of payments; now: open" in undone.text
    assert queue.counts(here.ledger, Filters())["state"] == {"open": 5}
    nothing = browser.post("/verdicts", data={"csrf": csrf(browser), "verdict": "normal"})
    assert "tick the records" in nothing.text


def test_a_form_that_overrules_a_verdict_says_which(
    browser: TestClient, here: Installation, ids: list[str]
) -> None:
    judging.give(here.ledger, ids[:1], "expected_change", by="bob")
    form = {"csrf": csrf(browser), "verdict": "normal", "anomaly_id": ids[:2]}
    answer = browser.post("/verdicts", data=form)
    assert "normal: 2 records; before: 1 expected change, 1 open; reviewers differ on 1" in answer.text
    undone = browser.post("/undo", data={"csrf": csrf(browser), "act": answer.url.params["act"]})
    assert "withdrawn: normal on k0, k1 of payments; now: 1 expected change, 1 open" in undone.text


def test_a_notes_lines_end_alike_however_it_is_sent(
    browser: TestClient, here: Installation, ids: list[str]
) -> None:
    """A form without a script sends two characters for one; the longest note fits all the same."""
    token, longest = csrf(browser), "x\n" * 2000
    sent = longest.replace("\n", "\r\n")
    form = {"csrf": token, "verdict": "normal", "anomaly_id": ids[0], "note": sent}
    assert browser.post("/verdicts", data=form).status_code == 200
    said = {"anomaly_ids": ids[1:2], "verdict": "normal", "note": sent}
    assert browser.post("/api/verdicts", json=said, headers={"x-csrf-token": token}).status_code == 200
    assert {record.one(here.ledger, name).verdicts[0].note for name in ids[:2]} == {longest}
    again = {"anomaly_ids": ids[1:2], "verdict": "normal", "note": longest}
    assert (
        browser.post("/api/verdicts", json=again, headers={"x-csrf-token": token}).json()["anomaly_ids"] == []
    )
    last = (datetime.now(UTC).date() + timedelta(days=5)).isoformat()
    rule = {"dataset": "payments", "signature": "amount↑", "ends_on": last, "note": sent}
    made = browser.post("/api/rules", json=rule, headers={"x-csrf-token": token}).json()
    assert made["note"] == longest
    assert browser.get("/rules", params=rule).status_code == 200
    for text in (longest + "x", "a\0b"):
        assert browser.post("/verdicts", data=form | {"note": text}).status_code == 422


@pytest.mark.parametrize("page", ["//evil.example", "https://evil.example", "record"])
def test_a_form_leads_back_to_our_own_pages_only(browser: TestClient, ids: list[str], page: str) -> None:
    """A redirect that anybody can aim is a stranger's door."""
    browser.follow_redirects = False
    form = {
        "csrf": csrf(browser),
        "verdict": "normal",
        "anomaly_id": ids[0],
        "page": page,
        "query": "next=//evil.example",
    }
    answer = browser.post("/verdicts", data=form)
    if page == "record":
        assert answer.headers["location"].startswith(f"/record/{ids[0]}?told=")
    assert "evil" not in answer.headers.get("location", "")


def test_a_group_is_judged_whole_or_not_at_all(
    browser: TestClient, here: Installation, ids: list[str]
) -> None:
    """What joined since the reviewer looked is not judged unseen."""
    token = {"x-csrf-token": csrf(browser)}
    said = {"dataset": "payments", "signature": "amount↑", "verdict": "expected_change", "n": 4}
    refused = browser.post("/api/groups/verdicts", json=said, headers=token)
    assert refused.status_code == 404
    assert "has 5 open records now, not 4" in refused.json()["detail"]
    done = browser.post("/api/groups/verdicts", json=said | {"n": 5}, headers=token).json()
    assert set(done["anomaly_ids"]) == set(ids)
    newest = browser.get("/api/acts/newest").json()
    assert newest["act"] == done["act"]
    assert newest["what"] == "expected change on 5 records of payments, all odd in amount↑"
    back = browser.post(f"/api/acts/{done['act']}/undo", headers=token).json()
    assert set(back["states"].values()) == {"open"}
    assert back["what"] == newest["what"]
    assert browser.get("/api/acts/newest").status_code == 404


def test_a_form_asks_before_it_judges_a_group_of_many(browser: TestClient, here: Installation) -> None:
    """With its note; the button on that page gives the verdict."""
    put(here.ledger, [row(f"m{i}", signature="late↑") for i in range(21)])
    form = {"csrf": csrf(browser), "dataset": "payments", "signature": "late↑", "verdict": "normal"}
    asked = browser.post("/groups/verdicts", data=form | {"n": "21", "note": "why not"})
    assert asked.status_code == 409
    assert "All 21 records?" in asked.text
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', asked.text.partition("<main")[2]))
    assert (hidden["sure"], hidden["note"], hidden["n"]) == ("true", "why not", "21")
    alike = Filters(signature="late↑")
    assert queue.counts(here.ledger, alike)["state"] == {"open": 21}
    browser.post("/groups/verdicts", data=form | {"n": "21", "note": "why not", "sure": "true"})
    assert queue.counts(here.ledger, alike)["state"] == {"normal": 21}


@pytest.mark.parametrize(
    ("part", "days"),
    [
        ({}, (29, 30, 31)),
        ({"since": "2026-01-30"}, (30, 31)),
        ({"until": "2026-01-30"}, (29, 30)),
        ({"since": "2026-01-30", "until": "2026-01-30"}, (30,)),
        ({"batch": "2026-01-29"}, (29,)),
    ],
)
@pytest.mark.parametrize("by", ["form", "api"])
def test_a_verdict_on_a_group_is_on_what_the_list_showed_of_it(
    browser: TestClient, here: Installation, part: dict[str, str], days: tuple[int, ...], by: str
) -> None:
    """A list of some days or of one batch shows a part of a group, and counts it."""
    put(here.ledger, [row(f"{day}-{i}", f"2026-01-{day}") for day in (29, 30, 31) for i in range(day - 27)])
    n = sum(day - 27 for day in days)
    page = browser.get("/groups", params=part).text
    group = page[page.index('<li class="group"') :]
    group = group[: group.index("</li>")]
    (link,) = re.findall(r'<h2 class="signature"><a href="([^"]*)"', group)
    assert len(re.findall(r'class="key"[^>]*>', browser.get(html.unescape(link)).text)) == n
    if by == "form":
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', group[group.index("<form") :]))
        assert (
            f"normal: {n} record"
            in browser.post("/groups/verdicts", data=fields | {"verdict": "normal"}).text
        )
    else:
        (found,) = browser.get("/api/groups", params=part).json()
        said = {"dataset": "payments", "signature": found["signature"], "n": found["n"], "verdict": "normal"}
        done = browser.post("/api/groups/verdicts", json=said | part, headers={"x-csrf-token": csrf(browser)})
        assert len(done.json()["anomaly_ids"]) == n
    judged = queue.page(here.ledger, Filters(state="normal")).rows
    assert {one.day for one in judged} == {f"2026-01-{day}" for day in days}
    assert len(judged) == n


@pytest.mark.parametrize("signature", ["·", ""], ids=["marked", "empty"])
def test_a_group_of_no_single_column_is_a_group_like_another(
    here: Installation, browser: TestClient, ids: list[str], signature: str
) -> None:
    """Its links lead to it and to nothing else, and its form judges it; sampled records are none of it."""
    mine = [row(f"n{i}", signature=signature, driver="", reasons=[]) for i in range(2)]
    drawn = row("s0", signature=signature, driver="", reasons=[], kind="sampled", severity=0.1)
    put(here.ledger, [*mine, drawn, *(row(f"k{i}") for i in range(5))])
    page = browser.get("/groups").text
    group = page[page.index(f'data-signature="{signature}"') :]
    group = group[: group.index("</li>")]
    assert "of no single column" in group
    for link in re.findall(r'href="(/\?[^"]*)"', group):
        shown = browser.get(html.unescape(link)).text
        assert sorted(re.findall(r'class="key"[^>]*>(\w+)</a>', shown)) == ["n0", "n1"]
    for link in re.findall(r'href="(/rules[^"]*)"', group):
        assert "would have hidden <b>2</b>" in browser.get(html.unescape(link)).text
    assert "odd in the same way" not in browser.get(f"/record/{drawn['anomaly_id']}").text
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', group[group.index("<form") :]))
    judged = browser.post("/groups/verdicts", data=fields | {"verdict": "normal"})
    assert "normal: 2 records" in judged.text


def test_a_disagreement_is_shown_and_settled_knowingly(
    browser: TestClient, here: Installation, ids: list[str]
) -> None:
    """Both words, both names; the next verdict from this page ends it."""
    judging.give(here.ledger, ids[:1], "anomaly", by="bob")
    token = {"x-csrf-token": csrf(browser)}
    said = {"anomaly_ids": ids[:1], "verdict": "normal"}
    assert browser.post("/api/verdicts", json=said, headers=token).json()["conflicts"] == ids[:1]
    page = browser.get(f"/record/{ids[0]}").text
    assert "Reviewers differ" in page
    assert 'name="settle" value="true"' in page
    assert "bob" in page
    settled = browser.post("/api/verdicts", json=said | {"settle": True}, headers=token).json()
    assert settled["states"] == {ids[0]: "normal"}


def test_a_verdict_and_a_record_lead_back_to_the_same_page_of_the_list(
    browser: TestClient, here: Installation, ids: list[str]
) -> None:
    """Not to its first one: somebody on the tenth page has nine behind them."""
    after = browser.get("/api/records", params={"limit": 2}).json()["more_after"]
    page = browser.get("/", params={"after": after}).text
    record_link = re.search(rf'href="(/record/{ids[2]}[^"]*)"', page)
    query = re.search(r'name="query" value="([^"]*)"', page)
    assert record_link
    assert query
    up = re.search(r'class="up" href="(/[^"#]*)#', browser.get(html.unescape(record_link[1])).text)
    assert up
    form = {
        "csrf": csrf(browser),
        "verdict": "normal",
        "anomaly_id": ids[2],
        "query": html.unescape(query[1]),
    }
    judged = browser.post("/verdicts", data=form)
    assert judged.url.params["after"] == after
    for shown in (judged.text, browser.get(html.unescape(up[1])).text):
        assert ids[3] in shown
        assert ids[0] not in shown
    assert 'href="/?">‹ the newest' in page


def test_a_record_is_claimed_and_let_go_without_a_script(
    browser: TestClient, here: Installation, ids: list[str]
) -> None:
    """By forms; who was first stays, and the list says who."""
    token, path = {"csrf": csrf(browser), "query": "driver=amount"}, f"/record/{ids[0]}"
    assert "claim it for ten minutes" in browser.get(path).text
    claimed = browser.post(f"{path}/claim", data=token)
    assert (claimed.url.path, claimed.url.params["driver"]) == (path, "amount")
    assert re.search(r"yours until .*; others are told", claimed.text)
    assert "claim it for ten minutes" in browser.post(f"{path}/release", data=token).text
    claims.claim(here.ledger, ids[0], by="bob")
    assert "bob was here first" in browser.post(f"{path}/claim", data=token).text
    assert "bob is at this record until" in browser.post(f"{path}/release", data=token).text
    assert 'title="until' in browser.get("/").text


def test_a_note_goes_with_a_verdict_on_several_and_on_a_group_without_a_script(
    browser: TestClient, here: Installation, ids: list[str]
) -> None:
    """Each page's form has a place for it."""
    for path in ("/", "/groups"):
        assert '<textarea name="note"' in _main(browser.get(path).text)
    form = {"csrf": csrf(browser), "verdict": "normal", "note": "the sale"}
    browser.post("/verdicts", data=form | {"anomaly_id": ids[:2]})
    browser.post("/groups/verdicts", data=form | {"dataset": "payments", "signature": "amount↑", "n": 3})
    assert [[one.note for one in record.one(here.ledger, name).verdicts] for name in ids] == [
        ["the sale"]
    ] * 5


def _main(page: str) -> str:
    """What a page is about, without what stands on every one."""
    return page[page.index("<main") : page.index("</main>")]


def test_what_somebody_else_is_at_is_given_by_one_press_more(
    browser: TestClient, here: Installation, ids: list[str]
) -> None:
    """Without a script: the page says who, and its button sends the same again, note and all."""
    claims.claim(here.ledger, ids[0], by="bob")
    form = {"csrf": csrf(browser), "verdict": "normal", "anomaly_id": ids[0], "note": 'a "note"'}
    asked = browser.post("/verdicts", data=form | {"page": "record", "query": "driver=amount"})
    assert asked.status_code == 409
    assert "bob is at record" in asked.text
    assert queue.states(here.ledger, ids[:1]) == {ids[0]: "open"}
    fields = {k: html.unescape(v) for k, v in re.findall(r'name="(\w+)" value="([^"]*)"', _main(asked.text))}
    given = browser.post("/verdicts", data=fields)
    assert given.url.path == f"/record/{ids[0]}"
    (said,) = record.one(here.ledger, ids[0]).verdicts
    assert (said.verdict, said.note) == ("normal", 'a "note"')
    some = browser.post("/verdicts", data=form | {"anomaly_id": ids[1:3]})
    assert "normal: 2 records" in some.text


def test_bulk_and_group_verdicts_say_how_many_they_left_out(
    browser: TestClient, here: Installation, ids: list[str]
) -> None:
    """By forms and by the API, which has a field to take them along."""
    claims.claim(here.ledger, ids[0], by="bob")
    form = {"csrf": csrf(browser), "verdict": "normal", "anomaly_id": ids[:3]}
    told = browser.post("/verdicts", data=form).text
    assert "normal: 2 records; 1 left out: somebody else is at it" in told
    group = {"dataset": "payments", "signature": "amount↑", "verdict": "normal", "n": 3}
    assert (
        "2 records; 1 left out" in browser.post("/groups/verdicts", data=group | {"csrf": csrf(browser)}).text
    )
    token = {"x-csrf-token": csrf(browser)}
    alone = group | {"n": 1}
    assert browser.post("/groups/verdicts", data=alone | {"csrf": csrf(browser)}).status_code == 409
    refused = browser.post("/api/groups/verdicts", json=alone, headers=token)
    assert refused.status_code == 409
    assert "bob is at record" in refused.json()["detail"]
    one = {"anomaly_ids": ids[:2], "verdict": "anomaly"}
    assert browser.post("/api/verdicts", json=one, headers=token).json()["claimed"] == ids[:1]
    assert (
        browser.post("/api/verdicts", json=one | {"anomaly_ids": ids[:1]}, headers=token).status_code == 409
    )
    done = browser.post("/api/groups/verdicts", json=alone | {"anyway": True}, headers=token).json()
    assert (done["anomaly_ids"], done["claimed"]) == (ids[:1], [])
