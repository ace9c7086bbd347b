"""The ledger: what was done with each batch, in order, whoever writes at the same time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.settings import Settings
from pipeline.errors import StorageFailed
from pipeline.storage.ledger import BatchState, Ledger

STATE = BatchState(
    dataset="payments",
    batch_id="2026-01-01",
    version=0,
    status="accepted",
    reason="",
    fingerprint="content",
    signature="touched",
    contract_hash="promise",
    files=["2026-01-01.parquet"],
    notes=["x: int32 read as float"],
    set_aside={"missing_value:amount": 2},
    n_read=10,
    n_accepted=8,
    newest_record_at=datetime(2026, 1, 1, 23, tzinfo=UTC),
    validated_at=datetime(2026, 1, 2, 2, tzinfo=UTC),
)
HOUR = timedelta(hours=1)


def test_what_was_written_is_read(ledger: Ledger) -> None:
    """Counts, reasons and times are what a person will see months later."""
    written = ledger.record_validation(STATE)
    assert written == replace(STATE, version=1)
    assert ledger.newest("payments", "2026-01-01") == written
    assert ledger.current("payments") == {"2026-01-01": written}
    assert written.n_set_aside == 2


@given(
    st.datetimes(datetime.fromisoformat("0002-01-01"), datetime.fromisoformat("9998-01-01")),
    st.integers(-14 * 60, 14 * 60),
)
def test_an_instant_stays_the_instant_in_any_zone(ledger: Ledger, wall: datetime, minutes: int) -> None:
    """SQLite keeps the clock on the wall and forgets where it hangs."""
    at = wall.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    ledger.record_validation(replace(STATE, newest_record_at=at))
    read = ledger.newest("payments", "2026-01-01")
    assert read is not None
    assert read.newest_record_at == at
    assert read.newest_record_at.utcoffset() == timedelta(0)


def test_any_text_can_be_a_reason(ledger: Ledger) -> None:
    """It may name a file whose name is not UTF-8; the batch must be refused all the same."""
    ledger.record_validation(replace(STATE, reason="caf\udce9.parquet: cut short, it's \U0001f600"))
    assert ledger.history("payments", "2026-01-01")[0].reason == "caf?.parquet: cut short, it's \U0001f600"


def test_new_content_is_a_new_version_and_the_old_ones_stay(ledger: Ledger) -> None:
    """A batch delivered again is another batch under the same name: what was decided before is kept."""
    first = ledger.record_validation(STATE)
    ledger.record_scores(first, model_version=3, threshold=4.5, n_flagged=2)
    second = ledger.record_validation(replace(STATE, fingerprint="other content", n_read=11))
    assert second.version == 2
    history = ledger.history("payments", "2026-01-01")
    assert [(s.version, s.status, s.fingerprint) for s in history] == [
        (1, "scored", "content"),
        (2, "accepted", "other content"),
    ]
    assert ledger.current("payments") == {"2026-01-01": second}


def test_the_same_content_judged_again_replaces_the_verdict(ledger: Ledger) -> None:
    """A contract mended after a refusal is not a new delivery."""
    ledger.record_validation(replace(STATE, status="refused", reason="row_count: 10"))
    again = ledger.record_validation(replace(STATE, contract_hash="mended"))
    assert again.version == 1
    assert ledger.history("payments", "2026-01-01") == [again]


def test_a_verdict_judged_again_is_scored_again(ledger: Ledger) -> None:
    """Other records were accepted: the old scores are not theirs."""
    ledger.record_scores(ledger.record_validation(STATE), model_version=3, threshold=4.5, n_flagged=2)
    again = ledger.record_validation(STATE)
    assert (again.status, again.model_version, again.n_flagged) == ("accepted", None, None)
    assert ledger.newest("payments", "2026-01-01") == again


def test_a_refusal_does_not_forget_what_is_published(ledger: Ledger) -> None:
    """Scores and records of before are still in the tables: so is who scored them in the ledger."""
    scored = ledger.record_scores(
        ledger.record_validation(STATE), model_version=3, threshold=4.5, n_flagged=2
    )
    refused = ledger.record_validation(
        replace(STATE, status="refused", reason="amount: beyond 9", n_accepted=0)
    )
    assert ledger.history("payments", "2026-01-01") == [scored, refused]
    once_more = ledger.record_validation(replace(refused, reason="amount: beyond 8"))
    assert ledger.history("payments", "2026-01-01") == [scored, once_more]


def test_scores_are_written_beside_the_verdict(ledger: Ledger) -> None:
    """Which model, which threshold, how many: the answer to `why was this flagged`."""
    state = ledger.record_validation(STATE)
    before = datetime.now(UTC)
    scored = ledger.record_scores(
        state, model_version=3, threshold=float("inf"), n_flagged=0, above_usual=0.75, is_odd=True
    )
    assert scored == ledger.newest("payments", "2026-01-01")
    assert (scored.above_usual, scored.is_odd) == (0.75, True)
    assert (scored.status, scored.model_version, scored.threshold, scored.n_flagged) == (
        "scored",
        3,
        float("inf"),
        0,
    )
    assert scored.scored_at is not None
    assert before <= scored.scored_at <= datetime.now(UTC)
    assert scored.n_read == state.n_read


def test_scores_of_an_older_version_do_not_mark_the_newer_one(ledger: Ledger) -> None:
    """A slow scoring that ends after the batch was delivered again has scored what is no longer there."""
    old = ledger.record_validation(STATE)
    new = ledger.record_validation(replace(STATE, fingerprint="other content"))
    ledger.record_scores(old, model_version=3, threshold=1.0, n_flagged=0)
    assert ledger.newest("payments", "2026-01-01") == new


def test_thresholds_are_those_of_the_newest_content_of_each_batch(ledger: Ledger) -> None:
    """What was delivered again, and is not scored yet, has none; another version's and another dataset's are
    told apart.
    """
    for batch_id, version, threshold in (("a", 3, 1.0), ("b", 3, 2.0), ("c", 4, 2.0), ("d", 3, 1.0)):
        state = ledger.record_validation(replace(STATE, batch_id=batch_id))
        ledger.record_scores(state, model_version=version, threshold=threshold, n_flagged=0)
    ledger.record_validation(replace(STATE, batch_id="d", fingerprint="other content"))
    ledger.record_validation(replace(STATE, batch_id="e"))
    other = ledger.record_validation(replace(STATE, dataset="claims", batch_id="d", fingerprint="0"))
    ledger.record_scores(other, model_version=3, threshold=9.0, n_flagged=0)
    found = ledger.flagged("payments")
    assert [x[1:] for x in found] == [("a", 3, 1.0), ("b", 3, 2.0), ("c", 4, 2.0)]
    assert found[0].at == ledger.current("payments")["a"].scored_at
    assert ledger.flagged("payments", 3) == found[:2]
    assert [x[1:] for x in ledger.flagged("claims")] == [("d", 3, 9.0)]


def test_files_written_again_with_the_same_content_are_noted(ledger: Ledger) -> None:
    """The next look sees that nothing changed without reading them."""
    state = ledger.record_validation(STATE)
    ledger.touch(state, "touched again")
    assert ledger.newest("payments", "2026-01-01") == replace(state, signature="touched again")


def test_datasets_and_batches_are_kept_apart_and_in_order(ledger: Ledger) -> None:
    """Two datasets have a batch of the same day."""
    for dataset in ("payments", "claims"):
        for batch_id in ("b", "a", "c"):
            ledger.record_validation(replace(STATE, dataset=dataset, batch_id=batch_id))
    ledger.record_validation(replace(STATE, batch_id="a", fingerprint="2"))
    assert [(b, s.version) for b, s in ledger.current("payments").items()] == [("a", 2), ("b", 1), ("c", 1)]
    assert {s.version for s in ledger.current("claims").values()} == {1}
    assert ledger.current("unknown") == {}
    assert ledger.newest("payments", "unknown") is None
    assert ledger.history("payments", "unknown") == []


def test_a_claimed_batch_is_not_given_out_again_until_the_lease_ends(ledger: Ledger) -> None:
    """Two scheduler runs at once must not score the same batch twice; a killed one must not keep it for
    ever.
    """
    assert ledger.claim("payments", ["a", "b"], HOUR) == ["a", "b"]
    assert ledger.claim("payments", ["b", "c", "a"], HOUR) == ["c"]
    assert ledger.claim("claims", ["a"], HOUR) == ["a"]
    assert ledger.claim("payments", ["a", "b"], timedelta(0)) == ["a", "b"]
    ledger.release_claims("payments", ["a", "never claimed"])
    assert ledger.claim("payments", ["a", "b"], HOUR) == ["a"]
    assert ledger.claim("payments", [], HOUR) == []


def test_periods_of_a_delivery_are_remembered(ledger: Ledger) -> None:
    """Nothing known and nothing in it are two answers."""
    assert ledger.known_periods("payments", "s") is None
    for counts in ([], [{"2026-01-01": 3, "": 1}, {}]):
        ledger.remember_periods("payments", "s", counts)
        assert ledger.known_periods("payments", "s") == counts
    assert ledger.known_periods("claims", "s") is None


def test_what_serves_and_when_it_was_trained_are_noted_apart(ledger: Ledger) -> None:
    """A promotion must not forget the training, nor a training take over serving."""
    assert (ledger.serving_version("payments"), ledger.trained_at("payments")) == (None, None)
    at = datetime(2026, 1, 2, 3, tzinfo=timezone(HOUR))
    ledger.set_trained("payments", at)
    assert (ledger.serving_version("payments"), ledger.trained_at("payments")) == (None, at)
    ledger.set_serving("payments", 3)
    ledger.set_serving("payments", 2)
    assert (ledger.serving_version("payments"), ledger.trained_at("payments")) == (2, at)
    assert ledger.train_ended_at("payments") == at
    ledger.set_train_ended("payments", at + HOUR)  # without an occasion
    assert (ledger.trained_at("payments"), ledger.train_ended_at("payments")) == (at, at + HOUR)
    assert ledger.serving_version("claims") is None


@pytest.mark.parametrize("folder", ["two words", "ünï", "it's #1", "a;b", "100%"])
def test_a_ledger_lies_where_the_home_folder_is(tmp_path: Path, folder: str) -> None:
    """The path becomes a URL on its way, in which some characters mean something."""
    opened = Ledger(Settings(home=tmp_path / folder).ledger)
    opened.close()
    assert (tmp_path / folder / "ledger.db").exists()


def test_what_was_written_is_there_for_the_next_process(tmp_path: Path) -> None:
    """Every step is a process of its own."""
    url = f"sqlite:///{tmp_path / 'new folder' / 'ledger.db'}"
    first = Ledger(url)
    state = first.record_validation(STATE)
    first.close()
    second = Ledger(url)
    assert second.newest("payments", "2026-01-01") == state
    second.close()


def test_a_database_that_cannot_be_opened_is_a_fault_of_storage(tmp_path: Path) -> None:
    """A file of another kind, or a folder in its place: said with the path, and a retry may help."""
    (tmp_path / "ledger.db").write_bytes(b"this is not a database, nor was it ever one\n" * 100)
    with pytest.raises(StorageFailed, match=r"ledger sqlite:///.*ledger\.db cannot be opened"):
        Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_a_change_that_fails_leaves_nothing_behind(ledger: Ledger, tmp_path: Path) -> None:
    """All of a change or none: a half-written verdict would be believed."""
    state = ledger.record_validation(STATE)
    with sqlite3.connect(tmp_path / "ledger.db") as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON batches BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
        )
    other.close()
    with pytest.raises(StorageFailed, match=r"ledger\.db: disk is full; nothing was written"):
        ledger.record_validation(replace(STATE, reason="replaces the earlier verdict"))
    assert ledger.history("payments", "2026-01-01") == [state]


OPEN = """
from datetime import timedelta
from dataclasses import replace
from pipeline.storage.ledger import Ledger, BatchState
"""
ACT = """
ledger = Ledger(args[0])
print(*ledger.claim("payments", [f"b{i}" for i in range(40)], timedelta(hours=1)))
state = ledger.newest("payments", "seed")
for i in range(5):
    ledger.record_validation(replace(state, batch_id="shared", fingerprint=f"{args[1]} {i}"))
    ledger.record_validation(replace(state, batch_id=f"own{args[1]}"))
ledger.remember_periods("payments", "s", [{"2026": 1}])
ledger.set_serving("payments", int(args[1]))
"""


def test_processes_that_write_at_once_lose_and_double_nothing(
    tmp_path: Path, ledger: Ledger, at_once: Callable[[str, str, list[list[str]]], list[str]]
) -> None:
    """Four of them: each batch is claimed once, and every version that was written is in the history."""
    ledger.record_validation(replace(STATE, batch_id="seed"))
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    claimed = [out.split() for out in at_once(OPEN, ACT, [[url, str(n)] for n in range(4)])]
    assert sorted(batch for batches in claimed for batch in batches) == sorted(f"b{i}" for i in range(40))
    assert sorted(map(len, claimed)) == [0, 0, 0, 40]
    history = ledger.history("payments", "shared")
    assert [state.version for state in history] == list(range(1, 21))
    assert {state.fingerprint for state in history} == {f"{n} {i}" for n in range(4) for i in range(5)}
    assert set(ledger.current("payments")) == {"seed", "shared", *(f"own{n}" for n in range(4))}
    assert ledger.serving_version("payments") in range(4)


def test_processes_may_all_be_the_first_to_open_a_ledger(
    tmp_path: Path, at_once: Callable[[str, str, list[list[str]]], list[str]]
) -> None:
    """A fresh installation starts its scheduler, a task and a page within the same second."""
    url = f"sqlite:///{tmp_path / 'fresh' / 'ledger.db'}"
    act = "print(Ledger(args[0]).current('payments'))"
    assert at_once(OPEN, act, [[url]] * 4) == ["{}"] * 4


def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    """Wherever the address holds it: before the host, or among the options."""
    pytest.importorskip("psycopg")
    with pytest.raises(
        StorageFailed, match=r"ledger postgresql\+psycopg://ann:\*\*\*@127.0.0.1:1/vw "
    ) as fault:
        Ledger("postgresql+psycopg://ann:hush1@127.0.0.1:1/vw?password=hush2")
    assert "hush" not in str(fault.value)
    here = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    assert here.shown == f"sqlite:///{tmp_path / 'ledger.db'}"
    here.close()


def test_what_a_page_says_is_not_noted_of_another_scoring(ledger: Ledger) -> None:
    """A page that is written again while its batch is scored anew tells of what was."""
    state = ledger.record_validation(STATE)
    first = ledger.record_scores(
        state, model_version=1, threshold=4.0, n_flagged=1, tone="bad", headline="No"
    )
    ledger.note_headline(first, "good", "Yes")
    assert ledger.current("payments")["2026-01-01"] == replace(first, tone="good", headline="Yes")
    again = ledger.record_scores(
        first, model_version=2, threshold=4.0, n_flagged=1, tone="warn", headline="Look"
    )
    ledger.note_headline(first, "good", "Yes")
    assert ledger.newest("payments", "2026-01-01") == again
    assert ledger.record_validation(replace(STATE, fingerprint="other")).headline is None


def test_heads_are_of_the_newest_version_of_each_batch(ledger: Ledger) -> None:
    """Of the datasets that are asked for; read whole in the order that is asked for."""
    ledger.record_validation(STATE)
    newest = ledger.record_validation(replace(STATE, fingerprint="other", status="refused"))
    others = [ledger.record_validation(replace(STATE, dataset="water", batch_id=one)) for one in "ab"]
    heads = {(one.dataset, one.batch_id): one for one in ledger.heads(None)}
    assert {key: (one.version, one.status) for key, one in heads.items()} == {
        ("payments", "2026-01-01"): (2, "refused"), ("water", "a"): (1, "accepted"), ("water", "b"): (1, "accepted")
    }  # fmt: skip
    assert {one.dataset for one in ledger.heads(["water"])} == {"water"}
    assert ledger.heads([]) == []
    asked = [heads["water", "b"], heads["payments", "2026-01-01"], heads["water", "a"]]
    assert ledger.states(asked) == [others[1], newest, others[0]]
    assert ledger.states([heads["water", "a"]._replace(version=9)]) == []
