"""A window larger than what is learned is sampled by its records' keys."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from pipeline.records.window import DAY, choose_window
from pipeline.storage.tables import Tables
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
    that they end a day late.
    """
    late = [
        replace(state, newest_record_at=state.newest_record_at + timedelta(days=1))
        for state in speed_window.states(N)
        if state.newest_record_at
    ]
    timed = speed_window.dataset()
    first = (speed_window.FIRST.date() - date(1970, 1, 1)).days
    for dataset, delay in ((timed, 0), (timed.model_copy(update={"time": None}), 1)):
        window, tables = choose_window(dataset, late), Tables(landed / "tables")
        table = read_window(dataset, window, tables, scratch=landed / "scratch", threads=1).table
        days = [first + delay + i for i in range(speed_window.N_DAYS)]
        assert sorted(set(table[DAY].to_pylist())) == days


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
        int(n) for n in re.findall(r"about (\d+) of (\d+) records.*about (\d+) are kept", said)[0]
    )
    assert (n_records, n_held) == (N, N // 10)
    assert abs(n_learned - len(read(landed, max_records))) <= 5 * (N * 0.25) ** 0.5
