"""The review page: refused to strangers on every route, harmless whatever a record holds, and useful without a script."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from pipeline.installation import Installation
from pipeline.ledger import BatchState
from pipeline.review import judging, queue, record, suppression
from pipeline.review.filters import BANDS, Filters
from pipeline.review.web.access import POLICY, Reviewer
from pipeline.review.web.alone import COOKIE, alone
from pipeline.review.web.app import create_app
from pipeline.review.web.shapes import Band
from pipeline.settings import Settings

from .review_data import put, reason, row

DATASET = (
    "dataset: payments\nincoming: {path: ../incoming}\ncolumns: {amount: {type: float, role: numeric}}\n"
)
TOKEN = "a token that only the terminal knows"  # noqa: S105  # made up
SITE = "http://localhost"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }} {% raw %}",
    "</textarea></script><svg/onload=alert(1)>",
    "javascript:alert(1)",
    "x" * 1_000_000,
    "\x1b[31m\u202e\N{ZERO WIDTH SPACE}",
]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "payments.yaml").write_text(DATASET)
    installation = Installation(Settings(home=tmp_path / "home", datasets=tmp_path / "datasets"))
    yield installation
    installation.close()


@pytest.fixture
def ids(here: Installation) -> list[str]:
    """Five records of one signature, the most severe first."""
    rows = [row(f"k{i}", severity=9.0 - i) for i in range(5)]
    put(here.ledger, rows)
    return [one["anomaly_id"] for one in rows]


@pytest.fixture
def app(here: Installation) -> FastAPI:
    return alone(here, "ann", TOKEN, hosts=["localhost"])


@pytest.fixture
def browser(app: FastAPI) -> TestClient:
    """A browser that opened the address once."""
    client = TestClient(app, base_url=SITE, headers={"sec-fetch-site": "same-origin"})
    assert client.get("/", params={"token": TOKEN}).status_code == 200
    return client


def as_role(here: Installation, may_write: bool | None, **only: frozenset[str]) -> TestClient:
    """A browser whose host knows it as one who may write, only read, or (None) not even that; or of some datasets only."""

    async def identify(request: Request) -> Reviewer:
        if may_write is None:
            raise HTTPException(403, "no role")
        return Reviewer("vera", may_write=may_write, **only)

    identify.__annotations__ = {"request": Request}
    return TestClient(create_app(here, identify=identify, secret=b"s"), base_url=SITE)


def test_a_batchs_report_is_served_as_it_lies_on_disk(here: Installation) -> None:
    """Behind the same door as the records, with styles of its own and no script; no other file is."""
    client = as_role(here, may_write=False)
    known = BatchState(
        dataset="payments", batch_id="b1", version=0, status="refused", reason="", fingerprint="f", signature="", contract_hash="",
        files=[], notes=[], set_aside={}, n_read=9, n_accepted=0, newest_record_at=None, validated_at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    here.ledger.record_validation(known)
    page = here.page(here.dataset("payments"), "b1") / "run.html"
    assert client.get("/report/payments/b1/run.html").status_code == 404
    page.parent.mkdir(parents=True)
    page.write_text("<p>it can</p>", encoding="utf-8")
    (page.parent / "checkpoint.json").write_text("{}", encoding="utf-8")
    answer = client.get("/report/payments/b1/run.html")
    assert (answer.status_code, answer.text) == (200, "<p>it can</p>")
    assert "script" not in answer.headers["content-security-policy"]
    assert 'vaewatch_batches{dataset="payments"' in client.get("/metrics").text
    stranger = as_role(here, may_write=True, reads=frozenset({"orders"}))
    assert stranger.get("/report/payments/b1/run.html").status_code == 404
    assert "payments" not in stranger.get("/metrics").text
    for path in (
        "payments/b1/checkpoint.json",
        "payments/../run.html",
        "payments/%2e%2e/run.html",
        "other/b1/run.html",
    ):
        assert client.get(f"/report/{path}").status_code in {404, 422}
    elsewhere = as_role(here, may_write=True, reads=frozenset({"other"}))
    refused = elsewhere.get("/report/payments/b1/run.html")
    assert (refused.status_code, "it can" in refused.text) == (404, False)


def csrf(client: TestClient) -> str:
    found = re.search(r'data-csrf="([0-9a-f]{64})"', client.get("/overview").text)
    assert found
    return found[1]


def every_route(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every route of an application, with something in each place."""
    found = []
    for route in app.routes:
        assert isinstance(route, APIRoute), f"{route} passes no guard: a mount, or a route of the framework's"
        path = re.sub(r"\{\w+\}", "1", route.path)
        found += [(method, path) for method in sorted(route.methods - {"HEAD"})]
    assert len(found) > 20
    return found


def test_a_stranger_is_refused_on_every_route(app: FastAPI) -> None:
    """One that was forgotten is one that leaks."""
    client = TestClient(app, base_url=SITE)
    for method, path in every_route(app):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": f"{COOKIE}=wrong"}):
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path, headers)
            assert "k0" not in answer.text


def test_one_without_a_role_is_refused_and_one_who_reads_cannot_write(
    here: Installation, ids: list[str]
) -> None:
    """The wrong role, on every route."""
    nobody, reader = as_role(here, None), as_role(here, may_write=False)
    token = {"x-csrf-token": csrf(reader), "sec-fetch-site": "same-origin"}
    for method, path in every_route(create_app_of(reader)):
        assert nobody.request(method, path).status_code == 403, (method, path)
        answer = reader.request(method, path, headers=token)
        assert (answer.status_code == 403) is (method != "GET"), (method, path, answer.status_code)
    assert "data-writes" not in reader.get("/").text
    said = {"anomaly_ids": ids[:1], "verdict": "normal"}
    assert reader.post("/api/verdicts", json=said, headers=token).status_code == 403
    assert queue.counts(here.ledger, Filters())["state"] == {"open": 5}


@pytest.fixture
def secret(here: Installation, ids: list[str]) -> dict[str, str]:
    """A dataset beside payments, with a verdict of vera's and a rule; what its records are called in an address or a body."""
    rows = [row(f"SECRET-{i}", dataset="secret", severity=9.5, signature="hush↑") for i in range(2)]
    put(here.ledger, [*rows, row("SECRET-2", dataset="secret", kind="sampled", signature="", severity=0.1)])
    names = [one["anomaly_id"] for one in rows]
    act = judging.give(here.ledger, names[:1], "anomaly", by="vera", note="hush").act
    last = (datetime.now(UTC).date() + timedelta(days=5)).isoformat()
    kept = suppression.save(here.ledger, suppression.Rule("secret", "no↑", {}, last, "hush", "bob"))
    return {
        "anomaly_id": names[1],
        "act": act,
        "number": str(kept.number),
        "name": "review.css",
        "dataset": "secret",
        "batch_id": "2026-01-30",
        "page": "run.html",
        "last": last,
    }


def said_of_all(secret: dict[str, str], path: str) -> dict[str, Any]:
    """A body for any route that changes something, about the secret dataset."""
    rule = {"conditions": {"country": "DE"}, "ends_on": secret["last"], "note": "x"}
    form = {"anomaly_id": secret["anomaly_id"], "column": "country", "value": "DE", **rule}
    about = {"dataset": "secret", "signature": "hush↑", "n": 1, "verdict": "normal", "act": secret["act"]}
    if path.startswith("/api"):
        return {"json": {"anomaly_ids": [secret["anomaly_id"]], **rule, **about}}
    return {"data": {name: value for name, value in (form | about).items() if name != "conditions"}}


def test_who_may_not_read_a_dataset_meets_no_trace_of_it(
    here: Installation, ids: list[str], secret: dict[str, str]
) -> None:
    """On every route: by its address, by a body, or among others; what is another team's is not there."""
    vera = as_role(here, may_write=True, reads=frozenset({"payments"}))
    headers = {"x-csrf-token": csrf(vera), "sec-fetch-site": "same-origin"}
    before, n_read, n_refused = snapshot(here), 0, 0
    for route in create_app_of(vera).routes:
        assert isinstance(route, APIRoute)
        path = re.sub(r"\{(\w+)\}", lambda found: secret[found[1]], route.path)
        for method in route.methods - {"HEAD"}:
            asked = {"params": {"state": "any"}} if method == "GET" else said_of_all(secret, path)
            answer = vera.request(method, path, headers=headers, follow_redirects=False, **asked)
            told = html.unescape(answer.text).replace("dataset 'secret'", "")  # as it was asked about
            assert not re.search("SECRET|hush|secret", told), (method, path)
            if method == "GET" and not re.search(r"\{(anomaly_id|dataset)\}", route.path):
                assert answer.status_code in {200, 422}, (method, path, answer.text)
                n_read += 1
            elif path != f"/api/records/{secret['anomaly_id']}/claim" or method != "DELETE":
                assert answer.status_code == 404, (method, path, answer.status_code, answer.text)
                n_refused += 1
    assert snapshot(here) == before
    assert n_read > 8
    assert n_refused > 14
    for path in ("/overview", "/rules", "/api/stats", "/api/rules/preview", "/"):
        told = vera.get(path, params={"dataset": "secret"}).text
        assert "SECRET" not in told
        assert "hush" not in told
    assert vera.get("/api/stats").json()["states"] == {"open": 5}
    assert vera.get("/api/counts").json()["dataset"] == {"payments": 5}


def snapshot(here: Installation) -> list[Any]:
    """Everything that review ever writes."""
    with here.ledger.transaction() as connection:
        names = ("verdicts", "suppressions", "record_claims", "queue")
        return [connection.exec_driver_sql(f"SELECT * FROM {name} ORDER BY 1").all() for name in names]


def test_who_may_only_read_a_dataset_changes_nothing_of_it(
    here: Installation, ids: list[str], secret: dict[str, str]
) -> None:
    """And may judge the other one as before."""
    both = frozenset({"payments", "secret"})
    vera = as_role(here, may_write=True, reads=both, writes=frozenset({"payments"}))
    headers = {"x-csrf-token": csrf(vera), "sec-fetch-site": "same-origin"}
    before, n_refused = snapshot(here), 0
    for route in create_app_of(vera).routes:
        assert isinstance(route, APIRoute)
        path = re.sub(r"\{(\w+)\}", lambda found: secret[found[1]], route.path)
        for method in route.methods - {"HEAD", "GET", "DELETE"}:
            asked = said_of_all(secret, path)
            answer = vera.request(method, path, headers=headers, follow_redirects=False, **asked)
            assert answer.status_code == 403, (method, path, answer.text)
            n_refused += 1
    assert snapshot(here) == before
    assert n_refused > 10
    theirs, mine = (vera.get(f"/record/{name}").text for name in (secret["anomaly_id"], ids[0]))
    assert ('class="saying"' in theirs, 'class="saying"' in mine) == (False, True)
    assert "Your role reads here" in theirs
    mixed = {"anomaly_ids": [ids[0], secret["anomaly_id"]], "verdict": "normal"}
    assert vera.post("/api/verdicts", json=mixed, headers=headers).status_code == 403
    assert snapshot(here) == before
    said = {"anomaly_ids": ids[:1], "verdict": "normal"}
    assert vera.post("/api/verdicts", json=said, headers=headers).status_code == 200


def test_a_token_may_open_one_dataset_only(
    here: Installation, ids: list[str], secret: dict[str, str]
) -> None:
    """For a reviewer from another team, on the same machine."""
    app = alone(here, "cem", TOKEN, hosts=["localhost"], only=["payments"])
    client = TestClient(app, base_url=SITE, headers={"authorization": f"Bearer {TOKEN}"})
    assert {one["dataset"] for one in client.get("/api/records").json()["records"]} == {"payments"}
    assert client.get(f"/api/records/{secret['anomaly_id']}").status_code == 404
    said = {"anomaly_ids": ids[:1], "verdict": "normal"}
    assert client.post("/api/verdicts", json=said).status_code == 200


def create_app_of(client: TestClient) -> FastAPI:
    assert isinstance(client.app, FastAPI)
    return client.app


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:8081"},
    ],
    ids=str,
)
def test_what_another_site_sends_is_refused_on_every_route(
    browser: TestClient, app: FastAPI, ids: list[str], here: Installation, headers: dict[str, str]
) -> None:
    """A page that a reviewer has open beside this one must not speak in their name."""
    token = csrf(browser)
    del browser.headers["sec-fetch-site"]
    for method, path in every_route(app):
        if method != "GET":
            sent = {**headers, "x-csrf-token": token}
            assert browser.request(method, path, headers=sent).status_code == 403, (method, path)
    form = {"csrf": token, "verdict": "normal", "anomaly_id": ids[0]}
    assert browser.post("/verdicts", data=form, headers=headers).status_code == 403
    assert queue.counts(here.ledger, Filters())["state"] == {"open": 5}


@pytest.mark.parametrize("token", ["", "0" * 64, "ÿ"])
def test_a_form_without_our_token_is_refused(browser: TestClient, ids: list[str], token: str) -> None:
    """Where a browser says nothing of where a form comes from, its token has to."""
    form = {"csrf": token, "verdict": "normal", "anomaly_id": ids[0]}
    assert browser.post("/verdicts", data=form).status_code == 403
    sent: dict[str, Any] = {"x-csrf-token": token.encode("latin-1")}
    said = {"anomaly_ids": ids[:1], "verdict": "normal"}
    assert browser.post("/api/verdicts", json=said, headers=sent).status_code == 403


def test_the_token_goes_from_the_address_into_a_cookie_that_no_script_reads(app: FastAPI) -> None:
    """An address is kept in histories and logs."""
    client = TestClient(app, base_url=SITE, follow_redirects=False)
    answer = client.get("/groups", params={"token": TOKEN, "dataset": "payments"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/groups?dataset=payments")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert client.get("/groups").status_code == 200


def test_a_name_that_somebody_pointed_at_this_machine_is_refused(app: FastAPI) -> None:
    """DNS rebinding: the browser believes that it talks to the stranger's site."""
    assert (
        TestClient(app, base_url="http://evil.example").get("/", params={"token": TOKEN}).status_code == 400
    )


@pytest.mark.parametrize(
    ("site", "status"),
    [
        ("http://192.0.2.7:8200", 200),
        ("http://[2001:db8::7]:8200", 200),
        ("http://review.example:8200", 200),
        ("http://localhost:8200", 200),
        ("http://evil.example:8200", 400),
        ("http://192.0.2.7.evil.example", 400),
    ],
)
def test_on_every_address_it_is_known_by_any_and_by_its_names(
    here: Installation, site: str, status: int
) -> None:
    """A number cannot be pointed at somebody else's machine; a name can."""
    every = alone(here, "ann", TOKEN, hosts=["0.0.0.0", "localhost", "review.example"], any_address=True)  # noqa: S104
    assert TestClient(every, base_url=site).get("/", params={"token": TOKEN}).status_code == status
    if "192" in site:
        one = alone(here, "ann", TOKEN, hosts=["192.0.2.8", "localhost"])
        assert TestClient(one, base_url=site).get("/", params={"token": TOKEN}).status_code == 400


def test_an_address_of_the_sixth_version_is_known(here: Installation) -> None:
    """It stands in brackets where a port may follow."""
    one = alone(here, "ann", TOKEN, hosts=["2001:db8::7"])
    client = TestClient(one, base_url="http://[2001:db8::7]:8200")
    assert client.get("/", params={"token": TOKEN}).status_code == 200


def test_the_addresses_that_are_printed_open_the_page(here: Installation) -> None:
    """On this machine, and as other machines would ask for it."""
    settings = here.settings
    places = {"VAEWATCH_HOME": str(settings.home), "VAEWATCH_DATASETS": str(settings.datasets)}
    command = [sys.executable, "-u", "-m", "pipeline.cli", "review", "--port", "0", "--host", "0.0.0.0"]  # noqa: S104
    with subprocess.Popen(
        [*command, "--name", "review.example"], env=os.environ | places, stdout=subprocess.PIPE, text=True
    ) as served:
        assert served.stdout
        try:
            lines = [served.stdout.readline(), served.stdout.readline()]
            printed = [httpx.URL(line.split()[-1]) for line in lines]
            assert [address.host for address in printed] == ["127.0.0.1", "review.example"]
            for address in printed:
                asked = address.copy_with(host="127.0.0.1")
                answer = httpx.get(asked, headers={"host": address.netloc.decode()}, trust_env=False)
                assert answer.status_code == 303
        finally:
            served.kill()


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


@pytest.mark.parametrize("text", HOSTILE, ids=[repr(text[:20]) for text in HOSTILE])
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
        record={text[:200]: text, "amount": text},
    )
    put(here.ledger, [evil])
    name = evil["anomaly_id"]
    token = {"x-csrf-token": csrf(browser)}
    said = {"anomaly_ids": [name], "verdict": "normal", "note": text[:4000]}
    assert browser.post("/api/verdicts", json=said, headers=token).status_code == 200
    rule = suppression.Rule(
        "payments", f"{text[:200]}↑", {text[:100]: text[:100]}, "2099-01-01", text[:300], text[:200]
    )
    pages = [
        "/?state=any",
        f"/record/{name}?state=any",
        "/groups",
        "/overview",
        f"/record/{name}/neighbours?part=true",
    ]
    for page in [*pages, "/rules"]:
        answer = browser.get(page)
        assert answer.status_code in {200, 404}, (page, answer.text[:300])
        Harmless().feed(answer.text)
        assert len(answer.text) < 120_000, page
    typed = {
        "search": text[:200],
        "driver": text[:200],
        "reviewer": text[:200],
        "signature": text[:200],
        "told": text[:300],
    }
    for page in ("/", "/groups", "/rules"):
        asked = (
            typed
            if page != "/rules"
            else {
                "dataset": "payments",
                "signature": text[:200],
                "note": text[:300],
                "column": text[:99],
                "value": text[:99],
            }
        )
        Harmless().feed(browser.get(page, params=asked).text)
    assert rule.hides(f"{text[:200]}↑", {text[:100]: text[:100]})


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
    assert "withdrawn: 2 verdicts" in undone.text
    assert queue.counts(here.ledger, Filters())["state"] == {"open": 5}
    nothing = browser.post("/verdicts", data={"csrf": csrf(browser), "verdict": "normal"})
    assert "tick the records" in nothing.text


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
    back = browser.post(f"/api/acts/{done['act']}/undo", headers=token).json()
    assert set(back["states"].values()) == {"open"}


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
    assert "rule 1 holds" in browser.post("/rules", data=kept).text
    (rule,) = browser.get("/api/rules").json()
    assert rule["conditions"] == {"country": "DE", "at": "night"}
    assert queue.total(here.ledger, Filters(suppressed=True)) == 2
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
    assert browser.get("/api/records/unknown").status_code == 404
    assert browser.get("/api/records", params={"state": "fraud"}).status_code == 422


def test_a_program_with_the_token_needs_no_page(app: FastAPI, here: Installation, ids: list[str]) -> None:
    """A bearer token is sent by nobody's browser on its own."""
    program = TestClient(app, base_url=SITE, headers={"authorization": f"Bearer {TOKEN}"})
    said = {"anomaly_ids": ids[:1], "verdict": "anomaly"}
    assert program.post("/api/verdicts", json=said).status_code == 200
    assert record.one(here.ledger, ids[0])["verdicts"][0]["by"] == "ann"


@pytest.mark.parametrize("body", [b"x" * 1_000_001, None])
def test_a_body_that_is_too_long_or_of_no_length_is_not_read(browser: TestClient, body: bytes | None) -> None:
    """It would be read before anybody asks who sent it."""

    def endless() -> Iterator[bytes]:
        yield b"x"

    answer = browser.post("/api/verdicts", content=body or endless())
    assert answer.status_code == (413 if body else 411)


@pytest.mark.parametrize(
    "page", ["/", "/?state=any", "/?driver=none", "/groups", "/overview", "/rules", "/?suppressed=true"]
)
def test_every_empty_page_says_what_to_do_next(browser: TestClient, page: str) -> None:
    """The first thing that anybody sees of an installation is an empty page."""
    text = browser.get(page).text
    assert 'class="empty"' in text
    assert re.search(r'class="empty".*(<a href|<code>vaewatch)', text, re.DOTALL)


def test_what_is_missing_is_told_as_a_page(browser: TestClient) -> None:
    """Not as a traceback, and not as JSON to a person."""
    answer = browser.get("/record/unknown")
    assert (answer.status_code, "text/html" in answer.headers["content-type"]) == (404, True)
    assert "not in the queue" in answer.text


def test_walking_the_records_follows_the_list(browser: TestClient, ids: list[str]) -> None:
    """j and k lead where the list would."""
    page = browser.get(f"/record/{ids[2]}?driver=amount").text
    assert f'rel="prev" href="/record/{ids[1]}?driver=amount"' in page
    assert f'rel="next" href="/record/{ids[3]}?driver=amount"' in page


class Form(HTMLParser):
    """What the search form would send."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sent: dict[str, str] = {}
        self._is_inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one tag."""
        given = dict(attrs)
        if tag == "form":
            self._is_inside = given.get("role") == "search"
        if tag == "input" and self._is_inside:
            self.sent[str(given["name"])] = given.get("value") or ""


@pytest.mark.parametrize(
    ("asked", "empty", "searched"),
    [
        ("/", ["k1"], ["k0"]),
        ("/?state=any", ["k0", "k1"], ["k0"]),
        ("/?state=open", ["k1"], ["k0"]),
        ("/?state=normal", ["k0"], ["k0"]),
        ("/?state=anomaly", [], []),
        ("/?search=k", ["k1"], ["k0"]),
        ("/?search=k&state=any", ["k0", "k1"], ["k0"]),
        ("/?search=k&state=open", ["k1"], []),
    ],
)
def test_the_search_form_neither_drops_nor_forces_a_state(
    here: Installation, browser: TestClient, asked: str, empty: list[str], searched: list[str]
) -> None:
    """From the open records a judged one is found; a state that was chosen stays chosen, with a search or without."""
    rows = [row("k0"), row("k1")]
    put(here.ledger, rows)
    judging.give(here.ledger, [rows[0]["anomaly_id"]], "normal", by="ann")
    form = Form(browser.get(asked).text).sent

    def keys(search: str) -> list[str]:
        shown = browser.get("/", params=form | {"search": search}).text
        return sorted(re.findall(r'class="key"[^>]*>(\w+)</a>', shown))

    assert (keys(""), keys("k0")) == (empty, searched)


def test_a_state_can_be_chosen_within_a_search(
    here: Installation, browser: TestClient, ids: list[str]
) -> None:
    """Also the one that is shown unasked where nothing is searched for."""
    judging.give(here.ledger, ids[:1], "normal", by="ann")
    page = browser.get("/", params={"search": "k"}).text
    assert "/?state=open&amp;search=k" in page


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_version", "9" * 23),
        ("model_version", "-1"),
        ("band", "9" * 23),
        ("band", "5"),
        ("band", "²"),
        ("since", "2026-1-5"),
        ("since", "2026-02-30"),
        ("until", "٢٠٢٦-٠١-٠١"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(browser: TestClient, name: str, value: str) -> None:
    """Not taken for another one, and not handed to a database that cannot hold it."""
    for page in ("/", "/api/records", "/groups"):
        answer = browser.get(page, params={name: value})
        assert answer.status_code == 422, page
        assert name in answer.text


def test_every_band_can_be_asked_for(browser: TestClient, ids: list[str]) -> None:
    """The ones that the queue counts, and the list that describes them to programs."""
    assert set(get_args(get_args(Band)[0])) == set(BANDS)
    n = [len(browser.get("/api/records", params={"band": band}).json()["records"]) for band in BANDS]
    assert n == [5, 5, 5, 5, 4, 0, 0]


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


def test_a_link_of_the_overview_shows_as_many_as_it_says(
    here: Installation, browser: TestClient, ids: list[str]
) -> None:
    """Of the dataset that is looked at, without what was drawn at random."""
    put(here.ledger, [*(row(f"k{i}", severity=9.0 - i) for i in range(5)), row("s0", kind="sampled")])
    put(here.ledger, [row("o0", dataset="orders")])
    page = browser.get("/overview", params={"dataset": "payments"}).text
    links = re.findall(r'href="(/\?[^"]*)">(?:Review|Judge some|<span class="pill open">)', page)
    assert len(links) == 3
    for link in links:
        shown = browser.get(html.unescape(link)).text
        assert sorted(re.findall(r'class="key"[^>]*>(\w+)</a>', shown)) == [f"k{i}" for i in range(5)]


def test_groups_of_all_days_say_so(browser: TestClient, ids: list[str]) -> None:
    """And lead back."""
    link = re.search(r'href="(/groups\?since[^"]*)">all days', browser.get("/groups").text)
    assert link
    page = browser.get(html.unescape(link[1])).text
    assert "Of all days" in page
    assert "0001" not in page[page.index("Of all days") : page.index("</p>", page.index("Of all days"))]


def test_files_are_shipped_and_kept_by_the_browser(browser: TestClient) -> None:
    """They work offline, and a new release's are fetched anew."""
    page = browser.get("/").text
    for file in re.findall(r'(?:href|src)="(/assets/[^"]+)"', page):
        answer = browser.get(file)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert browser.get("/assets/../app.py").status_code == 404
