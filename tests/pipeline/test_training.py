"""A window with more records than are learned is sampled by its records' keys; and what tells one training
from another.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pyarrow.compute as pc
import pytest

from pipeline.errors import NotReady
from pipeline.records.looking_back import earlier, looked_back_on, outdated
from pipeline.records.window import DAY, SPAN, WITHOUT, age, choose_window, day, is_learned
from pipeline.storage.tables import Tables
from pipeline.training import experiment
from pipeline.training.training_set import amount, read_window
from tests.bench import speed_window

N = 3_000


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("window")
    speed_window.land(root, N)
    return root


def read(root: Path, max_records: int) -> list[float]:
    dataset = speed_window.dataset()
    dataset = dataset.model_copy(
        update={"train": dataset.train.model_copy(update={"max_records": max_records})}
    )
    window = choose_window(dataset, speed_window.states(N))
    found: list[float] = (
        read_window(dataset, window, Tables(root / "tables"), scratch=root / "scratch", threads=1)
        .table["x00"]
        .to_pylist()
    )
    return found


@pytest.mark.parametrize("max_records", [2_000, 1_000, 7])
def test_a_window_is_sampled_to_any_size(max_records: int, landed: Path) -> None:
    """Shares with endless digits, too. Each of 3,000 records is in by chance: five deviations, 1 in 1.7
    million runs, fixed by the seed.
    """
    found = read(landed, max_records)
    share = max_records / N
    assert abs(len(found) - max_records) <= 5 * (N * share * (1 - share)) ** 0.5
    assert found == read(landed, max_records)


def test_a_smaller_sample_is_part_of_a_larger_one(landed: Path) -> None:
    """A record's fate depends on its key alone, and time's order is kept. What is held out for judging models
    is in neither.
    """
    all_of_it, some = read(landed, N), read(landed, 500)
    assert len(some) < 700 < 2_000 < len(all_of_it) < N
    assert [x for x in all_of_it if x in set(some)] == some


def test_a_record_is_counted_with_the_day_that_it_happened_on(landed: Path) -> None:
    """A delivery of a month is thirty days, and one only where records have no time of their own. Batches say
    that they end a day late, and are read as late.
    """
    late = [
        replace(state, newest_record_at=end, validated_at=end)
        for state in speed_window.states(N)
        if state.newest_record_at and (end := state.newest_record_at + timedelta(days=1))
    ]
    timed = speed_window.dataset()
    first = (speed_window.FIRST.date() - date(1970, 1, 1)).days
    for dataset, delay in ((timed, 0), (timed.model_copy(update={"time": None}), 1)):
        window, tables = choose_window(dataset, late), Tables(landed / "tables")
        table = read_window(dataset, window, tables, scratch=landed / "scratch", threads=1).table
        days = [first + delay + i for i in range(speed_window.N_DAYS)]
        assert sorted(set(table[DAY].to_pylist())) == days


AHEAD = datetime(2099, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("named", [True, False], ids=["dated names", "other names"])
def test_a_record_dated_in_the_future_empties_no_window(named: bool) -> None:
    """Read as an archive, months later, or each day on its own: a batch with such a record is of the day in
    its name, else of the day it was read on, and no other one is old because of it.
    """
    known = speed_window.states(N)
    if named:
        read_on = known[-1].validated_at + timedelta(days=300)
        known = [replace(state, validated_at=read_on) for state in known]
    else:
        known = [replace(state, batch_id=f"part-{i:02}") for i, state in enumerate(known)]
    wrong = [*known[:5], replace(known[5], newest_record_at=AHEAD), *known[6:]]
    right, found = (choose_window(speed_window.dataset(), states) for states in (known, wrong))
    assert found.batch_ids == right.batch_ids == [state.batch_id for state in known]
    assert found.records_per_day == right.records_per_day
    week = timedelta(days=7)
    assert [b.batch_id for b in found.newest(week)] == [b.batch_id for b in right.newest(week)]
    batches, days = found.after(known[5].batch_id)
    assert len(batches) == len(known) - 6 <= days < len(known) - 5  # the day in a name begins at midnight


def test_no_batch_is_younger_than_its_reading() -> None:
    """Up to a day ahead is a zone or a clock, and still the newest there is, not the day in a name."""
    state = speed_window.states(N)[3]
    read = state.validated_at
    for ahead in (timedelta(hours=14), timedelta(days=400)):
        late = replace(state, batch_id="part", newest_record_at=read + ahead)
        assert (age(late)[0], day(late)) == (read, read.date())
    tomorrow = replace(state, batch_id=f"{read + timedelta(days=1):%Y-%m-%d}", newest_record_at=None)
    assert age(tomorrow)[0] == read
    before = replace(state, newest_record_at=read - timedelta(days=9))
    assert age(before)[0] == before.newest_record_at


def test_a_version_learned_the_batches_of_its_window_as_they_were_checked_before_it() -> None:
    """Not one of another day, one that came late or anew, one without a record; and by a record of it."""
    batches = speed_window.states(N)
    known = {state.batch_id: state for state in batches}
    span = {SPAN: f"{batches[2].batch_id}..{batches[5].batch_id}"}
    trained_at = batches[5].validated_at + timedelta(hours=1)
    found = [batch.batch_id for batch in batches if is_learned(batch, span, trained_at, known)]
    assert found == [batch.batch_id for batch in batches[2:6]]
    late = replace(batches[4], validated_at=trained_at + timedelta(hours=1))
    assert not is_learned(late, span, trained_at, known)
    assert not is_learned(replace(batches[4], n_accepted=0), span, trained_at, known)
    assert not is_learned(batches[4], {}, trained_at, known)
    assert not is_learned(batches[4], span, trained_at, {})
    without = span | {WITHOUT: f"{batches[3].batch_id}, {batches[4].batch_id}"}
    found = [batch.batch_id for batch in batches if is_learned(batch, without, trained_at, known)]
    assert found == [batches[2].batch_id, batches[5].batch_id]


def test_nothing_is_learned_from_a_batch_that_is_left_out(landed: Path) -> None:
    """By name or by range; an anomaly that a person found in it stays known."""
    states = speed_window.states(N)
    dataset, names = speed_window.dataset(), [state.batch_id for state in states]
    whole = choose_window(dataset, states)
    train = {"leave_out": [names[2], f"{names[4]}..{names[5]}", names[-1]]}
    less = dataset.model_copy(update={"train": dataset.train.model_copy(update=train)})
    odd = [(names[2], "a key")]
    window = choose_window(less, states, odd)
    assert set(whole.batch_ids) - set(window.batch_ids) == {names[2], names[4], names[5], names[-1]}
    assert window.without == (names[2], names[4], names[5])
    assert window.left_out == tuple(odd)
    assert window.earlier == [names[2]]
    assert window.fingerprint != whole.fingerprint
    assert f"without {', '.join(window.without)} (train.leave_out)" in amount(less, window)
    tables = Tables(landed / "tables")
    table = read_window(less, window, tables, scratch=landed / "scratch", threads=1).table
    days = {date(1970, 1, 1) + timedelta(days=number) for number in table[DAY].to_pylist()}
    assert days == {day(state) for state in window.batches}
    few = less.model_copy(update={"train": less.train.model_copy(update={"min_records": 10 * N})})
    with pytest.raises(NotReady, match=r"\(4 more are left out: train.leave_out\)"):
        choose_window(few, states)


def test_a_record_dated_in_the_future_is_counted_with_its_batch(landed: Path) -> None:
    """Or one wrong clock makes a day of its own, beside which every day has many records. The last three days
    are read, by what the ledger says, when the first of them began.
    """
    *known, first, second, third = speed_window.states(N)
    start = datetime.combine(day(first), time(), UTC)
    early = [replace(state, validated_at=start) for state in (first, second, third)]
    window, tables = choose_window(speed_window.dataset(), [*known, *early]), Tables(landed / "tables")
    table = read_window(speed_window.dataset(), window, tables, scratch=landed / "scratch", threads=1).table
    days = {date(1970, 1, 1) + timedelta(days=number) for number in table[DAY].to_pylist()}
    assert day(third) not in days
    assert {day(state) for state in (*known, first, second)} == days  # second: a day ahead is believed
    assert pc.all(pc.less_equal(table[DAY][:-1], table[DAY][1:])).as_py()  # the last ones in time calibrate


def test_a_batch_dated_in_the_future_looks_back_on_nothing_and_nothing_on_it() -> None:
    """A month that has not come is no past that two days with wrong clocks have in common."""
    known = speed_window.states(N)
    wrong = [replace(state, newest_record_at=AHEAD) for state in known[:2]]
    there = [*wrong, *known[2:]]
    assert earlier(wrong[1], there, AHEAD - timedelta(days=30)) == []
    last = known[-1].newest_record_at
    assert last
    assert earlier(known[-1], there, last - timedelta(days=300)) == known[2:-1]
    scored = replace(wrong[1], looks_since=AHEAD - timedelta(days=30), looked_back=looked_back_on([]))
    assert outdated([wrong[0], replace(scored, status="scored", scored_at=AHEAD), *known[2:]]) == {}


@pytest.mark.parametrize("max_records", [N, 500])
def test_how_much_is_learned_is_said_before(max_records: int, landed: Path) -> None:
    """Of N records a tenth is kept by chance of their keys: within five deviations, 1 in 1.7 million runs,
    fixed by the seed.
    """
    dataset = speed_window.dataset()
    dataset = dataset.model_copy(
        update={"train": dataset.train.model_copy(update={"max_records": max_records})}
    )
    said = amount(dataset, choose_window(dataset, speed_window.states(N)))
    n_learned, n_records, n_held = (
        int(n.replace(",", ""))
        for n in re.findall(r"about ([\d,]+) of ([\d,]+) records.*about ([\d,]+) are kept", said)[0]
    )
    assert (n_records, n_held) == (N, N // 10)
    assert abs(n_learned - len(read(landed, max_records))) <= 5 * (N * 0.25) ** 0.5


# modules that read what a training left, or name things
NOT_OF_THE_MODEL = {
    "detection/__init__.py",
    "detection/measures.py",
    "detection/plots.py",
    "detection/reasons.py",
    "detection/scoring.py",
    "records/__init__.py",
    "records/accepted.py",
    "records/looking_back.py",
    "records/standing.py",
    "records/verdicts.py",
}


def test_a_release_whose_fits_end_otherwise_is_another_code_version() -> None:
    """Or it would find last night's version, of the same records, and train nothing."""
    rooms = {
        f"{room}/{file.name}"
        for room in ("detection", "records")
        for file in (experiment.OURS / room).glob("*.py")
    }
    determining = {name for name in experiment.OF_THE_MODEL if name.startswith(("detection/", "records/"))}
    assert rooms - NOT_OF_THE_MODEL == determining
