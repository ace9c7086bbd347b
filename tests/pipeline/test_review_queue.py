"""The queue: every page and count is what a plain search through all rows would give, on SQLite and
PostgreSQL.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, NotReady
from pipeline.records.verdicts import OPINIONS
from pipeline.review import acts, intake, judging, queue, record
from pipeline.review.filling import label
from pipeline.review.filters import BANDS, Filters, Place, begins
from pipeline.review.groups import groups
from pipeline.storage.ledger import Ledger
from pipeline.storage.review_schema import queue as queue_table

from .review_data import BATCH, put, row

DAYS = ["2026-01-28", "2026-01-29", "2026-01-30"]


@st.composite
def rows_and_filters(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, str], Filters]:
    """Some rows, verdicts on some of them, and a filter that lets some of them through."""
    some = st.sampled_from
    rows = [
        row(
            f"k{number}",
            draw(some(DAYS)),
            severity=draw(some([1.0, 2.5, 2.5, 4.0, 17.0])),
            anomaly_score=draw(some([7.25, 7.5, 31.0])),
            driver=(driver := draw(some(["amount", "fee"]))),
            oddness=draw(some(["above", "missing"])),
            signature=f"{driver}↑",
            kind=draw(some(["flagged", "flagged", "sampled"])),
            suppressed=draw(some([0, 0, 1])),
        )
        for number in range(draw(st.integers(0, 12)))
    ]
    chosen = {one["anomaly_id"]: draw(some(OPINIONS)) for one in rows if draw(st.booleans())}
    maybe = lambda *values: draw(some([None, *values]))  # noqa: E731
    filters = Filters(
        dataset=maybe("payments"),
        state=maybe("open", *OPINIONS),
        driver=maybe("amount", "fee"),
        oddness=maybe("above", "missing"),
        severity=maybe(*BANDS[:4]),
        kind=maybe("flagged", "sampled"),
        model_version=maybe(3),
        reviewer=maybe("ann"),
        since=maybe(*DAYS),
        until=maybe(*DAYS),
        batch=maybe(*DAYS),
        signature=maybe("fee↑"),
        search=maybe("k1"),
        suppressed=draw(st.booleans()),
    )
    return rows, chosen, filters


def lets_through(filters: Filters, one: dict[str, Any]) -> bool:
    """The filters' meaning, without a database."""
    equal = ("dataset", "state", "driver", "oddness", "kind", "model_version", "reviewer", "signature")
    return (
        all(getattr(filters, name) in {None, one[name]} for name in equal)
        and (filters.severity is None or one["band"] >= filters.severity)
        and (filters.since is None or one["day"] >= filters.since)
        and (filters.until is None or one["day"] <= filters.until)
        and filters.batch in {None, one["batch_id"]}
        and (filters.search is None or one["record_key"].startswith(filters.search))
        and filters.suppressed == bool(one["suppressed"])
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows_and_filters())
def test_pages_and_counts_are_those_of_a_plain_search(
    store: Ledger, drawn: tuple[list[dict[str, Any]], dict[str, str], Filters]
) -> None:
    """Tallies, day windows and paging make it quick; none of them may lose, double or reorder a row."""
    rows, chosen, filters = drawn
    while act := acts.newest(store, by="ann"):  # what the example before left behind
        judging.undo(store, act, by="ann")
    for batch_id in DAYS:
        held = replace(BATCH, batch_id=batch_id, day=batch_id)
        with store.transaction(write=True) as connection:
            intake.replace_batch(connection, held, [one for one in rows if one["batch_id"] == batch_id])
    for anomaly_id, opinion in chosen.items():
        judging.give(store, [anomaly_id], opinion, by="ann")
    for one in rows:
        one["state"] = chosen.get(one["anomaly_id"], "open")
        one["reviewer"] = "ann" if one["anomaly_id"] in chosen else ""
        one["suppressed"] = 0 if one["anomaly_id"] in chosen else one["suppressed"]

    by = ("day", "anomaly_id") if filters.kind == "sampled" else Place._fields
    expected = sorted(
        (one for one in rows if lets_through(filters, one)),
        key=lambda one: [one[name] for name in by],
        reverse=True,
    )
    found, after = [], None
    while True:
        page = queue.page(store, filters, after=after, limit=3)
        found += page.rows
        after = page.more_after and Place.read(str(page.more_after))
        if after is None:
            break
        assert len(page.rows) == 3
    assert [one.anomaly_id for one in found] == [one["anomaly_id"] for one in expected]
    assert set(queue.members(store, replace(filters, search=None))) == {
        one["anomaly_id"] for one in rows if lets_through(replace(filters, search=None), one)
    }

    ids = [None, *(one["anomaly_id"] for one in expected), None]
    for before, this, after in zip(ids, expected, ids[2:], strict=False):
        place = Place(this["day"], this["severity"], this["anomaly_score"], this["anomaly_id"])
        assert queue.beside(store, filters, place) == (before, after)

    counted = queue.counts(store, filters)
    assert {type(n) for facet in counted.values() for n in facet.values()} <= {int}
    plain = filters.without("search", "signature")
    for facet in queue.FACETS:
        others = Counter[Any]()
        for one in rows:
            if lets_through(plain.without(facet), one):
                others[one["band" if facet == "severity" else facet]] += facet == "kind" or one["kind"] == (
                    filters.kind or "flagged"
                )
        asked = getattr(filters, facet)
        if facet == "severity":
            others = Counter({band: sum(n for at, n in others.items() if at >= band) for band in BANDS})
            others = Counter({band: n for band, n in others.items() if n or band == asked})
        elif asked is not None:
            others[asked] += 0
        assert counted[facet] == others
    assert queue.total(store, plain) == sum(lets_through(plain, one) for one in rows)
    counted_by = ("dataset", "state", "batch", "signature", "since", "until")
    alike = Filters(**{name: getattr(filters, name) for name in counted_by})
    members = [one for one in rows if one["kind"] == "flagged" and lets_through(alike, one)]
    found = groups(store, alike)
    assert {group.signature: group.n for group in found} == Counter(one["signature"] for one in members)
    for group in found:
        mine = [one for one in members if one["signature"] == group.signature]
        assert group.severest == group.exemplar.severity == max(one["severity"] for one in mine)
        severest = [one for one in mine if one["severity"] == group.severest]
        assert group.exemplar.anomaly_id in {one["anomaly_id"] for one in severest}
        of_its_batch = [one for one in severest if one["day"] == group.exemplar.day]
        assert group.exemplar.anomaly_score == max(one["anomaly_score"] for one in of_its_batch)
        days = [one["day"] for one in mine]
        assert (group.first_day, group.last_day) == (min(days), max(days))


def test_a_batch_scored_again_takes_the_place_of_the_first_and_verdicts_stay(store: Ledger) -> None:
    """Another model flags others; what a person said of a record is still there, and still found."""
    put(store, [row("gone"), row("judged"), row("both")])
    first = {one.record_key: one.anomaly_id for one in queue.page(store, Filters()).rows}
    judging.give(store, [first["judged"], first["both"]], "anomaly", by="ann")
    again = [row("both", model_version=4, severity=5.0), row("new", model_version=4)]
    for _ in range(2):
        put(store, again)
    rows = {one.record_key: one for one in queue.page(store, Filters()).rows}
    assert {key: (one.kind, one.state, one.model_version) for key, one in rows.items()} == {
        "both": ("flagged", "anomaly", 4),
        "judged": ("cleared", "anomaly", 3),
        "new": ("flagged", "open", 4),
    }
    assert rows["both"].anomaly_id == first["both"]
    assert queue.counts(store, Filters())["kind"] == {"flagged": 2, "cleared": 1}
    assert intake.held(store, "payments")["2026-01-30"].model_version == 4


def test_records_that_are_odd_alike_are_gathered(store: Ledger) -> None:
    """One look at the most severe of them says what the others are."""
    put(store, [row(f"k{i}", severity=2.0 + i, signature="amount↑ fee↓", driver="amount") for i in range(4)])
    put(store, [row("other", "2026-01-29", signature="items↑", driver="items")])
    found = groups(store, Filters(state="open"))
    assert [(group.signature, group.n, group.severest) for group in found] == [
        ("amount↑ fee↓", 4, 5.0),
        ("items↑", 1, 3.5),
    ]
    assert found[0].exemplar.record_key == "k3"
    judging.give(
        store, queue.members(store, Filters(state="open", signature="amount↑ fee↓")), "normal", by="ann"
    )
    assert [group.signature for group in groups(store, Filters(state="open"))] == ["items↑"]


HOSTILE = [
    "<script>alert(1)</script>",
    "'; DROP TABLE queue; --",
    "%",
    "_",
    "\\",
    "é\U0001f600",
    "k\N{REPLACEMENT CHARACTER}",
]


@pytest.mark.parametrize("key", HOSTILE)
def test_any_text_can_be_a_key_and_be_searched_for(store: Ledger, key: str) -> None:
    """Keys are a stranger's: they are compared, never interpreted."""
    put(store, [row(key), row("plain")])
    found = queue.page(store, Filters(search=key)).rows
    assert [one.record_key for one in found] == [key]


def test_a_search_that_finds_many_shows_the_newest_first(
    store: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key may begin as a million others do: the first page is of the newest, and filters hold."""
    monkeypatch.setattr(queue, "LOOKED_UP", 10)
    put(store, [row(f"card-{i:03}", "2026-01-28") for i in range(60)])
    put(store, [row("card-new", "2026-01-30"), row("card-fee", "2026-01-29", driver="fee")])
    found = queue.page(store, Filters(search="card-"), limit=3).rows
    assert [one.record_key for one in found[:2]] == ["card-new", "card-fee"]
    (only,) = queue.page(store, Filters(search="card-", driver="fee")).rows
    assert only.record_key == "card-fee"
    assert len(queue.page(store, Filters(search="card-"), limit=100).rows) == 62


def test_on_sqlite_a_search_of_many_reads_an_index_alone(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are as large as their records: looking a key up in each of a million took a second."""
    monkeypatch.setattr(queue, "LOOKED_UP", 1)
    put(ledger, [row(f"card-{i}") for i in range(5)])
    asked: list[tuple[str, Any]] = []
    sa.event.listen(sa.Engine, "before_cursor_execute", keep := lambda *given: asked.append(given[2:4]))
    try:
        queue.page(ledger, Filters(search="card-", driver="amount", oddness="above", state="open"))
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", keep)
    (search,) = [one for one in asked if "ORDER BY queue.day DESC" in one[0] and "LIMIT" in one[0]]
    with ledger.transaction() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {search[0]}", search[1]).all()
    assert [step[3] for step in plan] == ["SCAN queue USING COVERING INDEX ix_queue_page"]


def test_on_sqlite_a_list_by_how_records_are_odd_reads_an_index_alone(ledger: Ledger) -> None:
    """In the order of the pages, on the days that hold the next of them: a kind that few records are of is
    found without reading the others.
    """
    put(ledger, [row(f"k{i}", f"2026-01-{i + 1:02}") for i in range(20)])
    put(ledger, [row("rare", "2026-01-05", oddness="missing"), row("rarer", "2026-01-02", oddness="missing")])
    asked: list[tuple[str, Any]] = []
    sa.event.listen(sa.Engine, "before_cursor_execute", keep := lambda *given: asked.append(given[2:4]))
    try:
        found = queue.page(ledger, Filters(oddness="missing", state="open")).rows
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", keep)
    assert [one.record_key for one in found] == ["rare", "rarer"]
    (ids,) = [one for one in asked if "ORDER BY queue.day DESC" in one[0] and "LIMIT" in one[0]]
    assert {"2026-01-02", "2026-01-05"} == {one for one in ids[1] if str(one).startswith("2026")}
    with ledger.transaction() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {ids[0]}", ids[1]).all()
    assert [step[3] for step in plan] == ["SEARCH queue USING COVERING INDEX ix_queue_page (day=?)"]


def test_a_search_is_for_a_prefix_in_a_database_of_any_language(postgresql: str) -> None:
    """Where the order is that of a language, XY lies between x and its last follower."""
    engine = sa.create_engine(postgresql.format(name="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "CREATE DATABASE english TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
        )
    engine.dispose()
    store = Ledger(postgresql.format(name="english"))
    put(store, [row(key) for key in ("xy", "XY", "x_y", "x-y", "y")])
    for start, keys in (("x", {"xy", "x_y", "x-y"}), ("X", {"XY"}), ("x_", {"x_y"}), ("x-", {"x-y"})):
        assert {one.record_key for one in queue.page(store, Filters(search=start)).rows} == keys
    store.close()


def test_postgresql_looks_a_prefix_up_whatever_its_language(postgresql: str) -> None:
    """By an index: a search through a million keys, one by one, is no search."""
    engine = sa.create_engine(postgresql.format(name="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "CREATE DATABASE german TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'"
        )
    engine.dispose()
    store = Ledger(postgresql.format(name="german"))
    put(store, [row(f"card-{i:03}") for i in range(50)])
    with store.transaction() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for column, index in (
            (queue_table.c.key_start, "ix_queue_key"),
            (queue_table.c.anomaly_id, "ix_queue_id"),
        ):
            query = sa.select(queue_table.c.anomaly_id).where(begins(connection, column, "card-01"))
            text = query.compile(connection, compile_kwargs={"literal_binds": True})
            plan = connection.exec_driver_sql(f"EXPLAIN {text}".replace("%", "%%")).scalars().all()
            assert any(f"on {index}" in line or f"using {index}" in line for line in plan), plan
    store.close()


def test_a_search_reads_as_many_characters_as_it_was_given(store: Ledger) -> None:
    """Keys may differ late: after the 120 characters that are in the index."""
    put(store, [row("k" * 150 + "a"), row("k" * 150 + "b")])
    (found,) = queue.page(store, Filters(search="k" * 150 + "b")).rows
    assert found.record_key.endswith("b")


def test_a_record_as_large_as_they_come_is_held_and_not_dragged_through_lists(store: Ledger) -> None:
    """A megabyte in a cell makes one page slow, not every page."""
    put(store, [row("k" * 1_000_000, record={"note": "x" * 1_000_000})])
    (listed,) = queue.page(store, Filters()).rows
    assert not hasattr(listed, "record")
    assert len(json.dumps(asdict(listed), default=str)) < 3000


def test_the_character_that_no_database_holds_finds_nothing_and_breaks_nothing(store: Ledger) -> None:
    """It comes from an address bar, as %00: PostgreSQL refuses a statement that holds one."""
    put(store, [row("k1"), row("k\N{REPLACEMENT CHARACTER}")])
    nul = "k\0"
    (found,) = queue.page(store, Filters(search=nul)).rows
    assert found.record_key == "k\N{REPLACEMENT CHARACTER}"
    for filters in (Filters(driver=nul), Filters(signature=nul), Filters(reviewer=nul), Filters(batch=nul)):
        assert queue.page(store, filters).rows == []
    for filters in (Filters(signature=nul), Filters(batch=nul), Filters(dataset=nul)):
        assert groups(store, filters) == []
    with pytest.raises(ConfigError, match="not by driver"):
        groups(store, Filters(driver="amount"))
    for refused in (lambda: record.one(store, nul), lambda: record.find(store, nul)):
        with pytest.raises(NotReady):
            refused()
    with pytest.raises(NotReady):
        judging.give(store, [nul], "normal", by="ann")
    with pytest.raises(NotReady):
        judging.undo(store, nul, by="ann")


def test_columns_of_any_name_fit_into_the_index(store: Ledger) -> None:
    """A batch whose contract names columns of a thousand characters must not be the one that is not in the
    queue.
    """
    names = [label("\N{SNOWMAN}" * 1000 + end) for end in "ab"]
    assert names[0] != names[1]
    assert label("amount↑ fee↓") == "amount↑ fee↓"
    put(store, [row(name, driver=name, signature=name) for name in names])
    assert len(groups(store, Filters())) == 2


@pytest.mark.parametrize(
    "text", ["", "x", "2026-01-30~3.5", "2026-01-30~3.5~a", "2026-99-99~1~1~a", "2026-01-30~1~x~a", "a~b~c~d"]
)
def test_a_place_that_was_not_written_by_a_page_is_refused(text: str) -> None:
    """It comes from an address bar."""
    with pytest.raises(ValueError):  # noqa: PT011  # any will do: the page says 400
        Place.read(text)
