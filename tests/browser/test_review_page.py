"""The review page as a reviewer uses it: open, filter, read why, judge from the keyboard, judge a group, take
back, see what it adds up to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from pipeline.installation import Installation
from pipeline.review import judging, queue, record
from pipeline.review.claims import claim
from pipeline.review.filters import Filters
from pipeline.review.queued import ODDNESSES
from pipeline.web.words import WORDS
from tests.browser.page import Page
from tests.pipeline.review_data import put, row

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture
def page(open_browser: Callable[..., Any], address: str) -> Page:
    return Page(open_browser(), address)


def states(here: Installation) -> dict[str, int]:
    return queue.counts(here.ledger, Filters())["state"]


def test_a_token_opens_the_page_once_and_is_gone_from_the_address(
    open_browser: Callable[..., Any], printed: str
) -> None:
    """What stands in the address bar is what people paste to each other."""
    page = Page(open_browser(), printed)
    assert "token" not in page.browser.current_url
    assert page.text("h1") == "9 open"
    assert page.text(".beside") == "and 2 of the random sample"
    assert page.text(".who .name") == "ann"
    assert page.faults() == []


def test_a_page_that_is_none_asks_for_nothing_else_that_is_none(
    page: Page, open_browser: Callable[..., Any], address: str
) -> None:
    """A browser that is told of no icon asks the host for one, and the log has two faults in the place of
    one; the icon that the page brings with it is let through.
    """
    page.faults()
    page.go("/nope")
    assert [line.partition(" - ")[0].rpartition("/")[2] for line in page.faults()] == ["nope"]
    stranger = open_browser()
    stranger.get(address.partition("?")[0])
    refused = [one["message"] for one in stranger.get_log("browser")]
    assert ["401" in line for line in refused] == [True]


def test_records_are_judged_from_the_keyboard_and_taken_back(page: Page, here: Installation) -> None:
    """j to the first, 1 it is an anomaly, on to the next; u takes it back."""
    page.press("j")
    assert page.focused() == "key-0"
    page.press("1")
    page.until(lambda: "anomaly: key-0" in page.text("#toast"))
    assert page.focused() == "key-1"
    assert page.text(".row .pill") == "anomaly"
    page.press("j", "k", "4")
    page.until(lambda: "data error: key-1" in page.text("#toast"))
    assert states(here) == {"open": 7, "anomaly": 1, "data_error": 1}
    page.press("u")
    page.until(lambda: "withdrawn: data error on key-1 of payments; now: open" in page.text("#toast"))
    page.press("k", "2")
    page.until(lambda: "normal: key-0; before: anomaly" in page.text("#toast"))
    page.press("u")
    page.until(lambda: "withdrawn: normal on key-0 of payments; now: anomaly" in page.text("#toast"))
    page.press("u")
    page.until(lambda: states(here) == {"open": 9})
    assert page.faults() == []


def said_of(here: Installation, *keys: str) -> list[str]:
    return [record.one(here.ledger, row(key)["anomaly_id"]).state for key in keys]


def test_keys_that_are_quicker_than_the_answers_mean_one_record_each(page: Page, here: Installation) -> None:
    """The second key is about the second record, wherever the answer to the first is; leaving loses
    nothing.
    """
    page.network(latency=400)
    page.press("j", "1", "2", "4")
    assert page.focused() == "key-3"
    page.until(lambda: said_of(here, "key-0", "key-1", "key-2") == ["anomaly", "normal", "data_error"])
    page.press("1", "u", "2")
    page.until(lambda: said_of(here, "key-3") == ["normal"])
    page.press("1", "\ue007")
    page.until(lambda: page.text("h1") == "key-5")
    assert said_of(here, "key-4") == ["anomaly"]
    page.press("1", "2", "k", "3")
    page.until(lambda: page.text("h1") == "other")
    assert said_of(here, "key-5", "other") == ["anomaly", "open"]


def test_groups_too(page: Page, here: Installation) -> None:
    """A group is left before it is answered for."""
    page.go("/groups")
    page.network(latency=400)
    page.press("j", "1", "2")
    page.until(lambda: states(here) == {"open": 1, "anomaly": 7, "normal": 1})


def test_what_could_not_be_saved_is_said_and_gone_back_to(page: Page, here: Installation) -> None:
    """The network is away: nothing looks saved, and both are judged once it is back."""
    page.press("j", "1")
    page.until(lambda: "anomaly: key-0" in page.text("#toast"))
    page.network(offline=True)
    page.press("2")
    page.until(lambda: "not saved: key-1: the server does not answer; try again" in page.text("#toast"))
    assert page.focused() == "key-1"
    assert [one.text for one in page.all(".row .pill")][:3] == ["anomaly", "not saved", "open"]
    page.network()
    page.press("x", "j", "x")
    page.until(lambda: page.press("2") or said_of(here, "key-1", "key-2") == ["normal", "normal"])
    assert said_of(here, "key-0") == ["anomaly"]


def test_a_key_that_is_held_says_one_thing(page: Page, here: Installation) -> None:
    """What the keyboard repeats is not meant for the records below."""
    held = "for (const repeat of [false, true, true]) document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '1', bubbles: true, repeat}))"
    page.press("j")
    page.browser.execute_script(held)
    assert page.focused() == "key-1"
    page.press("2")
    page.until(lambda: said_of(here, "key-0", "key-1", "key-2") == ["anomaly", "normal", "open"])


def test_the_tab_key_reaches_every_tick(page: Page) -> None:
    """From a record's link to the next record's box, which the space bar ticks."""
    page.press("j", "\ue004", " ")
    assert page.text(".ticked") == "1 ticked:"
    assert page.all(".row input")[1].is_selected()
    assert [one.text for one in page.all(".row.here .key")] == ["key-1"]


def test_several_records_are_ticked_and_judged_together(page: Page, here: Installation) -> None:
    """x ticks; one verdict, one undo."""
    page.press("j", "x", "j", "x", "j", "x")
    assert page.text(".ticked") == "3 ticked:"
    page.press("3")
    page.until(lambda: "expected change: 3 records" in page.text("#toast"))
    assert states(here) == {"open": 6, "expected_change": 3}
    page.all("#toast button")[0].click()
    page.until(lambda: states(here) == {"open": 9})


def test_what_is_counted_follows_what_was_said(page: Page) -> None:
    """The heading and the filters' counts, once the keys rest; undo counts back."""
    assert page.text("h1") == "9 open"
    page.press("j", "1", "1", "2")
    page.until(lambda: page.text("h1") == "6 open")
    page.until(lambda: "anomaly 2" in page.text(".facets"))
    assert page.focused() == "key-3"
    page.press("u")
    page.until(lambda: page.text("h1") == "7 open")


def test_what_is_ticked_is_judged_without_scrolling_back(
    open_browser: Callable[..., Any], address: str
) -> None:
    """On a small screen, too, the verdicts are in sight while something is ticked."""
    page = Page(open_browser(400, 600), address)
    last = page.all(".row input")[-1]
    page.browser.execute_script("arguments[0].scrollIntoView()", last)
    last.click()
    place = page.browser.execute_script(
        "const box = document.querySelector('.bulk').getBoundingClientRect(); return [box.top, box.bottom]"
    )
    header = page.all("header.top")[0].size["height"]
    assert header <= place[0] < place[1] <= 600


def test_filters_stand_in_the_address_and_have_counts(page: Page) -> None:
    """A click narrows the list; the address can be sent to somebody else."""
    link = next(one for one in page.all(".facet a") if one.text.split() == ["fee", "1"])
    link.click()
    page.until(lambda: page.text("h1") == "1 open")
    assert "driver=fee" in page.browser.current_url
    assert [one.text for one in page.all(".row .key")] == ["other"]
    page.all(".chip")[0].click()
    page.until(lambda: page.text("h1") == "9 open")
    page.press("/")
    page.press("key-3")
    page.browser.switch_to.active_element.submit()
    page.until(lambda: [one.text for one in page.all(".row .key")] == ["key-3"])


@pytest.mark.parametrize("width", [390, 1280])
def test_records_that_are_odd_alike_in_any_column_are_found(
    open_browser: Callable[..., Any], address: str, width: int
) -> None:
    """In one click, on a small screen once the filters are open; another one takes it back."""
    page = Page(open_browser(width, 844), address)
    for choice, after in (("below expected 1", "1 open"), ("below expected 1", "9 open")):
        if width < 500:
            page.all(".filter-box > summary")[0].click()
        next(one for one in page.all(".facet a") if " ".join(one.text.split()) == choice).click()
        page.until(lambda after=after: page.text("h1") == after)
        assert ("oddness=below" in page.browser.current_url) == (after == "1 open")
        assert page.browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.faults() == []


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["wide", "telephone"])
def test_how_records_are_odd_is_seen_without_scrolling_and_whole(
    open_browser: Callable[..., Any], address: str, here: Installation, size: tuple[int, int]
) -> None:
    """However many columns there are, with every choice offered and the longest chosen."""
    put(here.ledger, [
        row(f"{i}", "2026-01-28", driver=f"column_{i}", oddness=how)
        for i, how in enumerate([*ODDNESSES, *ODDNESSES])
    ])  # fmt: skip
    page = Page(open_browser(*size), address)
    page.go("/?oddness=together")
    if size[0] < 500:
        page.all(".filter-box > summary")[0].click()
    (facet,) = [one for one in page.all(".facet") if one.text.startswith("HOW IT IS ODD")]
    choices = [one.text for one in facet.find_elements("css selector", "a span:first-child")]
    assert set(choices) == {WORDS[how] for how in ODDNESSES}
    assert facet.rect["y"] + facet.rect["height"] <= size[1]
    wider = "return [...document.querySelectorAll('.facet a span')].filter(one => one.scrollWidth > one.clientWidth + 1 && one.clientWidth)"
    assert [one.text for one in page.browser.execute_script(wider)] == []


def test_a_record_says_why_and_a_verdict_leads_to_the_next(page: Page, here: Installation) -> None:
    """Enter opens; the note goes with the verdict; the next record comes by itself."""
    page.press("j")
    page.press("\ue007")
    page.until(lambda: page.text("h1") == "key-0")
    assert "amount 900 expected 12.5, 10 to 15 explains 80%" in page.text(".why-plot figcaption")
    assert "KL divergence" in page.all(".kl")[-1].text
    page.press("n")
    page.press("asked the shop")
    page.press("\ue00c")
    page.press("1")
    page.until(lambda: page.text("h1") == "key-1")
    assert "anomaly: key-0" in page.text("#toast")
    (entry,) = record.one(here.ledger, row("key-0")["anomaly_id"]).verdicts
    assert (entry.verdict, entry.note, entry.by) == ("anomaly", "asked the shop", "ann")
    page.press("u")
    page.until(lambda: page.text("h1") == "key-0")
    page.until(lambda: "withdrawn" in page.text(".history"))
    assert states(here) == {"open": 9}
    assert page.faults() == []


def test_what_takes_longer_comes_as_one_reaches_it(
    open_browser: Callable[..., Any], address: str, here: Installation
) -> None:
    """The page does not wait for it; on a low window it is not even asked for until one scrolls there."""
    page = Page(open_browser(height=300), address)
    page.go(f"/record/{row('key-0')['anomaly_id']}")
    assert page.text("h1") == "key-0"
    last = page.all(".part")[-1]
    assert [link.text for link in last.find_elements("css selector", "a")] == [
        "The records around this one in time"
    ]
    page.browser.execute_script("arguments[0].scrollIntoView()", last)
    page.until(lambda: "is not stored" in page.all(".part")[-1].text)
    assert page.faults() == []


def claims(here: Installation) -> dict[str, str]:
    rows = queue.page(here.ledger, Filters()).rows
    return {one.record_key: one.claim.by for one in rows if one.claim}


def test_a_record_is_marked_while_one_is_at_it_and_not_after(page: Page, here: Installation) -> None:
    """Somebody who walks past marks nothing; who stays does, until they leave."""
    names = [row(f"key-{i}")["anomaly_id"] for i in range(3)]
    page.go(f"/record/{names[0]}")
    page.press("j")
    page.until(lambda: page.text("h1") == "key-1")
    page.until(lambda: claims(here) == {"key-1": "ann"})
    page.press("\ue00c")
    page.until(lambda: page.all(".rows"))
    page.until(lambda: claims(here) == {})
    claim(here.ledger, names[2], by="bob")
    page.go(f"/record/{names[2]}")
    page.until(lambda: "bob is at this record" in page.text("[data-claim]"))
    page.go("/")
    assert claims(here) == {"key-2": "bob"}


def test_a_group_is_judged_whole_undone_and_seen_in_the_overview(page: Page, here: Installation) -> None:
    """Seven records, one press; the overview says what came of it."""
    page.go("/groups")
    assert page.text(".group .count") == "7 records"
    page.press("j", "1")
    page.until(lambda: "anomaly: 7 records" in page.text("#toast"))
    assert states(here) == {"open": 2, "anomaly": 7}
    page.go("/overview")
    tiles = page.text(".tiles")
    assert "Backlog 2 " in tiles
    assert (
        "Precision 7 judged too few to tell: of 7 flagged by version 3 and judged in 1 group, 7 were" in tiles
    )
    page.press("u")
    page.until(
        lambda: (
            "not said on this page: anomaly on 7 records of payments, all odd in amount↑"
            in page.text("#toast")
        )
    )
    page.hears_again()
    assert states(here) == {"open": 2, "anomaly": 7}
    page.press("u")
    page.until(lambda: "Backlog 9 " in page.text(".tiles"))
    assert states(here) == {"open": 9}


def test_a_note_goes_with_a_verdict_on_several_and_on_a_group(page: Page, here: Installation) -> None:
    """Written once, kept beside each verdict; one that could not be saved is there again."""
    page.press("j", "x", "j", "x", "n", "the sale", "\ue007", "\ue00c", "3")
    page.until(lambda: "expected change: 2 records" in page.text("#toast"))
    page.press("2")
    page.until(lambda: said_of(here, "key-2") == ["normal"])
    names = [row(f"key-{i}")["anomaly_id"] for i in range(4)]
    said = [[one.note for one in record.one(here.ledger, name).verdicts] for name in names]
    assert said == [["the sale"], ["the sale"], [""], []]
    page.go("/groups")
    page.press("j", "n", "all one cause", "\ue00c")
    page.network(offline=True)
    page.press("1")
    page.until(lambda: "not saved" in page.text("#toast"))
    assert page.all(".group.here .note")[0].get_attribute("value") == "all one cause"
    page.network()
    page.until(lambda: page.press("1") or said_of(here, "key-3") == ["anomaly"])
    (given,) = record.one(here.ledger, names[3]).verdicts
    assert given.note == "all one cause"


def test_a_group_of_many_takes_the_key_twice(page: Page, here: Installation) -> None:
    """One press on 21 records may be a slip; who is at one of them is still asked about."""
    put(here.ledger, rows := [row(f"m{i}", "2026-01-28", signature="late↑") for i in range(21)])
    claim(here.ledger, rows[0]["anomaly_id"], by="bob")
    page.go("/groups")
    page.press("j", "2")
    page.until(lambda: "normal: all 21 records, late↑? (2 once more)" in page.text("#toast"))
    page.hears_again()
    page.press("1")
    page.until(lambda: "anomaly: all 21 records, late↑? (1 once more)" in page.text("#toast"))
    page.hears_again()
    assert states(here) == {"open": 30}
    page.press("1")
    page.until(lambda: "anomaly: 20 records, late↑; 1 left out" in page.text("#toast"))
    assert states(here) == {"open": 10, "anomaly": 20}
    assert page.faults() == []


def test_a_part_of_a_group_is_judged_as_it_was_shown(page: Page, here: Installation) -> None:
    """Of the days up to one, say: the script sends what the list was narrowed by."""
    page.go("/groups?until=2026-01-29")
    assert page.text(".group .count") == "1 record"
    page.press("j", "1")
    page.until(lambda: "anomaly: 1 record," in page.text("#toast"))
    assert states(here) == {"open": 8, "anomaly": 1}


def test_a_rule_says_what_it_would_hide_before_it_is_saved(page: Page, here: Installation) -> None:
    """Draft from a record, look, say why, save; the records are gone from the list and are still counted."""
    judging.give(here.ledger, [row("key-5")["anomaly_id"]], "anomaly", by="bob")
    page.go(f"/record/{row('key-0')['anomaly_id']}")
    next(one for one in page.all(".alike a") if "rule" in one.text).click()
    page.until(
        lambda: (
            "would have hidden 7 records; of 1 that were judged, 1 was a confirmed anomaly"
            in page.text(".preview")
        )
    )
    page.all("[name=note]")[0].send_keys("the sale")
    page.all("button.primary")[0].click()
    page.until(lambda: "rule 1 holds until" in page.text("#toast"))
    page.go("/")
    assert page.text("h1") == "2 open"
    assert queue.total(here.ledger, Filters(suppressed=True)) == 6


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_a_rule_that_was_edited_after_it_was_tried_is_shown_before_it_is_saved(
    open_browser: Callable[..., Any], address: str, here: Installation, script: bool
) -> None:
    """Widened to any signature, it would hide two days' records that nobody saw: pressed once, it says so;
    pressed again, it is kept.
    """
    page = Page(open_browser(script=script), address, scripted=script)
    page.go("/rules?" + urlencode({"dataset": "payments", "signature": "fee↓"}))
    page.until(lambda: "would have hidden 1 record;" in page.text(".preview"))
    page.all("[name=signature]")[0].clear()
    page.all("[name=column]")[0].send_keys("country")
    page.all("[name=value]")[0].send_keys("DE")
    page.all("[name=note]")[0].send_keys("the sale")
    page.all("button.primary")[0].click()
    page.until(lambda: "Not saved yet" in page.text("#slip"))
    n_hidden = int(page.text(".preview:not(#slip) b"))
    assert n_hidden > 1
    assert queue.total(here.ledger, Filters(suppressed=True)) == 0
    assert page.all("[name=note]")[0].get_attribute("value") == "the sale"
    page.all("button.primary")[0].click()
    page.until(lambda: "rule 1 holds until" in page.text("#toast"))
    assert queue.total(here.ledger, Filters(suppressed=True)) == n_hidden


def test_what_a_stranger_wrote_does_not_run(page: Page, here: Installation) -> None:
    """On every page that shows it."""
    evil = queue.page(here.ledger, Filters(driver="country")).rows[0].anomaly_id
    for path in ("/?state=any", f"/record/{evil}", "/groups", "/overview"):
        page.go(path)
        assert page.browser.title != "broken into"
        assert not page.all("img[src=x]")
    page.go(f"/record/{evil}")
    assert "onerror" in page.text("h1")


def test_a_record_is_claimed_while_it_is_open_and_free_again_when_it_is_left(
    page: Page, here: Installation
) -> None:
    """Others see who is at it; walking through records does not leave them all taken."""
    name = row("key-0")["anomaly_id"]
    page.go(f"/record/{name}")
    page.until(lambda: getattr(record.one(here.ledger, name).claim, "by", "") == "ann")
    page.press("j")
    page.until(lambda: page.text("h1") == "key-1")
    page.until(lambda: record.one(here.ledger, name).claim is None)


def test_a_disagreement_shows_both_and_is_settled_here(page: Page, here: Installation) -> None:
    """Two names, two words; one press ends it."""
    name = row("key-0")["anomaly_id"]
    judging.give(here.ledger, [name], "normal", by="bob")  # while ann has the list open
    page.press("j", "1")
    page.until(lambda: "reviewers differ" in page.text("#toast"))
    assert page.text(".row .pill") == "conflict"
    page.go(f"/record/{name}?state=any")
    assert {"bob", "ann"} <= {one.text for one in page.all(".history li:not(.past) b")}
    assert "Reviewers differ" in page.text(".conflict-note")
    page.press("2")
    page.until(lambda: record.one(here.ledger, name).state == "normal")


def test_the_page_works_without_a_script(
    open_browser: Callable[..., Any], address: str, here: Installation
) -> None:
    """Tick, press, read what was done, take it back."""
    page = Page(open_browser(script=False), address, scripted=False)
    page.all(".row input")[0].click()
    page.all(".bulk .say.normal")[0].click()
    page.until(lambda: "normal: 1 record" in page.text("#toast"))
    assert states(here) == {"open": 8, "normal": 1}
    page.all("#toast button")[0].click()
    page.until(lambda: "withdrawn: normal on key-0 of payments; now: open" in page.text("#toast"))
    assert states(here) == {"open": 9}
    page.all(".row .key")[0].click()
    page.until(lambda: page.all("article.record .part"))
    page.all(".part.nearest a")[0].click()
    page.until(lambda: page.text("h1") == "key-0 against normal records")
    assert "is not stored" in page.text("article")


CLICK_TWICE = """
new MutationObserver((_, seen) => {
  if (!document.querySelector("#toast .told").textContent.includes("once more")) return;
  seen.disconnect();
  document.querySelector(".saying .say.normal").click();
}).observe(document.querySelector("#toast"), { childList: true, subtree: true });
"""  # the second of a double click, just after the answer to the first


def test_u_names_what_was_not_said_on_this_page_before_it_takes_it_back(
    page: Page, here: Installation
) -> None:
    """One cannot see what was said in a shell. What is said meanwhile goes first, and ends the question."""
    ids = [row(f"key-{i}")["anomaly_id"] for i in range(6)]
    judging.give(here.ledger, ids[4:], "normal", by="ann")
    question = "not said on this page: normal on key-4, key-5 of payments, given 20"
    page.press("u")
    page.until(lambda: question in page.text("#toast"))
    page.hears_again()
    assert said_of(here, "key-4", "key-5") == ["normal", "normal"]
    page.press("j", "1", "u")
    page.until(lambda: "withdrawn: anomaly on key-0 of payments; now: open" in page.text("#toast"))
    page.press("u")
    page.until(lambda: question in page.text("#toast"))
    page.hears_again()
    page.press("u")
    page.until(lambda: "withdrawn: normal on key-4, key-5 of payments, given 20" in page.text("#toast"))
    assert states(here) == {"open": 9}
    page.press("u")
    page.until(lambda: "ann has no verdict that could be taken back" in page.text("#toast"))


def test_a_verdict_on_what_somebody_else_is_at_takes_the_key_twice(page: Page, here: Installation) -> None:
    """In the list and on the record's page: the first says who is at it, the second gives it anyway. A double
    click is the first.
    """
    for key in ("key-0", "key-1", "key-2"):
        claim(here.ledger, row(key)["anomaly_id"], by="bob")
    page.press("j", "1")
    page.until(lambda: "bob is at record 'key-0' until" in page.text("#toast"))
    assert page.focused() == "key-0"
    page.hears_again()
    page.press("1")
    page.until(lambda: said_of(here, "key-0", "key-1") == ["anomaly", "open"])
    page.go(f"/record/{row('key-1')['anomaly_id']}")
    assert "bob is at this record" in page.text("[data-claim]")
    page.browser.execute_script(CLICK_TWICE)
    page.all(".saying .say.normal")[0].click()
    page.until(lambda: "give the verdict anyway (2 once more)" in page.text("#toast"))
    page.hears_again()
    assert said_of(here, "key-1") == ["open"]
    page.press("2")
    page.until(lambda: page.text("h1") == "key-2")
    assert said_of(here, "key-1") == ["normal"]
    page.go("/groups")
    page.press("j", "3")
    page.until(lambda: "expected change: 4 records" in page.text("#toast"))
    assert "1 left out: somebody else is at it" in page.text("#toast")
    assert said_of(here, "key-2", "key-3") == ["open", "expected_change"]


def test_a_claim_without_a_script_and_on_a_small_screen(
    open_browser: Callable[..., Any], address: str, here: Installation
) -> None:
    """A button claims, the list says who has what, and a verdict is asked about once more."""
    page = Page(open_browser(390, 844, script=False), address, scripted=False)
    mine, theirs = (row(key)["anomaly_id"] for key in ("key-0", "key-1"))
    page.go(f"/record/{mine}")
    page.all(".claim button")[0].click()
    page.until(lambda: "yours until" in page.text(".claim"))
    assert claims(here) == {"key-0": "ann"}
    claim(here.ledger, theirs, by="bob")
    page.go("/")
    assert page.text(".row .at") == "at bob"
    assert page.all(".row .at")[0].is_displayed()
    assert page.browser.execute_script("return document.documentElement.scrollWidth") <= 390
    page.go(f"/record/{theirs}")
    page.all("form.saying .say.normal")[0].click()
    page.until(lambda: "bob is at record" in page.text("main"))
    page.all("main button")[0].click()
    page.until(lambda: said_of(here, "key-1") == ["normal"])
