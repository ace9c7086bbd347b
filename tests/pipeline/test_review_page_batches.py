"""The review page's batches: every night is there, the newest first, with what its page says."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipeline.installation import Installation
from pipeline.monitoring import store
from pipeline.monitoring.findings import Finding
from pipeline.monitoring.store import Watched
from pipeline.report import listing
from pipeline.report.trust import TAKEN_BACK
from pipeline.storage.ledger import BatchState

from .monitoring_data import QUIET
from .review_data import DATASET, put, refused, row
from .review_page import as_role


def check(here: Installation, day: str, **given: Any) -> BatchState:
    """A batch of that day in the ledger, checked the night after; refused unless a status is given."""
    end = datetime.fromisoformat(f"{day}T23:00:00+00:00")
    is_refused = given.get("status", "refused") == "refused"
    plain = {
        "reason": "column 'fee' is missing" if is_refused else "",
        "newest_record_at": None if is_refused else end,
        "validated_at": end + timedelta(hours=4),
        "n_accepted": 0 if is_refused else 8,
    }
    return here.ledger.record_validation(replace(refused(given.pop("batch_id", day)), **plain | given))


def score(here: Installation, day: str, **said: Any) -> BatchState:
    """A batch of that day that version 3 scored; tone and headline as its page says."""
    state = check(here, day, status="accepted", dataset=said.pop("dataset", "payments"))
    return here.ledger.record_scores(state, model_version=3, threshold=4.0, n_flagged=2, **said)


def rows(page: str) -> list[str]:
    """Each row of the table as a person reads it."""
    found = re.findall(r"<tr><th scope.*?</tr>", page, re.DOTALL)
    return [" ".join(html.unescape(re.sub(r"<[^>]*>", " ", one)).split()) for one in found]


def ids(told: Sequence[listing.ListedBatch]) -> list[str]:
    return [one.batch_id for one in told]


def test_every_batch_is_there_with_what_its_page_says(here: Installation, browser: TestClient) -> None:
    """Can tonight be believed? A refused night and a quiet one have no flagged record that leads to them."""
    score(here, "2026-01-27", tone="good", headline="These flags can be trusted")
    score(here, "2026-01-28", tone="bad", headline="Do not rely on these flags yet")
    check(here, "2026-01-29")
    check(here, "2026-01-30", status="accepted")
    for day in ("2026-01-28", "2026-01-29"):
        folder = here.page(here.dataset("payments"), day)
        folder.mkdir(parents=True)
        (folder / "run.html").write_text("<p>its page</p>")
    (here.page(here.dataset("payments"), "2026-01-29") / "index.html").write_text("<p>contract</p>")
    page = browser.get("/batches").text
    assert rows(page) == [
        "2026-01-30 waits Not scored yet It waits for a model that serves. 9 8 1 – –",
        "2026-01-29 refused Nothing was scored: the delivery was refused Column 'fee' is missing. 9 0 – – –",
        "2026-01-28 scored Do not rely on these flags yet 9 8 1 2 3",
        "2026-01-27 scored These flags can be trusted 9 8 1 2 3",
    ]
    assert 'class="tone bad">Do not rely' in page
    links = [f"/report/payments/{day}/run.html" for day in ("2026-01-29", "2026-01-28")]
    assert re.findall(r'href="(/report/[^"]*)"', page) == links
    assert [browser.get(link).text for link in links] == ["<p>its page</p>"] * 2
    assert "/?dataset=payments&amp;batch=2026-01-28&amp;kind=flagged&amp;state=any" in page
    here.ledger.set_serving("payments", 3)
    assert "Version 3 serves: the next run scores it." in browser.get("/batches").text
    told = browser.get("/api/batches").json()
    assert [one["headline"] for one in told["batches"]][1:3] == [
        "Nothing was scored: the delivery was refused", "Do not rely on these flags yet",
    ]  # fmt: skip
    assert told["batches"][1]["address"] == "report/payments/2026-01-29/run.html"


def test_batches_can_be_asked_for_by_dataset_and_status(here: Installation, browser: TestClient) -> None:
    """The counts say what a choice will show."""
    (here.settings.datasets / "water.yaml").write_text(DATASET.replace("payments", "water"))
    score(here, "2026-01-28")
    check(here, "2026-01-29")
    score(here, "2026-01-30", dataset="water")
    chips = r'class="chip" href="([^"]*)"(?: aria-current="true")?>(\w+(?: \d+)?)<'
    page = browser.get("/batches").text
    offered = {name: html.unescape(link) for link, name in re.findall(chips, page)}
    assert list(offered) == ["all", "payments 2", "water 1", "any", "scored 2", "refused 1"]
    assert [len(rows(browser.get(link).text)) for link in offered.values()] == [3, 2, 1, 3, 2, 1]
    assert " water scored " in rows(page)[0]
    both = browser.get(offered["payments 2"]).text
    assert "status=refused" in both
    assert rows(both)[0].startswith("2026-01-29 refused ")  # its dataset is said once, above
    asked = {"dataset": "water", "status": "refused"}
    assert "No batch is like that" in browser.get("/batches", params=asked).text
    assert browser.get("/api/batches", params=asked).json() == {"batches": [], "more_after": None}
    assert browser.get("/batches", params={"status": "believed"}).status_code == 422


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
@pytest.mark.parametrize("status", [None, "refused"])
def test_pages_of_batches_leave_none_out_and_show_none_twice(
    here: Installation, limit: int, status: Any
) -> None:
    """Days in order, though names are not and several batches are of one day."""
    made = [
        check(here, f"2026-01-{i % 9 + 1:02}", batch_id=f"{'zyx'[i % 3]}{i}", status=("refused", "accepted")[i % 2])
        for i in range(20)
    ]  # fmt: skip
    walked: list[listing.ListedBatch] = []
    after = None
    while True:
        found = listing.listing(here, None, status=status, after=after, limit=limit)
        walked += found.batches
        after = found.more_after
        if after is None:
            break
        assert len(found.batches) == limit
    assert sorted(ids(walked)) == sorted(one.batch_id for one in made if status in {None, one.status})
    days = [one.day for one in walked]
    assert days == sorted(days, reverse=True)
    assert listing.listing(here, None, after="gone", limit=limit).batches[0].day == max(days)


def test_a_batch_is_followed_by_older_ones_though_its_status_changed(here: Installation) -> None:
    """It was scored while somebody read the page of those that wait."""
    waiting = [check(here, f"2026-01-{day}", status="accepted") for day in (28, 29, 30)]
    first = listing.listing(here, None, status="accepted", limit=1)
    here.ledger.record_scores(waiting[-1], model_version=3, threshold=4.0, n_flagged=0)
    following = listing.listing(here, None, status="accepted", after=first.more_after, limit=9)
    assert ids(following.batches) == ["2026-01-29", "2026-01-28"]


def test_a_reader_sees_the_batches_of_their_datasets_alone(here: Installation) -> None:
    """And no count of others."""
    score(here, "2026-01-28", headline="These flags can be trusted", tone="good")
    here.ledger.record_validation(replace(refused("2026-01-29"), dataset="salaries"))
    client = as_role(here, may_write=False, reads=frozenset({"payments"}))
    page = client.get("/batches")
    assert (page.status_code, len(rows(page.text))) == (200, 1)
    assert "salaries" not in page.text
    assert "refused" not in page.text
    assert client.get("/batches", params={"dataset": "salaries"}).status_code == 404
    assert "salaries" not in client.get("/api/batches").text


def test_a_page_written_before_headlines_were_kept_is_told_by_its_findings(here: Installation) -> None:
    """They speak of that batch alone; of its version, the page says more once it is written again."""
    alarm = Finding("flags", "alarm", "176 of 1,440 records are flagged", "look at them together")
    for day, findings in {"2026-01-28": (), "2026-01-29": (alarm,)}.items():
        state = score(here, day)
        at = datetime.fromisoformat(day).replace(tzinfo=UTC)
        watched = Watched(
            batch_id=day, day=at.date(), measures=QUIET, findings=findings, model_version=3, measured_at=at
        )  # fmt: skip
        store.replace(here.ledger, state.dataset, watched)
    score(here, "2026-01-30")
    told = {one.batch_id: (one.tone, one.headline) for one in listing.listing(here, None).batches}
    assert told == {
        "2026-01-28": ("good", "Nothing speaks against these flags"),
        "2026-01-29": ("bad", "Far more is odd than usual: look at these flags together"),
        "2026-01-30": ("warn", "Scored, but never measured"),
    }
    here.ledger.note_headline(here.ledger.current("payments")["2026-01-28"], "warn", TAKEN_BACK)
    assert listing.listing(here, None).batches[-1].headline == TAKEN_BACK


def test_a_dataset_without_its_file_does_not_hide_the_batches_of_others(
    here: Installation, browser: TestClient
) -> None:
    """Nor its own: they stay where they were."""
    score(here, "2026-01-28", headline="These flags can be trusted", tone="good")
    here.ledger.record_validation(replace(refused("2026-01-01"), dataset="gone"))
    (here.settings.datasets / "broken.yaml").write_text("dataset: [")
    listed = rows(browser.get("/batches").text)
    assert [one.partition(" 9 ")[0] for one in listed] == [
        "2026-01-28 payments scored These flags can be trusted",
        "2026-01-01 gone refused The file of its dataset is gone or has faults",
    ]
    for name in ("payments", "gone"):
        assert len(rows(browser.get("/batches", params={"dataset": name}).text)) == 1
    assert browser.get("/report/payments/2026-01-28/run.html").status_code == 404
    folder = here.page(here.dataset("payments"), "2026-01-28")
    folder.mkdir(parents=True)
    (folder / "run.html").write_text("<p>its page</p>")
    assert browser.get("/report/payments/2026-01-28/run.html").text == "<p>its page</p>"


def test_a_refused_day_is_no_gap_in_the_plot(here: Installation, browser: TestClient) -> None:
    """Nothing scored is not nothing flagged; not even of the newest day."""
    put(here.ledger, [row("a", "2026-01-26"), row("b", "2026-01-28")])
    page = browser.get("/overview").text
    assert "batch refused" not in page
    assert 'class="refused"' not in page
    check(here, "2026-01-27")
    check(here, "2026-01-29")
    check(here, "2026-01-29", batch_id="2026-01-29-b")
    page = browser.get("/overview").text
    assert (
        "2026-01-26 to 2026-01-29: 2, of which 0 are judged; batches were refused of 2026-01-27, 2026-01-29"
        in page
    )
    assert page.count('class="refused"') == 4  # two days, drawn wide and small
    assert "2026-01-29: 0 flagged, 0 judged, 0 confirmed; 2 batches refused" in page
    assert '<a href="/batches?status=refused">batch refused</a>' in page
    check(here, "2026-06-01")  # months later: the days with flags stay in sight
    assert "2026-01-26 to 2026-01-29: 2," in browser.get("/overview").text
