"""Verdicts: none is lost, whoever judges at the same time; one that was taken back can still be read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ClaimedByAnother, ConfigError, NotReady
from pipeline.records import verdicts
from pipeline.records.verdicts import OPINIONS, WITHDRAWN, Verdict, judged, standing
from pipeline.review import acts, claims, judging, queue, record
from pipeline.review.filters import CHUNK, Filters
from pipeline.storage.ledger import Ledger

from .review_data import put, row

KEYS = [f"k{i}" for i in range(6)]


@pytest.fixture
def ids(store: Ledger) -> list[str]:
    """Six records in the queue."""
    rows = [row(key) for key in KEYS]
    put(store, rows)
    return [one["anomaly_id"] for one in rows]


def state(store: Ledger, anomaly_id: str) -> str:
    return str(record.one(store, anomaly_id).state)


def test_a_verdict_says_who_when_and_why_and_the_queue_follows(store: Ledger, ids: list[str]) -> None:
    """One act on three records; the history has an entry for each."""
    given_now = judging.give(store, ids[:3], "data_error", by="ann", note="the gateway was down")
    assert set(given_now.anomaly_ids) == set(ids[:3])
    found = record.one(store, ids[0])
    (entry,) = found.verdicts
    assert (entry.verdict, entry.by, entry.note, entry.act) == (
        "data_error", "ann", "the gateway was down", given_now.act,
    )  # fmt: skip
    assert datetime.now(UTC) - entry.decided_at < timedelta(minutes=1)
    assert queue.counts(store, Filters())["state"] == {"open": 3, "data_error": 3}
    assert judged(store, "payments")[0] == [("2026-01-30", key) for key in KEYS[:3]]


def test_said_twice_it_is_written_once(store: Ledger, ids: list[str]) -> None:
    """A double click, or a page sent again after a crash."""
    judging.give(store, ids[:1], "normal", by="ann")
    again = judging.give(store, ids[:1], "normal", by="ann")
    assert again.anomaly_ids == ()
    assert len(record.one(store, ids[0]).verdicts) == 1


def test_said_again_without_a_note_it_keeps_the_one_it_has(store: Ledger, ids: list[str]) -> None:
    """Another note is another act; so is the note that somebody else has not written."""

    def give(*some: str, by: str = "ann", note: str = "", settle: bool = False) -> tuple[str, ...]:
        return judging.give(store, some, "anomaly", by=by, note=note, settle=settle).anomaly_ids

    def holds(name: str) -> list[tuple[str, str]]:
        return [(one.by, one.note) for one in standing(record.one(store, name).verdicts).holding]

    give(*ids[:2], note="x")
    assert give(ids[0]) == ()
    assert give(ids[0], note="x") == ()
    assert holds(ids[0]) == [("ann", "x")]
    assert give(*ids[:3]) == (ids[2],)
    assert give(ids[0], note="y") == (ids[0],)
    assert holds(ids[0]) == [("ann", "y")]
    assert give(ids[0], by="bob") == (ids[0],)
    assert holds(ids[0]) == [("ann", "y"), ("bob", "")]
    assert give(ids[1], settle=True) == (ids[1],)
    assert give(ids[1], settle=True) == ()
    assert len(judging.give(store, ids[:1], "normal", by="ann", note="looked again").anomaly_ids) == 1


def test_reviewers_who_differ_are_both_heard_until_somebody_settles_it(store: Ledger, ids: list[str]) -> None:
    """The last to speak does not win by speaking last; a model learns what people agree on."""
    this = ids[:1]
    assert judging.give(store, this, "anomaly", by="ann").conflicts == ()
    assert judging.give(store, this, "normal", by="bob").conflicts == (ids[0],)
    assert state(store, ids[0]) == "conflict"
    assert judged(store, "payments") == ([], [])
    judging.give(store, this, "anomaly", by="bob")  # changes his mind: they agree
    assert state(store, ids[0]) == "anomaly"
    judging.give(store, this, "unsure", by="cid")
    settled = judging.give(store, this, "normal", by="ann", settle=True)
    assert (settled.conflicts, state(store, ids[0])) == ((), "normal")
    assert len(record.one(store, ids[0]).verdicts) == 5


def test_settled_twice_it_is_written_once(store: Ledger, ids: list[str]) -> None:
    """A page sent again must not lengthen the history; a word after it must still be settled."""
    judging.give(store, ids[:1], "anomaly", by="bob")
    assert len(judging.give(store, ids[:1], "normal", by="ann", settle=True).anomaly_ids) == 1
    assert judging.give(store, ids[:1], "normal", by="ann", settle=True).anomaly_ids == ()
    judging.give(store, ids[:1], "anomaly", by="bob")
    assert len(judging.give(store, ids[:1], "normal", by="ann", settle=True).anomaly_ids) == 1
    assert state(store, ids[0]) == "normal"


def test_nobody_comes_between_the_look_at_a_group_and_the_word_on_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member judged in between would be judged over unseen: the other writer has to wait, or comes
    first.
    """
    rows = [row(key) for key in KEYS]
    put(ledger, rows)
    first, look = rows[0]["anomaly_id"], judging.read_members
    other = threading.Thread(target=judging.give, args=(ledger, [first], "anomaly"), kwargs={"by": "bob"})

    def look_and_linger(connection: sa.Connection, filters: Filters) -> list[str]:
        found = look(connection, filters)
        other.start()
        other.join(0.5)
        return found

    monkeypatch.setattr(judging, "read_members", look_and_linger)
    judging.give_group(
        ledger, Filters(dataset="payments", signature="amount↑"), "normal", by="ann", n=len(rows)
    )
    other.join()
    assert [entry.by for entry in record.one(ledger, first).verdicts] == ["ann", "bob"]


def test_a_group_of_any_size_is_judged_in_statements_of_a_few_hundred(ledger: Ledger) -> None:
    """PostgreSQL takes 65,535 parameters a statement, SQLite 32,766; a group knows no such limit."""
    rows = [row(f"k{i}") for i in range(2 * CHUNK + 1)]
    put(ledger, rows)
    most = 0

    def measure(_c: Any, _cursor: Any, _statement: str, parameters: Any, _context: Any, many: bool) -> None:
        nonlocal most
        most = max(most, 0 if many else len(parameters))

    with ledger.transaction() as connection:
        engine = connection.engine
    sa.event.listen(engine, "before_cursor_execute", measure)
    given_now = judging.give(ledger, [one["anomaly_id"] for one in rows], "normal", by="ann")
    assert len(given_now.anomaly_ids) == len(rows)
    assert CHUNK <= most <= CHUNK + 10


def test_an_act_is_named_by_its_verdict_its_records_and_their_dataset(store: Ledger) -> None:
    """Up to three by name; of more, how many, and the group that all of them are in."""
    rows = [row("k0", signature="fee↓"), row("k" * 99), row(f"{'a' * 24}-1", row_number=7), row("k3")]
    put(store, rows)
    put(store, [other := row("m0", dataset="meters")])
    ids = [one["anomaly_id"] for one in rows]

    def named(*some: str) -> str:
        found = acts.one(store, judging.give(store, some, "data_error", by="ann").act)
        assert found
        return found.what

    assert named(ids[0]) == "data error on k0 of payments"
    assert named(*ids[1:3]) == f"data error on row 7 (2026-01-30), {'k' * 40}… of payments"
    judging.undo(store, acts.newest(store, by="ann") or "", by="ann")
    judging.undo(store, acts.newest(store, by="ann") or "", by="ann")
    everything = judging.give(store, [*ids, other["anomaly_id"]], "normal", by="bob").act
    found = acts.one(store, everything)
    assert found
    assert found.what == "normal on 5 records of meters and payments, row 7 (2026-01-30) and others"
    judging.undo(store, everything, by="bob")
    put(store, alike := [row(f"n{i}", "2026-01-31") for i in range(4)])
    assert (
        named(*(one["anomaly_id"] for one in alike))
        == "data error on 4 records of payments, all odd in amount↑"
    )
    assert acts.one(store, "none") is None
    assert acts.one(store, "") is None


def test_undo_withdraws_and_deletes_nothing(store: Ledger, ids: list[str]) -> None:
    """What held before holds again, and the history shows both."""
    judging.give(store, ids[:2], "normal", by="ann")
    act = judging.give(store, ids, "anomaly", by="ann").act
    assert acts.newest(store, by="ann") == act
    assert len(judging.undo(store, act, by="ann").anomaly_ids) == 6
    assert queue.counts(store, Filters())["state"] == {"open": 4, "normal": 2}
    assert judging.undo(store, act, by="ann").anomaly_ids == ()
    entries = record.one(store, ids[0]).verdicts
    assert [entry.verdict for entry in entries] == ["normal", "anomaly", WITHDRAWN]


def test_nobody_takes_back_what_another_said(store: Ledger, ids: list[str]) -> None:
    """A verdict is its reviewer's."""
    act = judging.give(store, ids[:1], "anomaly", by="ann").act
    refusals = (
        (act, "bob", "it is ann's"),
        ("no such act", "ann", "there is no act 'no such act'"),
        ("", "cid", "cid has no verdict"),
    )
    for made, by, why in refusals:
        with pytest.raises(NotReady, match=f"nothing was undone: .*{why}"):
            judging.undo(store, made, by=by)
    assert state(store, ids[0]) == "anomaly"


def test_what_cannot_be_a_verdict_is_refused_and_nothing_is_written(store: Ledger, ids: list[str]) -> None:
    """One bad record of a hundred must not leave the others half done."""
    with pytest.raises(NotReady, match="1 of 2 records are not in the queue"):
        judging.give(store, [ids[0], "unknown"], "normal", by="ann")
    with pytest.raises(ConfigError, match="'fraud' is not a verdict"):
        judging.give(store, ids, "fraud", by="ann")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs the name of whoever gives it"):
        judging.give(store, ids, "normal", by=" ")
    with pytest.raises(ConfigError, match="4000 at most"):
        judging.give(store, ids, "normal", by="ann", note="x" * 4001)
    for act in (partial(judging.give, store, ids, "normal"), partial(claims.claim, store, ids[0])):
        with pytest.raises(ConfigError, match="the name has 251 characters, 250 at most"):
            act(by="x" * 251)
    assert verdicts.history(store, "payments") == {}
    assert judging.give(store, ids[:1], "normal", by="x" * 250).anomaly_ids == (ids[0],)


def test_a_claim_tells_others_until_it_ends_or_a_verdict_is_given(store: Ledger, ids: list[str]) -> None:
    """Two people on one record is one person's time lost; a claim that never ends loses the record."""
    assert claims.claim(store, ids[0], by="ann").by == "ann"
    assert claims.claim(store, ids[0], by="bob").by == "ann"
    assert record.one(store, ids[0]).claim.by == "ann"
    claims.claim(store, ids[1], by="ann", lasts=timedelta(seconds=-1))
    assert claims.claim(store, ids[1], by="bob").by == "bob"
    claims.release(store, ids[1], by="ann")
    assert record.one(store, ids[1]).claim.by == "bob"
    judging.give(store, ids[:1], "normal", by="ann")
    assert record.one(store, ids[0]).claim is None


def test_a_verdict_on_what_somebody_else_is_at_is_asked_about_once_more(
    store: Ledger, ids: list[str]
) -> None:
    """Who is at it until when; nothing is written, or it is given anyway, and the other one's claim stays."""
    claims.claim(store, ids[0], by="bob")
    with pytest.raises(
        ClaimedByAnother, match=r"bob is at record 'k0' until \d\d:\d\d UTC; nothing was written"
    ):
        judging.give(store, ids[:1], "normal", by="ann")
    assert verdicts.history(store, "payments") == {}
    assert judging.give(store, ids[:1], "normal", by="ann", anyway=True).anomaly_ids == (ids[0],)
    assert record.one(store, ids[0]).claim.by == "bob"
    judging.give(store, ids[:1], "anomaly", by="bob")
    assert [one.by for one in record.one(store, ids[0]).verdicts] == ["ann", "bob"]
    claims.claim(store, ids[1], by="bob", lasts=timedelta(seconds=-1))
    assert judging.give(store, ids[1:2], "normal", by="ann").anomaly_ids == (ids[1],)


def test_sent_again_it_is_not_asked_about_though_somebody_came_to_the_record_since(
    store: Ledger, ids: list[str]
) -> None:
    """Its answer may have been lost; that nothing was written would be untrue then."""
    judging.give(store, ids[:2], "normal", by="ann")
    claims.claim(store, ids[0], by="bob")
    again = judging.give(store, ids[:2], "normal", by="ann")
    assert (again.anomaly_ids, again.claimed) == ((), ())
    claims.claim(store, ids[2], by="bob")
    more = judging.give(store, ids[:4], "normal", by="ann")
    assert (more.anomaly_ids, more.claimed) == ((ids[3],), (ids[2],))
    with pytest.raises(ClaimedByAnother, match="bob is at record 'k2'"):
        judging.give(store, ids[:3], "normal", by="ann")


@pytest.mark.parametrize("whole", [False, True], ids=["several", "group"])
def test_of_several_those_that_somebody_else_is_at_are_left_out(
    store: Ledger, ids: list[str], whole: bool
) -> None:
    """And named; where all are taken nothing is written, unless they are given anyway."""

    def say(**more: bool) -> judging.Judged:
        if not whole:
            return judging.give(store, ids, "normal", by="ann", **more)
        n = queue.counts(store, Filters())["state"]["open"]
        return judging.give_group(
            store, Filters(dataset="payments", signature="amount↑"), "normal", by="ann", n=n, **more
        )

    for name, by in ((ids[0], "bob"), (ids[1], "bob"), (ids[2], "ann")):
        claims.claim(store, name, by=by)
    done = say()
    assert (set(done.anomaly_ids), done.claimed) == (set(ids[2:]), tuple(sorted(ids[:2])))
    assert queue.counts(store, Filters())["state"] == {"open": 2, "normal": 4}
    judging.undo(store, done.act, by="ann")
    for name in ids[2:]:
        claims.claim(store, name, by="eve")
    with pytest.raises(ClaimedByAnother, match="1 other are at all 6 records"):
        say()
    assert len(say(anyway=True).anomaly_ids) == 6


def test_threads_that_judge_the_same_records_lose_nothing(store: Ledger, ids: list[str]) -> None:
    """Every verdict is there, every count is right, whichever came first."""
    faults: list[Exception] = []

    def work(name: str, opinion: verdicts.Opinion) -> None:
        try:
            for anomaly_id in ids:
                judging.give(store, [anomaly_id], opinion, by=name)
        except Exception as fault:  # noqa: BLE001  # told below, in the thread that can fail
            faults.append(fault)

    workers = [threading.Thread(target=work, args=(f"reviewer{i}", OPINIONS[i % 2])) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert faults == []
    given_now = verdicts.history(store, "payments")
    assert {name: len(entries) for name, entries in given_now.items()} == dict.fromkeys(ids, 4)
    assert queue.counts(store, Filters())["state"] == {"conflict": 6}


def test_processes_that_judge_at_once_lose_nothing(at_once: Callable[..., list[str]], tmp_path: Path) -> None:
    """The page, the command line and the nightly run are processes of their own."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    rows = [row(f"k{i}") for i in range(25)]
    put(ledger := Ledger(url), rows)
    prepare = "from pipeline.storage.ledger import Ledger; from pipeline.review import judging; ledger = Ledger(args[0])"
    act = "print(sum(len(judging.give(ledger, [i], args[2], by=args[1]).anomaly_ids) for i in args[3:]))"
    names = [one["anomaly_id"] for one in rows]
    written = at_once(prepare, act, [[url, f"r{i}", OPINIONS[i % 2], *names] for i in range(4)])
    assert written == ["25"] * 4
    assert sum(map(len, verdicts.history(ledger, "payments").values())) == 100
    assert queue.counts(ledger, Filters())["state"] == {"conflict": 25}
    ledger.close()


entries = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob"]),
        st.sampled_from(OPINIONS),
        st.booleans(),
        st.none() | st.integers(1, 8),
    ),
    max_size=8,
)


@given(entries)
def test_where_a_record_stands_follows_from_what_still_holds(
    drawn: list[tuple[str, verdicts.Opinion, bool, int | None]],
) -> None:
    """The law of the history: one voice a reviewer, withdrawn ones silent, those before a settlement too."""
    history = [
        Verdict(
            number,
            "a",
            "b",
            "k",
            WITHDRAWN if takes_back else opinion,
            "",
            by,
            datetime.now(UTC),
            takes_back,
            settles,
        )
        for number, (by, opinion, settles, takes_back) in enumerate(drawn, 1)
    ]
    found = standing(history)
    withdrawn = {entry.withdraws for entry in history}
    valid = [e for e in history if e.verdict != WITHDRAWN and e.number not in withdrawn]
    last_settled = max([e.number for e in valid if e.settles], default=0)
    heard = {e.by: e.verdict for e in valid if e.number >= last_settled}
    assert {entry.by: entry.verdict for entry in found.holding} == heard
    said = set(heard.values())
    assert found.state == ("open" if not said else said.pop() if len(said) == 1 else "conflict")
