"""What identifies a record for good: its key, or its content where nothing else tells records apart."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.dataset import Dataset
from pipeline.incoming.relations import record_key

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4) | st.sampled_from([
    "|",
    "\\",
    "a|",
    "|b",
    "\\|",
    "||",
    "'",
    "\x1e",
    "\x1f",
])


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@pytest.fixture
def keys_of(
    make_dataset: Callable[..., Dataset], database: duckdb.DuckDBPyConnection
) -> Callable[..., list[str]]:
    """The keys of records of texts, in their order."""

    def keys(records: list[tuple[str | None, ...]], key: list[str]) -> list[str]:
        names = [f"column {i}" for i in range(len(records[0]))]
        columns: dict[str, Any] = {name: {"type": "string", "role": "categorical"} for name in names}
        dataset = make_dataset(columns=columns, key=key)
        table = pa.table({
            name: pa.array(values, pa.string())
            for name, values in zip(names, zip(*records, strict=True), strict=True)
        })
        database.register("batch", table.append_column("vaewatch_row", pa.array(range(len(records)))))
        rows = database.execute(f"SELECT {record_key(dataset)} FROM batch ORDER BY vaewatch_row").fetchall()
        return [row[0] for row in rows]

    return keys


@given(values=st.lists(TEXT, min_size=1, max_size=6))
def test_a_key_of_one_column_is_its_value(keys_of: Callable[..., list[str]], values: list[str]) -> None:
    """A person copies it into another system and finds the record there."""
    assert keys_of([(value,) for value in values], ["column 0"]) == values


@given(records=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=8, unique=True))
def test_different_keys_of_several_columns_stay_different(
    keys_of: Callable[..., list[str]], records: list[tuple[str, str, str]]
) -> None:
    """Two records under one key would share one verdict."""
    keys = keys_of(records, ["column 0", "column 1", "column 2"])
    assert len(set(keys)) == len(records)


def test_plain_keys_of_several_columns_are_read_at_a_glance(keys_of: Callable[..., list[str]]) -> None:
    """Escapes are there for those who need them."""
    assert keys_of([("eu", "2026-01-01")], ["column 0", "column 1"]) == ["eu|2026-01-01"]


def test_a_record_without_a_key_is_named_by_its_position(keys_of: Callable[..., list[str]]) -> None:
    """It is set aside; it still needs a name to be looked at."""
    assert keys_of([("a", None), ("b", "c")], ["column 0", "column 1"]) == ["row-0", "b|c"]


CELLS = st.none() | st.sampled_from(["a", "b", "", "ab"])


@given(
    records=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=10),
    seed=st.integers(0, 9),
)
def test_without_a_key_the_content_names_a_record_wherever_it_stands(
    keys_of: Callable[..., list[str]], records: list[tuple[str | None, str | None]], seed: int
) -> None:
    """A file written again in another order has the same records: verdicts stay with them."""
    shuffled = random.Random(seed).sample(records, len(records))  # noqa: S311
    keys, again = keys_of(records, []), keys_of(shuffled, [])
    assert len(set(keys)) == len(records)
    assert sorted(keys) == sorted(again)
    contents = dict(zip(keys, records, strict=True))
    assert [contents[key] for key in again] == shuffled
    assert Counter(key.partition("-")[0] for key in keys).most_common(1)[0][1] == max(
        Counter(records).values()
    )
