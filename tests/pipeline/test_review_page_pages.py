"""What the review page shows: numbers that agree, ways back, and a next step where there is nothing to
see.
"""

from __future__ import annotations

import contextlib
import html
import io
import re
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from html.parser import HTMLParser
from importlib.resources import files
from typing import get_args
from urllib.parse import unquote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from pipeline.cli import app as shell
from pipeline.display.review import print_queue
from pipeline.installation import Installation
from pipeline.notify import digest
from pipeline.review import judging, queue, statistics, suppression
from pipeline.review.filters import BANDS, Filters
from pipeline.review.queued import ODDNESSES
from pipeline.web.shapes import Band
from pipeline.web.words import WORDS

from .review_data import SITE, put, reason, refused, row


@pytest.mark.parametrize(
    "page",
    ["/", "/?state=any", "/?driver=none", "/groups", "/batches", "/overview", "/rules", "/?suppressed=true"],
)
def test_every_empty_page_says_what_to_do_next(browser: TestClient, page: str) -> None:
    """The first thing that anybody sees of an installation is an empty page."""
    text = browser.get(page).text
    assert 'class="empty"' in text
    assert re.search(r'class="empty".*(<a href|<code>vaewatch)', text, re.DOTALL)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/record/unknown", "not in the queue"),
        ("/no/such/page", "nothing at this address"),
        ("/api/records/unknown", "not in the queue"),
        ("/api/nothing", "nothing at this address"),
    ],
)
def test_what_is_missing_is_told_as_a_page_and_by_the_api_as_json(
    browser: TestClient, path: str, said: str
) -> None:
    """Not as a traceback, and not as JSON to a person."""
    answer = browser.get(path)
    kind = "application/json" if path.startswith("/api") else "text/html"
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (404, kind)
    assert said in answer.text
    assert browser.delete("/overview").status_code == 405


def test_a_stranger_is_told_where_the_door_is(app: FastAPI) -> None:
    """A link to the page that refused them leads nowhere."""
    answer = TestClient(app, base_url=SITE).get("/")
    page, policy = answer.text, answer.headers["content-security-policy"]
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert f"style-src 'sha256-{b64encode(sha256(style.encode()).digest()).decode()}';" in policy
    assert "unsafe" not in policy
    (icon,) = re.findall(r'<link rel="icon" href="([^"]*)"', page)
    assert unquote(icon.removeprefix("data:image/svg+xml,")).startswith("<svg")
    assert "img-src data:;" in policy
    assert not re.search(r'(src|href)="/', page)  # they would be refused, too
    assert "open the address that it printed" in page
    assert re.findall(r'<a href="([^"]*)"', page[page.index("<main") :]) == []


def test_open_is_one_number_wherever_it_is_told(here: Installation, browser: TestClient) -> None:
    """Flagged records that wait; the random sample stands beside it by name, and what a rule hides is not
    counted.
    """
    judged = row("judged")
    rows = [*(row(f"k{i}") for i in range(3)), judged, row("hidden", suppressed=7)]
    put(here.ledger, [*rows, *(row(f"s{i}", kind="sampled", severity=0.1) for i in range(2))])
    judging.give(here.ledger, [judged["anomaly_id"]], "normal", by="ann")
    page = browser.get("/").text
    assert re.search(r"<h1><b>3</b> open</h1>", page)
    assert "and <b>2</b> of the random sample</a>" in page
    assert browser.get("/api/counts", params={"state": "open"}).json()["dataset"] == {"payments": 3}
    assert {name: browser.get("/api/stats").json()[name] for name in ("backlog", "sampled_open")} == {
        "backlog": 3,
        "sampled_open": 2,
    }
    overview = browser.get("/overview").text
    assert '<p class="big">3</p>' in overview
    assert "2 of the random sample" in overview
    here.ledger.record_validation(refused("b1"))
    metrics = browser.get("/metrics").text
    assert 'vaewatch_review_backlog{dataset="payments"} 3.0' in metrics
    assert 'vaewatch_review_sample{dataset="payments"} 2.0' in metrics
    told = digest.digest(here, here.dataset("payments"), "2026-01-30")
    assert told
    assert "2026-01-30: 3 of 1,000 records wait" in told
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        print_queue(
            queue.page(here.ledger, Filters(state="open")).rows,
            "open",
            queue.counts(here.ledger, Filters(state="open"))["kind"],
            has_more=False,
        )
    assert "3 flagged records without a verdict; beside them 2 drawn at random" in said.getvalue()


def test_a_records_score_is_shown_as_a_sum(here: Installation, browser: TestClient) -> None:
    """Of one that was scored before its parts were kept, what can be said."""
    terms = [{"column": "amount", "nats": 30.5}, {"column": "country", "nats": 4.25}]
    kept = row("kept", anomaly_score=40.0, kl_divergence=2.0, kl_weight=0.5, terms=terms)
    put(here.ledger, [kept, row("before", kl_weight=None, terms=[])])
    page = browser.get(f"/record/{kept['anomaly_id']}").text
    summed = re.search(r'<table class="plain sum">.*?</table>', page, re.DOTALL)
    assert summed
    assert re.findall(r'<td class="n">([^<]*)<', summed[0]) == ["30.50", "4.25", "4.25", "1.00", "40.00"]
    assert "2.00 × 0.5, the weight that verdicts taught it" in summed[0]
    assert '<th scope="row">anomaly_score ' in summed[0]  # as in tables and exports
    assert "before the parts were kept" in browser.get(f"/record/{row('before')['anomaly_id']}").text


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0.001, "less than a minute"), (0.05, "3 min"), (5.34, "5.3 h"), (71.9, "71.9 h"), (96, "4.0 days")],
)
def test_a_wait_is_told_in_a_unit_that_says_something(hours: float, text: str) -> None:
    """0.0 h is no answer."""
    assert statistics.wait_text(hours) == text


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
    """From the open records a judged one is found; a state that was chosen stays chosen, with a search or
    without.
    """
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


def test_every_column_that_records_are_most_at_odds_in_can_be_chosen(
    browser: TestClient, here: Installation
) -> None:
    """The rarest, too; what is chosen is in sight."""
    names = [f"c{i:02}" for i in range(14)]
    put(here.ledger, [row(f"{name}{i}", driver=name) for i, name in enumerate(names)])
    put(here.ledger, [row(f"more {name}", "2026-01-31", driver=name) for name in names[:12]])
    page = browser.get("/").text
    assert set(re.findall(r"driver=(c\d\d)", page)) == set(names)
    assert '<details class="more"><summary>6 more' in page
    assert '<details class="more" open>' in browser.get("/", params={"driver": "c13"}).text


def test_records_can_be_asked_for_by_how_they_are_odd(browser: TestClient, here: Installation) -> None:
    """On the page in words, with counts and in the address; by the API as named."""
    for i, how in enumerate(ODDNESSES):
        put(here.ledger, [row(f"{how}-{j}", f"2026-01-{i + 1:02}", oddness=how) for j in range(i + 1)])
    put(here.ledger, [row("drawn", "2026-02-01", kind="sampled", oddness="")])
    page = browser.get("/").text
    section = page[page.index("<h2>How it is odd</h2>") :].partition("</section>")[0]
    offered = re.findall(r'\?oddness=(\w+)"><span>(.+?)</span><span class="n">(\d+)', section)
    counted = {how: i + 1 for i, how in enumerate(ODDNESSES)}
    assert {how: (words, int(n)) for how, words, n in offered} == {
        how: (WORDS[how], n) for how, n in counted.items()
    }
    assert {how: n for how, n in browser.get("/api/counts").json()["oddness"].items() if n} == counted
    chosen = browser.get("/", params={"oddness": "missing"}).text
    assert "<b>3</b> open" in chosen
    assert "how it is odd: missing" in chosen
    assert len(re.findall('class="key" href="/record/[0-9a-f]+\\?oddness=missing', chosen)) == 3
    for how, n in counted.items():
        listed = browser.get("/api/records", params={"oddness": how}).json()["records"]
        assert [one["oddness"] for one in listed] == [how] * n
    assert browser.get("/api/records", params={"oddness": "odd"}).status_code == 422


@pytest.mark.parametrize(
    "path",
    ["/", "/groups", "/batches", "/overview", "/rules", *(f"/api/{name}" for name in ("records", "counts", "groups", "batches", "stats", "rules"))],
)  # fmt: skip
def test_a_dataset_or_a_filter_that_there_is_not_is_refused(
    browser: TestClient, ids: list[str], path: str
) -> None:
    """An empty list would look as if all was well."""
    assert browser.get(path, params={"dataset": "payments"}).status_code == 200
    unknown = browser.get(path, params={"dataset": "paymets"})
    assert (unknown.status_code, "did you mean" in unknown.text) == (404, True)
    mistyped = browser.get(path, params={"datset": "payments"})
    assert (mistyped.status_code, "is not one of dataset" in mistyped.text) == (422, True)


def test_versions_are_compared_where_there_are_two(here: Installation, browser: TestClient) -> None:
    """Of one there is nothing to say that the head of the page does not."""
    of_first, of_third = row("first", model_version=1), row("third", model_version=3)
    put(here.ledger, [of_first, of_third])
    pages = [browser.get(f"/record/{one['anomaly_id']}").text for one in (of_first, of_third)]
    assert ["By model version" in page for page in pages] == [False, True]
    trained = here.settings.home / "trainings" / "payments"
    trained.mkdir(parents=True)
    for key in ("a", "b"):
        (trained / f"{key}.html").touch()
    assert "By model version" in browser.get(f"/record/{of_first['anomaly_id']}").text


def test_a_page_that_takes_nothing_says_so(browser: TestClient, ids: list[str]) -> None:
    refused = browser.get("/disagreements/payments", params={"version": 2})
    assert (refused.status_code, "means nothing here" in refused.text) == (422, True)


@pytest.mark.parametrize(("facet", "value", "words"), [("oddness", "missing", "missing"), ("severity", 16, "at least 16"), ("state", "unsure", "unsure"), ("driver", "gone", "gone")])  # fmt: skip
def test_a_choice_that_no_record_has_stays_in_its_list(
    browser: TestClient, ids: list[str], facet: str, value: str | int, words: str
) -> None:
    """With a count of nought: who chose it sees what holds, and takes it back where it is."""
    page = browser.get("/", params={facet: value}).text
    assert re.search(rf'aria-current="true"><span>{words}</span><span class="n">0</span>', page)
    assert browser.get("/api/counts", params={facet: value}).json()[facet][str(value)] == 0


def test_every_band_can_be_asked_for(browser: TestClient, ids: list[str]) -> None:
    """The ones that the queue counts, and the list that describes them to programs."""
    assert set(get_args(get_args(Band)[0])) == set(BANDS)
    n = [len(browser.get("/api/records", params={"severity": band}).json()["records"]) for band in BANDS]
    assert n == [5, 5, 5, 5, 4, 0, 0]


def test_the_share_missed_is_named_wherever_recall_is(browser: TestClient, here: Installation) -> None:
    """On the overview, in the API and in a shell, with its interval."""
    flagged, sample = (
        [row(f"{kind[0]}{i}", kind=kind) for i in range(60)] for kind in ("flagged", "sampled")
    )
    put(here.ledger, [*flagged, *sample], n_unflagged=60)
    for rows, verdict in ((flagged, "anomaly"), (sample[:6], "data_error"), (sample[6:], "normal")):
        judging.give(here.ledger, [one["anomaly_id"] for one in rows], verdict, by="ann")
    api = browser.get("/api/stats").json()
    missed = api["false_negative_rate"]
    assert missed["value"] == pytest.approx(6 / 66)
    told = f"0.09 ({missed['low']:.2f} to {missed['high']:.2f})"
    assert f"missed, the false-negative rate: {told}" in browser.get("/overview").text
    lines = dict(statistics.as_lines(statistics.review(here.ledger)))
    assert lines["missed, the false-negative rate"] == told


def test_an_overview_of_several_datasets_tells_each_by_itself(
    here: Installation, browser: TestClient
) -> None:
    """Days of 2016 and of 2026 share no month, and version 1 of one is not that of another."""
    judged = row("a")
    put(here.ledger, [judged, row("b")])
    put(here.ledger, [row(f"w{i}", "2016-08-03", dataset="water") for i in range(3)])
    judging.give(here.ledger, [judged["anomaly_id"]], "anomaly", by="ann")
    page = browser.get("/overview").text
    assert "2016-08-03 to 2016-08-03: 3," in page
    assert "2026-01-30 to 2026-01-30: 2," in page
    assert set(re.findall(r'class="of">(\w+)<', browser.get("/").text)) == {"payments", "water"}
    assert 'class="of"' not in browser.get("/", params={"dataset": "water"}).text
    rows = re.findall(r"<tr><td><a [^>]*>(payments|water)</a>.*?</tr>", page)
    assert rows == ["payments", "water"]
    assert "1.00</p>" not in page
    assert "0.21 to 1.00 (1 of 1: too few)" in page
    alone = browser.get("/overview", params={"dataset": "payments"}).text
    assert '<p class="big">1 judged</p><p>too few to tell: of 1 flagged' in alone
    assert "of 1 flagged by version 3 and judged, 1 was worth the time" in alone


def test_the_overview_tells_the_precision_of_the_version_that_serves(
    here: Installation, browser: TestClient
) -> None:
    """Version 3 is promoted and rolled back to 1; alone, and in the table of several datasets."""
    for version, n, n_worth in ((1, 142, 25), (3, 8, 7)):
        rows = [
            row(f"k{i}", f"2026-01-0{version}", model_version=version, signature=f"c{i}↑") for i in range(n)
        ]
        put(here.ledger, rows)
        names = [one["anomaly_id"] for one in rows]
        judging.give(here.ledger, names[:n_worth], "anomaly", by="ann")
        judging.give(here.ledger, names[n_worth:], "normal", by="ann")
    beside, few = (
        "version 1, the newest with enough: 0.18 (25 of 142;",
        "of 8 flagged by version 3, which serves,",
    )
    here.ledger.set_serving("payments", 3)
    page = browser.get("/overview").text
    assert '<p class="big">8 judged</p><p>too few to tell: ' + few in page
    assert beside in page
    here.ledger.set_serving("payments", 4)
    page = browser.get("/overview").text
    assert "nothing flagged by version 4, which serves, is judged yet" in page
    assert beside in page
    here.ledger.set_serving("payments", 1)
    page = browser.get("/overview").text
    assert '<p class="big">0.18</p><p>of 142 flagged by version 1, which serves, and judged' in page
    assert ">v1, serves: 0.18" in page
    assert "the newest with enough" not in page
    assert browser.get("/api/stats").json()["serving"] == {"payments": 1}
    put(here.ledger, [row("w", "2016-08-03", dataset="water")])
    assert "<td>version 1: 0.18 (25 of 142;" in browser.get("/overview").text
    here.ledger.set_serving("payments", 3)
    assert f"(7 of 8: too few)<br>{beside}" in browser.get("/overview").text


def test_a_reason_that_is_as_expected_by_itself_says_so(here: Installation, browser: TestClient) -> None:
    """A reader holds the value against the interval beside it."""
    said = "odd only together with the others"
    rows = {
        seen: row(seen, reasons=[reason("amount", observed=seen)])
        for seen in ("12.0", "900", "inf", "missing")
    }
    put(here.ledger, list(rows.values()))
    found = {seen: said in browser.get(f"/record/{one['anomaly_id']}").text for seen, one in rows.items()}
    assert found == {"12.0": True, "900": False, "inf": False, "missing": False}


def test_reasons_that_explain_little_are_not_left_to_pass_for_all_of_it(
    here: Installation, browser: TestClient
) -> None:
    """Less than half in all; half is enough, and a record without reasons says that by itself."""
    said, weak = "the rest in no single column", [reason("amount", 0.3), reason("fee", 0.19)]
    put(here.ledger, [row("weak", reasons=weak)])
    assert browser.get("/").text.count(said) == browser.get("/groups").text.count(said) == 1
    put(here.ledger, [row("weak", reasons=[reason("amount", 0.5)]), row("none", reasons=[])])
    assert said not in browser.get("/").text


def test_a_category_that_stands_for_rare_ones_is_called_that(here: Installation, browser: TestClient) -> None:
    """ "(other)" is our word for it."""
    rare = row("a", reasons=[reason("country", observed="FR", expected="(other) (41%)", low=None, high=None)])
    put(here.ledger, [rare])
    line, page = browser.get("/").text, browser.get(f"/record/{rare['anomaly_id']}").text
    assert "not a rare value" in line
    assert "expected a rare value, 41% likely" in page
    assert "(other)" not in line + page


def test_disagreements_are_linked_once_there_are_two_versions(
    here: Installation, browser: TestClient
) -> None:
    """Of a single one there is nothing to see."""
    put(here.ledger, [row("a")])
    here.ledger.set_serving("payments", 1)
    assert "/disagreements/payments" not in browser.get("/overview").text
    for key in ("a", "b"):
        page = here.training_page(here.dataset("payments"), key)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.touch()
    assert "/disagreements/payments" in browser.get("/overview").text
    here.ledger.set_serving("payments", 2)
    assert "/disagreements/payments" in browser.get("/overview").text


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


def test_the_random_sample_is_told_apart_and_can_be_looked_at_alone(
    here: Installation, browser: TestClient
) -> None:
    """It comes after a day's flagged records; overview and queue lead to those that wait."""
    sampled = [row(f"s{i}", kind="sampled", severity=0.1, reasons=[]) for i in range(3)]
    was = row("was")
    put(here.ledger, [row("flagged"), was, *sampled])
    judging.give(here.ledger, [sampled[0]["anomaly_id"], was["anomaly_id"]], "normal", by="ann")
    put(here.ledger, [row("flagged"), *sampled])  # scored again, another is flagged no longer
    queue_page, overview = browser.get("/").text, browser.get("/overview").text
    assert queue_page.count("not flagged: drawn at random, to learn what is missed") == 2
    found = [
        re.search(r'href="(/\?[^"]*)">2 of the random sample</a>', overview),
        re.search(r'href="(/\?[^"]*)">judge some of 2 random records</a>', overview),
        re.search(r'href="(/\?[^"]*)">and <b>2</b> of the random sample</a>', queue_page),
    ]
    for link in found:
        assert link
        shown = browser.get(html.unescape(link[1])).text
        assert sorted(re.findall(r'class="key"[^>]*>(\w+)</a>', shown)) == ["s1", "s2"]
    beside = re.search(r'class="besides">(.*?)</span>', browser.get("/?state=any").text)
    assert beside
    assert re.sub("<[^>]*>", "", beside[1]).strip() == "and 3 of the random sample and 1 no longer flagged"


def test_groups_are_the_same_ones_on_the_page_and_in_the_shell(
    browser: TestClient, here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all days, and both say so: of two numbers for one thing, neither is believed."""
    old = [row(f"old-{i}", "2025-06-01", signature=f"fee{i}↑") for i in range(3)]
    put(here.ledger, old)
    for name, value in {"HOME": here.settings.home, "DATASETS": here.settings.datasets}.items():
        monkeypatch.setenv(f"VAEWATCH_{name}", str(value))

    def told(page: str, *options: str) -> tuple[str, str]:
        found = re.search(r'class="reading">(.*?)</p>', browser.get(page).text)
        assert found
        said = CliRunner().invoke(shell, ["review", "groups", "payments", *options]).stdout
        return re.sub(r"<.*?>", "", found[1]), next(
            line for line in said.splitlines() if " groups of " in line
        )

    paged, printed = told("/groups?dataset=payments")
    n = re.match(r"\d+ groups of \d+ open records", printed)
    assert n
    assert paged.startswith(n[0])
    assert "of all days" in paged
    assert "of all days" in printed
    paged, printed = told(
        "/groups?dataset=payments&limit=2&since=2025-06-01", "--limit", "2", "--since", "2025-06-01"
    )
    assert "2 are shown" in paged
    assert "2 are shown" in printed
    assert paged.startswith(n[0])
    assert printed.startswith(n[0])


def test_one_dataset_of_several_is_chosen_first_and_let_go_again(
    browser: TestClient, here: Installation
) -> None:
    """Which dataset is the first question to a queue of several; from one there is a way back to all."""
    put(here.ledger, [row("a")])
    headings = r"<h2>([^<]+)</h2>"
    assert "Dataset" not in re.findall(headings, browser.get("/").text)
    assert 'href="/groups"' not in browser.get("/groups").text.partition("<main")[2]
    put(here.ledger, [row(f"w{i}", "2016-08-03", dataset="water", signature="fee↓") for i in range(3)])
    assert re.findall(headings, browser.get("/").text)[0] == "Dataset"
    chips = r'<a class="chip" href="([^"]*)"( aria-current="true")?>([^<]*)<'
    page = browser.get("/groups", params={"dataset": "water", "since": "2016-01-01"}).text
    chosen = [(html.unescape(link), bool(current), name) for link, current, name in re.findall(chips, page)]
    assert chosen == [
        ("/groups?since=2016-01-01", False, "all 4"),
        ("/groups?since=2016-01-01&dataset=payments", False, "payments 1"),
        ("/groups?since=2016-01-01&dataset=water", True, "water 3"),
    ]
    assert "4 open records" in browser.get(chosen[0][0]).text


def test_groups_without_recent_records_do_not_say_that_nothing_waits(
    browser: TestClient, ids: list[str]
) -> None:
    """Older ones may."""
    later = browser.get("/groups", params={"since": "2026-02-01"}).text
    assert "No open records of the days since 2026-02-01" in later
    assert "Nothing waits" not in later
    assert "Look at all days" in later
    nobody = browser.get("/groups", params={"signature": "none↑"}).text
    assert "Nothing waits to be judged" in nobody


def test_files_are_shipped_and_kept_by_the_browser(browser: TestClient) -> None:
    """They work offline, and a new release's are fetched anew."""
    page = browser.get("/").text
    for file in re.findall(r'(?:href|src)="(/assets/[^"]+)"', page):
        answer = browser.get(file)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert browser.get("/assets/../app.py").status_code == 404


def test_what_a_line_cuts_is_there_whole(here: Installation, browser: TestClient) -> None:
    """Names that differ at their end are told apart by hovering, by searching the page, and by who has it
    read out.
    """
    name = 'the "column"_' + "x" * 90 + "_end"
    long = row(
        "key_" + "y" * 90 + "_end", driver=name, signature=f"{name}↑", reasons=[reason(name, observed="v" * 70)],
        terms=[{"column": name, "nats": 9.0}], record={name: "v" * 70}, suppressed=0,
    )  # fmt: skip
    put(here.ledger, [long])
    for path in ("/", "/groups", f"/record/{long['anomaly_id']}"):
        page = browser.get(path).text
        whole = html.escape(name).replace("&quot;", "&#34;")
        assert re.search(rf'<span class="cut c\d+" title="{whole}↑?">{whole}↑?</span>', page), path
        assert not re.search(r"[xyv]…", page[page.index("<main") :]), path
    style = browser.get("/assets/review.css").text
    templates = files("pipeline.web").joinpath("templates").iterdir()
    used = {
        n for template in templates for n in re.findall(r"\|(?:cut|signature)\((\d+)\)", template.read_text())
    }
    assert len(used) > 4
    assert all(re.search(rf"\.c{n} {{ max-width: [^}}]*{n}ch", style) for n in used)


def test_the_rules_say_how_to_begin_one_and_when_one_was_ended(
    browser: TestClient, here: Installation
) -> None:
    """Where there is none as where there are some; the day beside who ended it, under a heading."""
    last = (datetime.now(UTC).date() + timedelta(days=9)).isoformat()
    begin = 'choose “hide…” beside a <a href="/groups">group</a>'
    assert begin in browser.get("/rules").text
    rule = suppression.save(here.ledger, suppression.Rule("payments", "fee↓", {}, last, "known", "ann"))
    suppression.end(here.ledger, rule.number, by="bob")
    page = browser.get("/rules").text
    (ended,) = suppression.rules(here.ledger)
    assert ended.ended_at is not None
    assert begin in page
    assert "<th>ended</th></tr>" in page
    assert f">{ended.ended_at.date()}</time> by bob</td></tr>" in page
