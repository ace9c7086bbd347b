"""A dataset file written from a sample: what `vaewatch init` guesses, and why.

Belongs here: guesses about paths, types, roles, rules and bounds, each with its reason as a comment in the file.
Does not: what the settings mean (config.py).
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import yaml

from pipeline import guard, sql
from pipeline.batches import DATE, UNFINISHED, path_shape
from pipeline.config import Column
from pipeline.contracts import contract_type, fits, reserved, typed
from pipeline.errors import ConfigError, UnreadableFile

if TYPE_CHECKING:
    import duckdb

MOST_FILES = 12
MOST_CATEGORIES = 5_000
LONG_TEXT = 24
_FILE = '"vaewatch file"'
PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")
CODE_NAME = re.compile(  # shop_id, shopID, zipcode, code_2; not paid, humid or bid
    r"(?:^|_)(?i:id|code|type|zip)(?:_|$)|[a-z](?:ID|Id|Code|Type|Zip|code|zip)$"
    r"|^(?:account|card|client|customer|device|item|location|merchant|order|product|session|shop|store|user|vendor)id$"
)
MOST_DERIVED_FROM = 12  # numeric columns; each gives three more
IN_STEP = 0.9  # share of records that must be unique in time and as far from the one before as most are
STEADY = 0.5  # mean change over mean deviation: 1.4 for independent Gaussian values, at most 0.22 for water's sensors
NEARLY = 0.002  # share of records that may repeat or lack what is still taken for the key
MOST_SHAPES = 20
ENOUGH_PATHS = 0.9


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


@dataclass(frozen=True)
class Proposal:
    """A dataset file and what a person should look at before using it."""

    text: str
    warnings: tuple[str, ...]
    n_files: int
    n_records: int


@dataclass(frozen=True)
class Shape:
    """How paths name batches, e.g. day={batch_id}/*.parquet."""

    files: str
    why: str
    monthly: bool = False


def propose(folder: Path, name: str, *, relative_to: Path, threads: int, scratch: Path) -> Proposal:
    """Infer a dataset file from the Parquet files under a folder.

    Args:
        relative_to: folder that the YAML file will lie in.

    Raises:
        ConfigError: there is no Parquet file, or none that can be read.
    """
    paths = _parquet_files(folder)
    relative = [str(path.relative_to(folder)) for path in paths]
    shape = _shape(relative)
    unmatched = [path for path in relative if not path_shape(shape.files).fullmatch(path)]
    chosen = [paths[round(i * (len(paths) - 1) / (MOST_FILES - 1))] for i in range(MOST_FILES)]
    sample, schemas, warnings, n_records = _readable(list(dict.fromkeys(chosen)))
    if unmatched:
        warnings.append(f"{len(unmatched)} files do not match {shape.files}, as {unmatched[0]}: never read")
    types = _types(schemas)
    _check_names(folder, types)
    with sql.database(scratch, threads=threads) as connection:
        _load(connection, sample, types, scratch)
        guesses = [_guess(connection, column, type_, len(sample)) for column, type_ in types.items()]
        (n,) = _row(connection, "SELECT count(*) FROM sample")
        nearly = sorted(
            (g.n_odd, i)
            for i, g in enumerate(guesses)
            if g.type in {"string", "int"} and g.n_odd <= NEARLY * n
        )
        key = next((g.name for g in guesses if g.unique), guesses[nearly[0][1]].name if nearly else None)
        time = _time_column(guesses)
        split = _split(connection, time, len(sample)) if shape.monthly and time else None
        levels = _levels(connection, [g for g in guesses if g.role == "numeric"], time) if time else []
    for guess in levels:
        guess.role = "ignored"
        guess.why += (
            "; judged by what is derived from it: a level wanders with the seasons (numeric: by itself, too)"
        )
    for guess in guesses:
        if guess.name in {key, time}:
            guess.rules = {"required": True}
            guess.role = "context" if guess.name == time else "ignored"
            guess.why = (
                f"tells records apart{f': {guess.n_odd} of {n} in the sample repeat it or lack it and would be set aside' if guess.n_odd else ''}"
                if guess.name == key
                else "when it happened: a record is judged for its time of day"
            )
            guess.warning = ""
    warnings += [f"{g.name}: {g.warning}" for g in guesses if g.warning]
    if not levels and not any(g.role in {"numeric", "categorical"} for g in guesses):
        raise ConfigError(f"{folder}: no column can be modelled (all are identifiers, text or constant)")
    per_day = n_records / max(1, len(sample)) / (30 if split else 1)
    near = os.path.relpath(folder, relative_to)
    path = (
        str(folder.absolute()) if near.startswith("../../../") else near
    )  # a neighbour moves along, a stranger does not
    head = _head(name, path, shape, key, time, split, len(sample), n_records)
    body = "columns:\n" + "".join(_column_lines(guess) for guess in guesses)
    derived = _derived_lines([g.name for g in levels], set(types)) if levels else ""
    return Proposal(head + body + derived + _tail(per_day), tuple(warnings), len(paths), n_records)


def _parquet_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        and not path.name.endswith(UNFINISHED)
    )
    parquet = [path for path in found if path.suffix in {".parquet", ".pq", ".parq"}]
    if not parquet:
        raise ConfigError(f"{folder} holds no Parquet file (*.parquet) yet; put a sample there and try again")
    return parquet


def _shape(relative: Sequence[str]) -> Shape:
    """How these paths name a batch: the commonest way that fits nearly all of them, else that fits the most."""
    common = [Shape(*found) for found, _ in Counter(map(_shape_of, relative)).most_common(MOST_SHAPES)]
    shapes = [*common, Shape(f"{{batch_id}}{Path(relative[0]).suffix}", "one batch a file")]
    matched = [sum(path_shape(s.files).fullmatch(path) is not None for path in relative) for s in shapes]
    enough = [s for s, n in zip(shapes, matched, strict=True) if n >= ENOUGH_PATHS * len(relative)]
    return enough[0] if enough else shapes[matched.index(max(matched))]


def _shape_of(path: str) -> tuple[str, str, bool]:
    *folders, name = path.split("/")
    suffix = Path(name).suffix
    if folders and all("=" in part for part in folders):
        shared = f"{folders[0].partition('=')[0]}=" if len(folders) == 1 else ""
        return f"{shared}{{batch_id}}/*{suffix}", "hive partitions: one batch a partition", False
    dates = [match for match in DATE.finditer(name) if match[2]]
    if folders and (len(dates) != 1 or any(DATE.search(folder) for folder in folders)):
        return f"{{batch_id}}/*{suffix}", "one batch a folder", False
    if len(dates) == 1:
        monthly = dates[0][3] is None
        return (
            f"{'/'.join([*folders, name[: dates[0].start()]])}{{batch_id}}{name[dates[0].end() :]}",
            f"one file a {'month' if monthly else 'day'}, by its name",
            monthly,
        )
    return f"{{batch_id}}{suffix}", "one batch a file", False


def _readable(paths: Sequence[Path]) -> tuple[list[Path], list[pa.Schema], list[str], int]:
    sample, schemas, warnings, n_records = [], [], [], 0
    for path, report in zip(paths, guard.survey(paths, columns=None), strict=True):
        if isinstance(report, UnreadableFile):
            warnings.append(f"left out of the sample: {report}")
        elif report.n_records:
            sample.append(path)
            schemas.append(report.schema)
            n_records += report.n_records
    if not sample:
        raise ConfigError(
            "none of the sampled files can be read and has records:\n  " + "\n  ".join(warnings)
        )
    return sample, schemas, warnings, n_records


def _types(schemas: Sequence[pa.Schema]) -> dict[str, str]:
    """A contract type that every sampled file fits, by column of the newest file; `other` where there is none."""
    types = {}
    for name in schemas[-1].names:
        fields = [schema.field(name).type for schema in schemas if schema.get_field_index(name) >= 0]
        found = dict.fromkeys(contract_type(type_) for type_ in fields if not pa.types.is_null(type_))
        candidates = [Column(type=type_) for type_ in [*found, "float"] if name]
        fitting = (column.type for column in candidates if all(fits(column, type_) for type_ in fields))
        types[name] = next(fitting, "other")
    return types


def _check_names(folder: Path, names: Iterable[str]) -> None:
    if taken := reserved(names):
        raise ConfigError(
            f"{folder}: columns {', '.join(taken)} have names that the reader needs; rename them"
        )
    folded = Counter(name.casefold() for name in names)
    twice = [name for name in names if folded[name.casefold()] > 1]
    if twice:
        raise ConfigError(
            f"{folder}: columns {', '.join(twice)} differ in case only, which tables cannot hold; rename them"
        )


def _load(
    connection: duckdb.DuckDBPyConnection, sample: list[Path], types: dict[str, str], scratch: Path
) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    views = []
    for i, path in enumerate(sample):
        link = scratch / f"sample{i}.parquet"
        link.unlink(missing_ok=True)
        link.symlink_to(path.absolute())
        views.append(str(link))
    kept = [f"{typed(n, Column(type=t))} AS {sql.name(n)}" for n, t in types.items() if t != "other"]
    query = f"""SELECT {", ".join([*kept, _FILE])} FROM read_parquet([{", ".join(map(sql.text, views))}],
        union_by_name = true, hive_partitioning = false, filename = {sql.text(_FILE.strip('"'))})"""
    connection.execute(
        f"CREATE TABLE sample AS SELECT * FROM ({query}) USING SAMPLE reservoir(500000 ROWS) REPEATABLE (7)"
    )


def _guess(connection: duckdb.DuckDBPyConnection, name: str, type_: str, n_files: int) -> Guess:
    guess = Guess(name, type_)
    if type_ == "other":
        guess.why = guess.warning = (
            "nested, binary, without a name or of types that do not go together: ignored"
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
        _guess_text(connection, guess, n, distinct, n_files)
    elif type_.startswith(("int", "float", "decimal")):
        _guess_number(connection, guess, n, distinct, n_files)
    else:
        guess.why = "a second time: ignored"
    missing = 1 - seen / n
    if guess.role != "ignored":
        guess.why += (
            f"; {missing:.1%} missing" if missing else "; never missing in the sample (add required: true?)"
        )
    return guess


def _guess_text(
    connection: duckdb.DuckDBPyConnection, guess: Guess, n: int, distinct: int, n_files: int
) -> None:
    column = sql.name(guess.name)
    if guess.type == "bool":
        guess.role, guess.why = "categorical", "true or false"
        return
    (length,) = _row(connection, f"SELECT avg(length({column})) FROM sample")
    recurring = _recurrence(connection, column, n_files)
    if recurring < 0.2 or distinct > 0.5 * n:
        guess.why = guess.warning = (
            f"looks like an identifier ({distinct} values, {recurring:.0%} recur): ignored"
        )
    elif length > LONG_TEXT and distinct > 50:
        guess.why = guess.warning = f"looks like free text ({length:.0f} characters on average): ignored"
    elif distinct > MOST_CATEGORIES:
        guess.why = guess.warning = f"{distinct} categories are too many to model: ignored"
    else:
        guess.role, guess.why = "categorical", f"{distinct} categories"


def _guess_number(
    connection: duckdb.DuckDBPyConnection, guess: Guess, n: int, distinct: int, n_files: int
) -> None:
    column = sql.name(guess.name)
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
        if (
            distinct <= MOST_CATEGORIES
            and distinct * 20 < n
            and _recurrence(connection, column, n_files) > 0.5
        ):
            guess.role, guess.why = "categorical", f"{distinct} codes, by its name"
        else:
            guess.why = guess.warning = f"looks like an identifier ({distinct} values): ignored"
        return
    guess.unique = False  # a measurement that happens never to repeat is not a key
    guess.role = "numeric"
    guess.rules = _bounds(low, high)
    guess.why = f"sample: {low:.6g} to {high:.6g}" + (", bounds a span further" if guess.rules else "")


def _bounds(low: float, high: float) -> dict[str, float]:
    """A span further than the sample, to two digits of the span, and not across zero."""
    span = high - low
    if not 0 < span < 1e300:
        return {}
    digits = 1 - math.floor(math.log10(span))
    return {
        "min": 0.0 if 0 <= low <= span else round(low - span, digits),
        "max": 0.0 if -span <= high <= 0 else round(high + span, digits),
    }


def _recurrence(connection: duckdb.DuckDBPyConnection, column: str, n_files: int) -> float:
    """Share of records whose value is in another file too; with one file, in another record."""
    within = _FILE if n_files > 1 else "rowid"
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
    """Of columns whose records follow each other in equal steps, those in which a value is near the one before."""
    if not 0 < len(measured) <= MOST_DERIVED_FROM or not _in_step(connection, time):
        return []
    return [guess for guess in measured if _steadiness(connection, sql.name(guess.name), time) <= STEADY]


def _steadiness(connection: duckdb.DuckDBPyConnection, column: str, time: str) -> float:
    """Mean change over mean deviation from the median: 1.4 for values that know nothing of each other (Gaussian)."""
    (ratio,) = _row(
        connection,
        f"""SELECT sum(abs(change)) / sum(abs({column} - middle)) FROM (SELECT {column}, median({column}) OVER () AS middle,
            {column} - lag({column}) OVER (PARTITION BY {_FILE} ORDER BY {sql.name(time)}) AS change FROM sample)
            WHERE change IS NOT NULL""",
    )
    return math.inf if ratio is None else float(ratio)


def _in_step(connection: duckdb.DuckDBPyConnection, time: str) -> bool:
    """Whether records follow each other in equal steps of time, as a sensor's do."""
    (share,) = _row(
        connection,
        f"""SELECT coalesce(max(n) / sum(n), 0) FROM (SELECT gap, count(*) AS n FROM (SELECT {sql.name(time)} -
            lag({sql.name(time)}) OVER (PARTITION BY {_FILE} ORDER BY {sql.name(time)}) AS gap FROM sample)
            WHERE gap IS NOT NULL AND gap > INTERVAL 0 SECOND GROUP BY gap)""",
    )
    (distinct, n) = _row(connection, f"SELECT count(DISTINCT {sql.name(time)}), count(*) FROM sample")
    return bool(share >= IN_STEP and distinct >= IN_STEP * n)


def _derived_lines(names: Sequence[str], taken: Set[str]) -> str:
    lines = [
        "derived:  # records follow each other in equal steps: each is judged against the ones before it"
    ]
    for name in names:
        column = sql.name(name)
        for suffix, expression in (
            ("change", f"{column} - lag({column}) OVER by_time"),
            ("from_hour", f"{column} - median({column}) OVER the_hour"),
            ("from_day", f"{column} - median({column}) OVER the_day"),
        ):
            if f"{name}_{suffix}" not in taken:
                lines.append(f"  {_plain(f'{name}_{suffix}')}: {_plain(expression)}")
    return "\n".join(lines) + "\n"


def _row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    return connection.execute(query).fetchone() or ()


def _head(
    name: str,
    path: str,
    shape: Shape,
    key: str | None,
    time: str | None,
    split: str | None,
    n_files: int,
    n: int,
) -> str:
    lines = [
        f"# Written by `vaewatch init` from {n} records of {n_files} files. Each guess says why: read, mend, keep.",
        f"dataset: {_plain(name)}",
        "incoming:",
        f"  path: {_plain(path)}",
        f"  files: {_plain(shape.files)}  # {shape.why}",
    ]
    if split:
        lines.append(f"  split: {split}  # each file holds many days: one batch a day")
    lines.append(
        f"key: {_plain(key)}" if key else "key: []  # nothing tells records apart: their content does"
    )
    if time:
        lines.append(f"time: {_plain(time)}")
    return "\n".join(lines) + "\n\n"


def _column_lines(guess: Guess) -> str:
    settings = {"type": guess.type, "role": guess.role, **guess.rules}
    inside = ", ".join(f"{k}: {_plain(v)}" for k, v in settings.items())
    return f"  {_plain(guess.name)}: {{{inside}}}  # {guess.why}\n"


def _tail(per_day: float) -> str:
    budget = max(1, min(20, round(per_day * 0.01)))
    return f"""
batch:
  max_set_aside: 0.05  # a batch of which row rules set more aside is refused
train:
  schedule: "0 2 * * *"  # every night at two, UTC
  window_days: 30
  min_records: {max(100, min(1000, round(per_day * 3)))}
flag:
  review_budget: {budget}  # records a day that people will look at; a normal day flags this many
"""


def _plain(value: Any) -> str:
    """A YAML scalar on one line, quoted where YAML would read anything else than this text."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    style = '"' if isinstance(value, str) else None
    written: str = yaml.safe_dump(value, default_style=style, allow_unicode=True, width=math.inf)
    return written.removesuffix("\n").removesuffix("\n...")
