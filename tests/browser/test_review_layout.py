"""The review page as it is laid out: on small screens, in the dark, with long words, and while one reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
import pytest

from pipeline.detection.detector import Detector
from pipeline.installation import Installation
from pipeline.registry import TrainingRun
from pipeline.report.trust import MISSES, UNOPPOSED
from pipeline.review import judging, suppression
from pipeline.storage.ledger import BatchState
from tests.browser.conftest import DATASET
from tests.browser.page import Page
from tests.pipeline.review_data import put, reason, row

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.mark.parametrize(
    "path", ["/", "/groups", "/batches", "/overview", "/rules?dataset=payments&signature=fee↓"]
)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_wider_than_a_small_screen_and_text_can_be_read(
    open_browser: Callable[..., Any], address: str, path: str, dark: bool
) -> None:
    """390 px: no sideways scrolling; every text has a contrast of 4.5 to what is behind it (WCAG AA)."""
    page = Page(open_browser(390, 844, dark=dark), address)
    page.go(path)
    assert page.browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert page.browser.execute_script(CONTRASTS) == []


@pytest.mark.parametrize("width", [320, 400])
def test_long_words_and_many_columns_fit_a_small_screen(
    open_browser: Callable[..., Any], address: str, here: Installation, width: int
) -> None:
    """Names and values without a blank break; what is to be said stands before how the score adds up."""
    names = [f"a_column_whose_name_is_longer_than_a_telephone_is_wide_{i}" for i in range(60)]
    odd = reason(names[0], observed="W" * 3000, expected="Q" * 400, low=None, high=None)
    long = row(
        "K" * 280, "2026-01-31", severity=9.5, driver=names[0], signature=f"{names[0]}≠ {names[1]}↑", reasons=[odd, reason(names[1])],
        terms=[{"column": name, "nats": 9.0} for name in names[:16]], record=dict.fromkeys(names, "V" * 3000),
    )  # fmt: skip
    put(here.ledger, [long])
    judging.give(here.ledger, [long["anomaly_id"]], "unsure", by="b" * 60, note="n" * 900)
    page = Page(open_browser(width, 844), address)
    draft = urlencode({
        "dataset": "payments", "signature": long["signature"], "column": names[0], "value": "V" * 300,
    })  # fmt: skip
    for path in ("/?state=any", f"/record/{long['anomaly_id']}", "/groups", f"/rules?{draft}", "/overview"):
        page.go(path)
        assert page.browser.execute_script("return document.documentElement.scrollWidth") <= width, path
    page.go(f"/record/{long['anomaly_id']}")
    tops = [page.all(selector)[0].location["y"] for selector in (".reasons", ".judge", ".adds", ".cells")]
    assert tops == sorted(tops)


HIDDEN = """
return [...document.querySelectorAll(".cards tbody tr > *")].filter(one => one.checkVisibility()).flatMap(one => {
  const box = one.getBoundingClientRect(), inside = one.closest(".panel").getBoundingClientRect();
  return box.left < inside.left || box.right > inside.right || one.scrollWidth > one.clientWidth ? [one.innerText] : [];
});
"""


@pytest.mark.parametrize("size", [(320, 844), (390, 844), (1280, 900)], ids=str)
def test_rules_and_batches_are_whole_on_every_screen(
    open_browser: Callable[..., Any], address: str, here: Installation, size: tuple[int, int]
) -> None:
    """What a rule hides, why, and its button are not beside the screen; a card names its values."""
    last = (datetime.now(UTC).date() + timedelta(days=9)).isoformat()
    note = "Billing of a shop moves to another system until the middle of the month; finance knows. " * 3
    for signature, conditions in (("", {"country": "DE", "fee": "missing"}), ("amount↑ fee↓", {})):
        rule = suppression.Rule("payments", signature, conditions, last, note, "ann")
        suppression.save(here.ledger, rule)
    at = datetime(2026, 1, 31, 23, tzinfo=UTC)
    reason = f"column 'fee' is missing from {'a_file_with_a_long_name_' * 3}.parquet; {note}"
    state = BatchState(
        "payments", "2026-01-30", 1, "refused", reason, "f", "s", "c", [], [], {}, 40, 0, at, at
    )
    here.ledger.record_validation(state)
    scored = here.ledger.record_validation(
        replace(
            state,
            batch_id="2026-01-29_part-of-a-delivery",
            status="accepted",
            n_read=1_000_000,
            n_accepted=999_999,
        )
    )
    here.ledger.record_scores(
        scored,
        model_version=12,
        threshold=4.0,
        n_flagged=1_234,
        tone="notice",
        headline=f"{UNOPPOSED}; {MISSES}",
    )
    page = Page(open_browser(*size), address)
    page.go("/rules")
    assert len(page.all(".act button")) == 2
    assert note.strip() in page.text(".cards tbody tr")
    assert page.browser.execute_script(HIDDEN) == []
    page.go("/batches")
    assert len(page.all(".batches tbody tr")) == 2
    assert page.browser.execute_script(HIDDEN) == []
    assert page.browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
    link = page.all(".batches td a")[0]
    page.browser.execute_script("arguments[0].focus()", link)
    page.press("\ue007")  # Enter
    page.until(lambda: "batch=2026-01-29_part-of-a-delivery" in page.browser.current_url)


ARRANGED = """
return [...document.querySelectorAll(".group")].map(group => {
  const outer = group.getBoundingClientRect(), top = group.querySelector(".group-say").getBoundingClientRect().top;
  const place = selector => { const box = group.querySelector(selector).getBoundingClientRect(); return [box.left - outer.left, box.top - top]; };
  const under = group.querySelector(".signature").getBoundingClientRect().top - group.querySelector(".count").getBoundingClientRect().bottom;
  return JSON.stringify([place(".signature")[0], under >= 0, place(".facts")[1] < place(".signature")[1], place(".all"), place(".say"), place(".note"), place(".quiet")]);
});
"""


def test_groups_on_a_small_screen_are_all_arranged_alike(
    open_browser: Callable[..., Any], address: str, here: Installation
) -> None:
    """However long what they are odd in, and however many they are."""
    long = "a_column_with_a_long_name↑ another_column_with_a_long_name↓"
    put(here.ledger, [row(f"l{i}", "2026-01-27", signature=long) for i in range(12)])
    page = Page(open_browser(390, 1400), address)
    page.go("/groups")
    arranged = page.browser.execute_script(ARRANGED)
    assert len(arranged) >= 3
    assert len(set(arranged)) == 1
    assert ",true,true," in arranged[0]


HOLES = """
return [...document.querySelectorAll(".page > .tiles, .page > .charts")].flatMap(grid => {
  const within = grid.getBoundingClientRect(), last = grid.lastElementChild.getBoundingClientRect();
  return within.right - last.right > 1 ? [grid.className] : [];
});
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_an_overview_of_two_datasets_leaves_no_hole(
    open_browser: Callable[..., Any], address: str, here: Installation, width: int
) -> None:
    """Each has a plot of its own, in a row with the other's where there is room."""
    (here.settings.datasets / "claims.yaml").write_text(DATASET.replace("payments", "claims"))
    put(here.ledger, [row("a", dataset="claims")])
    page = Page(open_browser(width, 900), address)
    page.go("/overview")
    assert [one.text for one in page.all(".daily h3")] == ["claims", "payments"]
    assert page.browser.execute_script(HOLES) == []
    tops = {one.location["y"] for one in page.all(".daily h3")}
    assert len(tops) == (1 if width == 1280 else 2)
    if width == 1280:
        widths = {one.size["width"] for one in page.all(".charts > .panel")}
        assert len(widths) == 1  # one under the other, each as wide as the page


CUT = """
const plot = [...document.querySelectorAll(".daily svg")].filter(one => one.checkVisibility());
const within = plot[0].closest(".panel").getBoundingClientRect();
const parts = [...plot[0].querySelectorAll("text, rect")], boxes = parts.map(one => one.getBoundingClientRect());
return [plot.length, parts.filter((_, i) => boxes[i].left < within.left || boxes[i].right > within.right).length,
  Math.min(...parts.map((one, i) => one.tagName === "text" ? boxes[i].height : 99)), plot[0].querySelectorAll("g").length];
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_every_flagged_day_is_on_the_screen_with_the_axis(
    open_browser: Callable[..., Any], address: str, here: Installation, width: int
) -> None:
    """One drawing is shown, nothing of it is cut off, and its letters can be read."""
    put(here.ledger, [row("a", f"2026-01-{day:02}") for day in range(1, 29)])
    page = Page(open_browser(width, 844), address)
    page.go("/overview")
    shown, cut, smallest, days = page.browser.execute_script(CUT)
    assert (shown, cut, days) == (1, 0, 30)
    assert smallest > 9
    axis = [one.text for one in page.all(".daily svg text") if one.is_displayed()]
    assert axis[:3] == ["0", "4", "8"]
    assert axis[3::2] == ["2026-01-01", "2026-01-30"]


def test_a_filter_by_severity_is_in_sight_and_names_of_groups_stand_in_line(
    open_browser: Callable[..., Any], address: str, here: Installation
) -> None:
    """However many columns are at odds, and however many digits a group's count has."""
    drivers = [f"column {i}" for i in range(12)]
    put(
        here.ledger, [row(f"k{i}", "2026-01-28", driver=one, signature="x↑") for i, one in enumerate(drivers)]
    )
    for i, one in enumerate(("anomaly", "normal", "expected_change", "data_error", "unsure")):
        judging.give(here.ledger, [row(f"key-{i}")["anomaly_id"]], one, by="ann")
    page = Page(open_browser(1280, 900), address)
    choices = [one for one in page.all(".facet a") if one.text.startswith("at least")]
    assert len(choices) >= 3
    assert all(one.location["y"] + one.size["height"] < 900 for one in choices)
    page.go("/groups")
    assert {len(one.text.split()[0]) for one in page.all(".group .count")} == {1, 2}
    assert len({one.location["x"] for one in page.all(".group .signature")}) == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_what_was_judged_can_still_be_read(
    open_browser: Callable[..., Any], address: str, here: Installation, dark: bool
) -> None:
    """Set apart, not faded: rows and groups just judged, a history with an entry that was taken back, an
    ended rule.
    """
    name = row("key-0")["anomaly_id"]
    first = judging.give(here.ledger, [name], "normal", by="ann", note="a note")
    judging.undo(here.ledger, first.act, by="ann")
    last = (datetime.now(UTC).date() + timedelta(days=9)).isoformat()
    rule = suppression.save(
        here.ledger, suppression.Rule("payments", "none such", {}, last, "the sale", "ann")
    )
    suppression.end(here.ledger, rule.number, by="ann")
    page = Page(open_browser(dark=dark), address)
    page.press("j", "1", "2", "3", "4", "5")
    page.until(lambda: len(page.all(".row.saved")) == 5)
    assert page.browser.execute_script(CONTRASTS) == []
    page.go("/groups")
    page.press("j", "1")
    page.until(lambda: "records" in page.text("#toast"))
    assert len(page.all(".group.saved")) == 1
    assert page.browser.execute_script(CONTRASTS) == []
    for path, past in ((f"/record/{name}?state=any", 2), ("/rules", 1)):
        page.go(path)
        assert len(page.all(".past")) == past
        assert page.browser.execute_script(CONTRASTS) == []


GOOD = 0.1  # cumulative layout shift, by Google's word
SHIFTS = """
const done = arguments[0], found = [];
new PerformanceObserver(list => { for (const entry of list.getEntries()) if (!entry.hadRecentInput) found.push(entry.value); })
  .observe({ type: "layout-shift", buffered: true });
setTimeout(() => done(found), 400);
"""


def store_records(here: Installation) -> dict[str, Any]:
    """A batch of forty records of one card with eight numbers each, one of them flagged; its row of the
    queue.
    """
    file = here.settings.datasets / "payments.yaml"
    text = file.read_text().replace("columns:", "entity: card\ncolumns:\n  card: {type: string}")
    names = [f"measured_quantity_{i}" for i in range(8)]
    text += "".join(f"  {name}: {{type: float, role: numeric}}\n" for name in names)
    file.write_text(text)
    day, keys = "2026-01-31", [f"2026-01-31-{i:03}" for i in range(40)]
    records = [{"card": "c1", **{name: 1.37 * i + j for j, name in enumerate(names)}} for i in range(40)]
    tables = here.tables(here.dataset("payments"))
    common = {"batch_id": [day] * 40, "row_number": list(range(40)), "record_key": keys}
    stored = {"set_aside": [False] * 40, "reasons": pa.nulls(40, pa.list_(pa.string())), "record": records}
    tables.replace("records", day, pa.table(common | stored).to_reader(), note={})
    scores = {"flagged": [i == 7 for i in range(40)]}
    tables.replace("scores", day, pa.table(common | scores).to_reader(), note={})
    at = datetime(2026, 1, 31, 23, tzinfo=UTC)
    state = BatchState("payments", day, 1, "accepted", "", "f", "s", "c", [], [], {}, 40, 40, at, at)
    here.ledger.record_scores(
        here.ledger.record_validation(state), model_version=3, threshold=4.5, n_flagged=1
    )
    flagged = row(keys[7], day, row_number=7, record=records[7])
    put(here.ledger, [flagged])
    return flagged


@pytest.mark.parametrize("size", [(1280, 900), (800, 900), (390, 844)], ids=["wide", "tablet", "telephone"])
def test_nothing_moves_while_one_reads(
    open_browser: Callable[..., Any], address: str, here: Installation, size: tuple[int, int]
) -> None:
    """What comes later has its place before it comes: the sum of all shifts, which is at least Google's
    score, is good on a slow line, from the top of a page to its end.
    """
    record_page = f"/record/{store_records(here)['anomaly_id']}"
    page = Page(open_browser(*size), address)
    page.browser.execute_cdp_cmd("Network.enable", {})
    page.browser.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
    page.network(latency=300)
    for path in ("/", record_page, "/overview"):
        page.go(path)
        for part in page.all("[data-part]"):
            page.browser.execute_script("arguments[0].scrollIntoView({block: 'start'})", part)
            page.until(lambda part=part: not part.find_elements("css selector", "p.lead:only-child > a"))
        page.browser.execute_script("scrollTo(0, document.documentElement.scrollHeight)")
        if path == record_page:
            assert len(page.all(".near tbody tr")) == 3
            assert len(page.all(".around tbody tr")) == 7
        assert sum(page.browser.execute_async_script(SHIFTS)) < GOOD, path


def register_versions(here: Installation, n: int) -> None:
    """Versions of a model of the records that `store_records` left, each with a training's page."""
    file = here.settings.datasets / "payments.yaml"
    kept = [line for line in file.read_text().splitlines() if not re.match(r"  (amount|fee|country):", line)]
    file.write_text("\n".join([*kept, "train: {recipe: {steps: 5, n_members: 1, critic_steps: 0}}", ""]))
    dataset = here.dataset("payments")
    names, random = list(dataset.columns), np.random.default_rng(3)
    table = pa.table({name: random.normal(30, 9, 80) if name != "card" else ["c1"] * 80 for name in names})
    folder = here.settings.home / "detector"
    trained = Detector.train(dataset, table.slice(0, 40), table.slice(40), records_per_day=40, device="cpu")
    trained.save(folder)
    for i in range(n):
        key = f"{i}" * 32
        here.registry.register(TrainingRun("payments", key, folder, table.slice(0, 3)))
        page = here.training_page(dataset, key)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("")


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["wide", "telephone"])
def test_what_versions_say_has_a_place_for_as_many_as_there_are(
    open_browser: Callable[..., Any], address: str, here: Installation, size: tuple[int, int]
) -> None:
    """Five of them: what stands below does not move when they come."""
    flagged = store_records(here)
    register_versions(here, 5)
    page = Page(open_browser(*size), address)
    page.go(f"/record/{flagged['anomaly_id']}/versions")  # the server has its models from now on
    page.go(f"/record/{flagged['anomaly_id']}")
    place, below = (
        page.all(".part.versions")[0],
        "return document.querySelector('#around').getBoundingClientRect().top + scrollY - document.querySelector('#versions').getBoundingClientRect().top - scrollY",
    )
    before = page.browser.execute_script(below)
    page.browser.execute_script("arguments[0].scrollIntoView({block: 'start'})", place)
    page.until(lambda: len(place.find_elements("css selector", "tbody tr")) == 5)
    assert page.browser.execute_script(below) - before == pytest.approx(0, abs=24)  # less than a row


def test_a_name_breaks_only_where_there_is_no_room_beside_it(
    open_browser: Callable[..., Any], address: str, here: Installation
) -> None:
    """Columns of the record, four abreast: the value needs what it needs."""
    names = ["VendorID", "improvement_surcharge", "congestion_surcharge", "store_and_fwd_flag"]
    given = row("taxi", "2026-01-31", record={**dict.fromkeys(names, 0), "n" * 60: "v" * 900})
    put(here.ledger, [given])
    page = Page(open_browser(1280, 900), address)
    page.go(f"/record/{given['anomaly_id']}")
    heights = {one.text: one.size["height"] for one in page.all(".cells dt")}
    assert {heights[name] for name in names[:4]} == {heights["VendorID"]}
    assert page.browser.execute_script(
        "return [...document.querySelectorAll('.cells div, .cells dt')].every(one => one.scrollWidth <= one.clientWidth)"
    )


SPARE = """
return [...document.querySelectorAll(".part")].map(place => {
  const last = place.lastElementChild.getBoundingClientRect();
  return place.getBoundingClientRect().bottom - last.bottom;
});
"""


def test_room_that_was_kept_and_not_needed_is_given_back_out_of_sight(
    open_browser: Callable[..., Any], address: str, here: Installation
) -> None:
    """Parts that say in a line that there is nothing leave no empty strip, once what is below is not seen."""
    page = Page(open_browser(1280, 500), address)
    page.go(f"/record/{row('key-0')['anomaly_id']}?state=any")
    assert max(page.browser.execute_script(SPARE)) > 100
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert max(page.browser.execute_script(SPARE)) < 24  # on paper nothing comes later
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    for part in page.all(".part"):
        page.browser.execute_script("arguments[0].scrollIntoView({block: 'start'})", part)
        page.until(lambda part=part: not part.find_elements("css selector", "p.lead:only-child > a"))
    page.browser.execute_script("scrollTo(0, 0)")
    page.until(lambda: len(page.all(".part.filled")) == 4)
    assert max(page.browser.execute_script(SPARE)) < 24


CONTRASTS = """
const light = c => { const p = c.map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * p[0] + .7152 * p[1] + .0722 * p[2]; };
const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
const behind = node => { for (; node; node = node.parentElement) { const c = parse(getComputedStyle(node).backgroundColor); if (c.length === 3 || c[3] === 1) return c.slice(0, 3); } return [255, 255, 255]; };
const faded = node => { let left = 1; for (; node; node = node.parentElement) left *= Number(getComputedStyle(node).opacity); return left; };
const bad = [];
const look = (node, text, style, left) => {
  const under = behind(node), ink = parse(style.color).slice(0, 3).map((v, i) => v * left + under[i] * (1 - left));
  const [a, b] = [light(ink), light(under)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
  if (ratio < 4.5) bad.push(`${node.tagName}.${node.className} ${text.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
};
for (const node of document.querySelectorAll("main *, header *, #toast *")) {
  if (!node.checkVisibility() || node.closest("[disabled], svg")) continue;
  if (node.placeholder) { const style = getComputedStyle(node, "::placeholder"); look(node, node.placeholder, style, faded(node) * Number(style.opacity)); }
  if ([...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim())) look(node, node.textContent, getComputedStyle(node), faded(node));
}
return bad;
"""
