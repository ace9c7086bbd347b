"""The review page lets nobody do what they may not: on every route, for every role, dataset, site and
token.
"""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from pipeline.installation import Installation
from pipeline.review import judging, queue, record, suppression
from pipeline.review.filters import Filters
from pipeline.web.alone import COOKIE, alone

from .review_data import SITE, TOKEN, put, refused, row
from .review_page import as_role, create_app_of, csrf, every_route, snapshot


def test_a_batchs_report_is_served_as_it_lies_on_disk(here: Installation) -> None:
    """Behind the same door as the records, with styles of its own and no script; no other file is."""
    client = as_role(here, may_write=False)
    here.ledger.record_validation(refused("b1"))
    page = here.page(here.dataset("payments"), "b1") / "run.html"
    assert client.get("/report/payments/b1/run.html").status_code == 404
    page.parent.mkdir(parents=True)
    page.write_text('<p>it can</p><a data-to="record/a1">a1</a>', encoding="utf-8")
    (page.parent / "checkpoint.json").write_text("{}", encoding="utf-8")
    answer = client.get("/report/payments/b1/run.html")
    assert (answer.status_code, answer.text) == (200, '<p>it can</p><a href="/record/a1">a1</a>')
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
    answer = elsewhere.get("/report/payments/b1/run.html")
    assert (answer.status_code, "it can" in answer.text) == (404, False)


def test_a_trainings_page_is_served_to_those_who_may_read_its_dataset(here: Installation) -> None:
    """Airflow's link beside the task leads here; the key alone opens nothing, and no other file does."""
    client, key = as_role(here, may_write=False), "0123456789abcdef"
    page = here.training_page(here.dataset("payments"), key)
    assert client.get(f"/training/payments/{key}").status_code == 404
    page.parent.mkdir(parents=True)
    page.write_text("<p>learned</p>", encoding="utf-8")
    answer = client.get(f"/training/payments/{key}")
    assert (answer.status_code, answer.text) == (200, "<p>learned</p>")
    assert "script" not in answer.headers["content-security-policy"]
    assert (
        client.get(f"/trainings/payments/{page.name}").text == "<p>learned</p>"
    )  # as a batch's page links it
    for path in ("payments/..%2f..%2fledger", "payments/zzz", "other/0123456789abcdef"):
        assert client.get(f"/training/{path}").status_code in {404, 422}
        assert client.get(f"/trainings/{path}.html").status_code in {404, 422}
    stranger = as_role(here, may_write=True, reads=frozenset({"orders"}))
    assert stranger.get(f"/training/payments/{key}").status_code == 404
    assert stranger.get(f"/trainings/payments/{page.name}").status_code == 404


def test_a_stranger_is_refused_on_every_route(app: FastAPI) -> None:
    """One that was forgotten is one that leaks."""
    client = TestClient(app, base_url=SITE)
    for method, path in every_route(app):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": f"{COOKIE}_80=wrong"}):
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path, headers)
            assert "k0" not in answer.text


def test_two_pages_on_one_machine_leave_each_other_be(here: Installation, ids: list[str]) -> None:
    """Each on a port of its own, in one browser, which keeps cookies by host alone."""
    first, second = (
        TestClient(alone(here, "ann", f"of {port}", hosts=["localhost"]), base_url=f"http://localhost:{port}")
        for port in (8200, 8231)
    )
    second.cookies = first.cookies
    for client, token in ((first, "of 8200"), (second, "of 8231")):
        assert client.get("/", params={"token": token}).status_code == 200
    assert (first.get("/").status_code, second.get("/").status_code) == (200, 200)


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
    """A dataset beside payments, with a verdict of vera's and a rule; what its records are called in an
    address or a body.
    """
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
        "training_key": "0123456789abcdef",
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
            if method == "GET" and answer.status_code == 422:  # it has no such filter
                answer = vera.get(path, headers=headers)
            told = html.unescape(answer.text).replace("dataset 'secret'", "")  # as it was asked about
            assert not re.search("SECRET|hush|secret", told), (method, path)
            is_act = route.path == "/api/acts/newest"  # vera has another, which is not hers to read
            if method == "GET" and not is_act and not re.search(r"\{(anomaly_id|dataset)\}", route.path):
                assert answer.status_code in {200, 422}, (method, path, answer.text)
                n_read += 1
            else:
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
        for method in route.methods - {"HEAD", "GET"}:
            asked = said_of_all(secret, path)
            answer = vera.request(method, path, headers=headers, follow_redirects=False, **asked)
            assert answer.status_code == 403, (method, path, answer.text)
            n_refused += 1
    assert snapshot(here) == before
    assert n_refused > 10
    theirs, mine = (vera.get(f"/record/{name}").text for name in (secret["anomaly_id"], ids[0]))
    assert ('class="saying"' in theirs, 'class="saying"' in mine) == (False, True)
    assert "Your role may only read here" in theirs
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


def test_a_program_with_the_token_needs_no_page(app: FastAPI, here: Installation, ids: list[str]) -> None:
    """A bearer token is sent by nobody's browser on its own."""
    program = TestClient(app, base_url=SITE, headers={"authorization": f"Bearer {TOKEN}"})
    said = {"anomaly_ids": ids[:1], "verdict": "anomaly"}
    assert program.post("/api/verdicts", json=said).status_code == 200
    assert record.one(here.ledger, ids[0]).verdicts[0].by == "ann"
