"""What a column is: its role, rules and bounds, which column tells records apart and which is the time.

Belongs here: guesses from a sample in DuckDB, each with its reason. Does not: reading the sample (the
package), or how a guess is written down (writing.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline import sql
from pipeline.inference.bounds import Spread, crossing_zero, unusual_share
from pipeline.numerals import number

if TYPE_CHECKING:
    import duckdb

MOST_CATEGORIES = 5_000
MOST_OWNERS = 500  # cards, customers: with more, each has few records, and new ones come every day
LONG_TEXT = 24
FILE = '"vaewatch file"'  # the sample's column that says where a record is from
CODE_NAME = re.compile(  # shop_id, shopID, zipcode, code_2; not paid, humid or bid
    r"(?:^|_)(?i:id|code|type|zip)(?:_|$)|[a-z](?:ID|Id|Code|Type|Zip|code|zip)$"
    r"|^(?:account|card|client|customer|device|item|location|merchant|order|product|session|shop|store|user|vendor)id$"
)
# names of codes that say whose record it is
OWNER_NAME = re.compile(r"(?:^|_)(?i:id)(?:_|$)|[a-z](?:ID|Id)$|^[a-z]+id$")
# share of records whose value another file has, too: with fewer, a name tells records or days apart
RECURRING = 0.2
MOST_DERIVED_FROM = 12  # numeric columns; each gives three derived ones
IN_STEP = 0.9  # least share of distinct times, and of gaps that are the commonest one
# mean change over mean deviation: 1.4 for independent Gaussian values, at most 0.22 for water's sensors
STEADY = 0.5
NEARLY = 0.002  # share of records in which a column may repeat or be missing and still be the key


@dataclass
class Guess:
    """What is proposed for one column."""

    name: str
    type: str
    role: str = "ignored"
    rules: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    unique: bool = False
    n_odd: int = 0  # records that would be set aside if this were the key: repeated or missing
    warning: str = ""
    spread: Spread | None = None  # of a number


@dataclass(frozen=True)
class Counts:
    """The sample's records and files, and one column's records with a value and distinct values."""

    n: int
    n_seen: int
    n_distinct: int
    n_files: int


@dataclass(frozen=True)
class Guesses:
    """What is proposed for a sample's columns.

    Attributes:
        key: the column that tells records apart, or nearly; None where there is none.
        levels: columns that are judged by what is derived from them.
        split: a unit of time by which long files are cut into batches; None for files that are not cut.
    """

    columns: list[Guess]
    key: str | None
    time: str | None
    levels: list[str]
    split: str | None


def guess(
    connection: duckdb.DuckDBPyConnection, types: Mapping[str, str], n_files: int, *, long_files: bool
) -> Guesses:
    """Guess from the table `sample` and its columns' contract types.

    Args:
        long_files: whether a file may hold many days.
    """
    columns = [_guess(connection, column, type_, n_files) for column, type_ in types.items()]
    _cross_zero(columns)
    (n,) = _row(connection, "SELECT count(*) FROM sample")
    key, time = _key(columns, n), _time_column(columns)
    split = _split(connection, time, n_files) if long_files and time else None
    levels = _levels(connection, [g for g in columns if g.role == "numeric"], time) if time else []
    for level in levels:
        level.role = "ignored"
        level.why += "; judged by its derived columns"
    for one in columns:
        if one.name in {key, time}:
            _set_apart(one, n, is_key=one.name == key, is_time=one.name == time)
    return Guesses(columns, key, time, [level.name for level in levels], split)


def _key(columns: Sequence[Guess], n: int) -> str | None:
    """Return a unique column, else the one with the fewest records that repeat or lack it, if few do."""
    nearly = sorted(
        (g.n_odd, i) for i, g in enumerate(columns) if g.type in {"string", "int"} and g.n_odd <= NEARLY * n
    )
    return next((g.name for g in columns if g.unique), columns[nearly[0][1]].name if nearly else None)


def _set_apart(guess: Guess, n: int, *, is_key: bool, is_time: bool) -> None:
    """Take key and time out of modelling, whatever their values look like: they identify and give context."""
    guess.rules, guess.warning = {"required": True}, ""
    guess.role = "context" if is_time else "ignored"
    odd = (
        f": {guess.n_odd:,} of {n:,} in the sample repeat it or lack it and would be set aside"
        if guess.n_odd
        else ""
    )
    guess.why = (
        f"tells records apart{odd}" if is_key else "when it happened: a record is judged for its time of day"
    )


def _guess(connection: duckdb.DuckDBPyConnection, name: str, type_: str, n_files: int) -> Guess:
    guess = Guess(name, type_)
    if type_ == "other":
        guess.why = guess.warning = (
            "nested, binary, without a name, or of types that differ too much between files: ignored"
        )
        return guess
    column = sql.name(name)
    n, seen, distinct = _row(
        connection, f"SELECT count(*), count({column}), count(DISTINCT {column}) FROM sample"
    )
    guess.unique = seen == n and distinct == n and type_ in {"string", "int"} and n > 1
    guess.n_odd = n - distinct if type_ == "string" or CODE_NAME.search(name) else n
    if seen == 0:
        guess.why = guess.warning = "no value in the sample: ignored"
    elif distinct == 1 and type_ not in {"date", "timestamp", "timestamp_utc"}:
        guess.why = guess.warning = "the same value everywhere in the sample: ignored"
    elif type_ in {"string", "bool"}:
        _guess_text(connection, guess, Counts(n, seen, distinct, n_files))
    elif type_.startswith(("int", "float", "decimal")):
        _guess_number(connection, guess, Counts(n, seen, distinct, n_files))
    else:
        guess.why = "a time beside the main one: ignored"
    missing = 1 - seen / n
    if guess.role != "ignored":
        guess.why += f"; {missing:.1%} missing" if missing else "; none missing"
    return guess


def _guess_text(connection: duckdb.DuckDBPyConnection, guess: Guess, counts: Counts) -> None:
    column, n, distinct = sql.name(guess.name), counts.n, counts.n_distinct
    if guess.type == "bool":
        guess.role, guess.why = "categorical", "true or false"
        return
    (length,) = _row(connection, f"SELECT avg(length({column})) FROM sample")
    recurring = _recurrence(connection, column, counts.n_files)
    if recurring < RECURRING or distinct > 0.5 * n:
        guess.why = guess.warning = _unmodelled(guess.name, counts, recurring)
    elif length > LONG_TEXT and distinct > 50:
        guess.why = guess.warning = f"looks like free text ({length:.0f} characters on average): ignored"
    elif distinct > _most_categories(guess.name):
        guess.why = guess.warning = _unmodelled(guess.name, counts, recurring)
    else:
        guess.role, guess.why = "categorical", f"{distinct} categories"


def _most_categories(name: str) -> int:
    return MOST_OWNERS if OWNER_NAME.search(name) else MOST_CATEGORIES


def _unmodelled(name: str, counts: Counts, recurring: float) -> str:
    """Say what a column is whose values are too many, or too new in every file, to be categories."""
    n, distinct = counts.n_seen, counts.n_distinct
    again = "another file" if counts.n_files > 1 else "another record"
    found = f"{distinct} values, {n / distinct:.0f} records each; {recurring:.0%} of records have a value that {again} has, too"
    if distinct > 0.5 * n:
        return f"looks like an identifier ({distinct:,} values in {n:,} records): ignored"
    if recurring < RECURRING:
        return f"looks like an identifier that several records share ({found}): ignored"
    if OWNER_NAME.search(name):
        return f"its name says whose record it is ({found}): ignored; set it as `entity` so that derived columns look back within one entity"
    return f"too many values, or new ones too often, to be categories ({found}): ignored"


def _guess_number(connection: duckdb.DuckDBPyConnection, guess: Guess, counts: Counts) -> None:
    column, n, distinct = sql.name(guess.name), counts.n, counts.n_distinct
    value = f"CAST({column} AS DOUBLE)"
    finite = f"FILTER (abs({value}) < 'inf'::DOUBLE)"
    low, high, whole = _row(
        connection,
        f"SELECT min({value}) {finite}, max({value}) {finite}, bool_and({value} = round({value})) {finite} FROM sample",
    )
    if low is None:
        guess.why = guess.warning = "no finite value in the sample: ignored"
        return
    if whole and CODE_NAME.search(guess.name) and not guess.type.startswith("decimal"):
        recurring = _recurrence(connection, column, counts.n_files)
        if distinct <= _most_categories(guess.name) and distinct * 20 < n and recurring > 0.5:
            guess.role, guess.why = "categorical", f"{distinct} codes (its name says so)"
        else:
            guess.why = guess.warning = _unmodelled(guess.name, counts, recurring)
        return
    guess.unique = False  # a measurement that happens never to repeat is not a key
    guess.role = "numeric"
    guess.why = f"sample: {number(low, 6)} to {number(high, 6)}"
    _guess_bounds(connection, guess, f"(SELECT {value} AS x FROM sample WHERE abs({value}) < 'inf'::DOUBLE)")


def _guess_bounds(connection: duckdb.DuckDBPyConnection, guess: Guess, values: str) -> None:
    """Guess bounds; for a side that gets none, say how many records lie far out.

    Args:
        values: SQL for a table with one column, x.
    """
    (n,) = _row(connection, f"SELECT count(*) FROM {values}")
    share = unusual_share(n)
    quantiles = f"quantile_cont(x, {share}), median(x), quantile_cont(x, {1 - share})"
    guess.spread = spread = Spread(*_row(connection, f"SELECT min(x), {quantiles}, max(x) FROM {values}"))
    guess.rules = dict(spread.bounds())
    if not spread.width:
        guess.why += f"; almost always {number(spread.middle, 6)}: no bounds"
    far = []
    for side, line in spread.far.items():
        beyond, way = (
            (f"above {number(line, 6)}", "up") if side == "max" else (f"below {number(line, 6)}", "down")
        )
        (n_far,) = _row(
            connection, f"SELECT count(*) FROM {values} WHERE x {'>' if way == 'up' else '<'} {line}"
        )
        guess.why += f"; no {side}: {n_far:,} of {n:,} are {beyond}"
        farthest = spread.high if way == "up" else spread.low
        far.append(f"no {side}: {n_far:,} of {n:,} records {beyond} ({way} to {number(farthest, 6)})")
    if far:
        known = "if such values are impossible, write a bound: records beyond it are set aside, unscored"
        guess.warning = f"{', '.join(far)}; {known}"


def _cross_zero(columns: Sequence[Guess]) -> None:
    """Move bounds from zero where columns of the same kind have both signs, and say which these are."""
    spreads = {guess.name: guess.spread for guess in columns if guess.spread}
    reasons = crossing_zero(spreads)
    for guess in columns:
        if (others := reasons.get(guess.name)) and guess.spread:
            guess.rules = dict(guess.spread.bounds(stop_at_zero=False))
            more = f" and {len(others) - 1} more like it" * (len(others) > 1)
            has = "have" if more else "has"
            guess.why += f"; zero is no bound here: {others[0]}{more} {has} values on both sides of it"


def _recurrence(connection: duckdb.DuckDBPyConnection, column: str, n_files: int) -> float:
    """Return the share of records whose value is in another file, too; with one file, in another record."""
    within = FILE if n_files > 1 else "rowid"
    (share,) = _row(
        connection,
        f"""SELECT coalesce(avg(CASE WHEN files > 1 THEN 1.0 ELSE 0.0 END), 0) FROM sample JOIN
            (SELECT {column} AS value, count(DISTINCT {within}) AS files FROM sample GROUP BY 1) ON value = {column}""",
    )
    return float(share)


def _time_column(guesses: Sequence[Guess]) -> str | None:
    times = [g for g in guesses if g.type.startswith("timestamp") and "no value" not in g.why]
    dates = [g for g in guesses if g.type == "date" and "no value" not in g.why]
    return next((g.name for g in (*times, *dates)), None)


def _split(connection: duckdb.DuckDBPyConnection, time: str, n_files: int) -> str | None:
    (days,) = _row(connection, f"SELECT count(DISTINCT CAST({sql.name(time)} AS DATE)) FROM sample")
    return "day" if days > 3 * n_files else None


def _levels(connection: duckdb.DuckDBPyConnection, measured: Sequence[Guess], time: str) -> list[Guess]:
    """Return the columns whose values stay near the one before, where records come in equal steps of time."""
    if not 0 < len(measured) <= MOST_DERIVED_FROM or not _in_step(connection, time):
        return []
    return [guess for guess in measured if _steadiness(connection, sql.name(guess.name), time) <= STEADY]


def _steadiness(connection: duckdb.DuckDBPyConnection, column: str, time: str) -> float:
    """Return mean change over mean deviation from the median: 1.4 for independent Gaussian values."""
    (ratio,) = _row(
        connection,
        f"""SELECT sum(abs(change)) / sum(abs({column} - middle)) FROM (SELECT {column}, median({column}) OVER () AS middle,
            {column} - lag({column}) OVER (PARTITION BY {FILE} ORDER BY {sql.name(time)}) AS change FROM sample)
            WHERE change IS NOT NULL""",
    )
    return math.inf if ratio is None else float(ratio)


def _in_step(connection: duckdb.DuckDBPyConnection, time: str) -> bool:
    """Return whether records follow each other in equal steps of time, as a sensor's do."""
    (share,) = _row(
        connection,
        f"""SELECT coalesce(max(n) / sum(n), 0) FROM (SELECT gap, count(*) AS n FROM (SELECT {sql.name(time)} -
            lag({sql.name(time)}) OVER (PARTITION BY {FILE} ORDER BY {sql.name(time)}) AS gap FROM sample)
            WHERE gap IS NOT NULL AND gap > INTERVAL 0 SECOND GROUP BY gap)""",
    )
    (distinct, n) = _row(connection, f"SELECT count(DISTINCT {sql.name(time)}), count(*) FROM sample")
    return bool(share >= IN_STEP and distinct >= IN_STEP * n)


def _row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    return connection.execute(query).fetchone() or ()
