"""What a dataset promises, as rules that can be checked.

Belongs here: contract types against file types, rules as SQL predicates, the contract's hash.
Does not: running them (incoming/validation.py, expectations/) or how a person writes them (dataset.py).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import pyarrow as pa

from pipeline import sql
from pipeline.config.columns import DECIMAL, Column
from pipeline.config.dataset import Dataset

SQL_TYPES = {
    "float": "DOUBLE",
    "int": "BIGINT",
    "bool": "BOOLEAN",
    "string": "VARCHAR",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "timestamp_utc": "TIMESTAMPTZ",
}
# a date farther ahead of its reading is not believed; less may be a clock, or a zone that is not given
AHEAD = timedelta(days=1)
# DuckDB's name for a record's place in its file, and ours
RESERVED = re.compile(r"(?i)file_row_number|vaewatch_.*")
MOST_NAMED = 3  # columns of a file that is not the contract's
DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}  # of the largest integer, by bits
RowCode = Literal[
    "missing_value", "out_of_range", "not_finite", "not_in_set", "pattern", "duplicate_key", "outside_period"
]
BatchCode = Literal["columns", "row_count", "share_set_aside", "freshness"]


@dataclass(frozen=True)
class RowRule:
    """A rule that sets single records aside.

    Attributes:
        code: the reason written beside a record.
        column: the column it is about; None where a key has several.
        violates: SQL over the relation `batch`, true for a record that breaks the rule, never NULL.
        minimum, maximum, values, pattern, columns: the rule's own bounds, for reports.
    """

    code: RowCode
    column: str | None
    violates: str
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] | None = None
    pattern: str | None = None
    columns: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """What is written beside a record, e.g. `out_of_range:amount`."""
        return f"{self.code}:{self.column or '+'.join(self.columns)}"


@dataclass(frozen=True)
class BatchRule:
    """A rule that refuses a whole batch."""

    code: BatchCode
    column: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class SchemaFit:
    """How a batch's files fit the contract's columns and types."""

    refusals: tuple[str, ...]
    widenings: tuple[str, ...]
    new_columns: tuple[str, ...]


def kept_columns(dataset: Dataset) -> dict[str, Column]:
    """Return the columns that vaewatch carries: all but those of type `other`."""
    return {name: column for name, column in dataset.columns.items() if column.type != "other"}


def contract_hash(dataset: Dataset) -> str:
    """Return twelve hex digits that change when the contract changes."""
    promises = dataset.model_dump(mode="json", include={"key", "time", "columns", "batch"})
    promises["split"] = dataset.incoming.split
    return hashlib.sha256(json.dumps(promises, sort_keys=True).encode()).hexdigest()[:12]


def contract_type(arrow: pa.DataType) -> str:
    """Return the contract type that holds every value of an Arrow type exactly; `other` where none does."""
    if pa.types.is_dictionary(arrow):
        return contract_type(arrow.value_type)
    if pa.types.is_timestamp(arrow):
        return "timestamp_utc" if arrow.tz else "timestamp"
    if pa.types.is_decimal(arrow):
        return (
            f"decimal({arrow.precision},{arrow.scale})"
            if arrow.precision <= 38 and arrow.scale >= 0
            else "float"
        )
    if pa.types.is_uint64(arrow):
        return "decimal(20,0)"
    tests = {
        "float": pa.types.is_floating,
        "int": pa.types.is_integer,
        "bool": pa.types.is_boolean,
        "date": pa.types.is_date,
    }
    if pa.types.is_string(arrow) or pa.types.is_large_string(arrow) or pa.types.is_string_view(arrow):
        return "string"
    return next((name for name, test in tests.items() if test(arrow)), "other")


def fits(column: Column, arrow: pa.DataType) -> bool:
    """Return whether the contract's type holds every value of an Arrow type without loss of meaning."""
    if pa.types.is_dictionary(arrow):
        return fits(column, arrow.value_type)
    found = contract_type(arrow)
    if pa.types.is_null(arrow) or column.type in {"other", found}:
        return True
    if column.type == "float":
        return found == "int" or found.startswith("decimal")
    if promised := DECIMAL.fullmatch(column.type):
        have = DECIMAL.fullmatch(f"decimal({DIGITS[arrow.bit_width]},0)" if found == "int" else found)
        precision, scale = int(promised[1]), int(promised[2])
        return have is not None and int(have[2]) <= scale and int(have[1]) - int(have[2]) <= precision - scale
    return False


def fit_schema(dataset: Dataset, schemas: Mapping[str, pa.Schema]) -> SchemaFit:
    """Compare each file's columns and types with the contract.

    Args:
        schemas: one Arrow schema per file.
    """
    refusals: dict[str, None] = {}
    widenings: dict[str, None] = {}
    new: dict[str, None] = {}
    for file, schema in schemas.items():
        twice = sorted({n for n in schema.names if schema.names.count(n) > 1})
        refusals |= dict.fromkeys(f"column {n!r} is in {file} more than once" for n in twice)
        refusals |= {
            f"column {n!r} in {file} has a name that vaewatch uses itself: rename it": None
            for n in reserved(schema.names)
        }
        if gone := _missing(dataset.columns, file, schema.names):
            refusals[gone] = None
        for name, column in dataset.columns.items():
            twins = [n for n in schema.names if n != name and n.casefold() == name.casefold()]
            if twins and name in schema.names:
                alike = ", ".join(map(repr, [name, *twins]))
                refusals[f"columns {alike} in {file} differ in case only, which tables cannot hold"] = None
            if name in schema.names and name not in twice:
                arrow = schema.field(name).type
                if not fits(column, arrow):
                    refusals[f"column {name!r} is {arrow} in {file}, the contract says {column.type}"] = None
                elif contract_type(arrow) != column.type and column.type != "other":
                    widenings[f"{name}: {arrow} read as {column.type}"] = None
        new |= dict.fromkeys(n for n in schema.names if n not in dataset.columns)
    if new and dataset.batch.new_columns == "refuse":
        refusals[f"columns {', '.join(map(repr, new))} are not in the contract"] = None
    return SchemaFit(tuple(refusals), tuple(widenings), tuple(new))


def _missing(promised: Mapping[str, Column], file: str, names: Sequence[str]) -> str:
    """Say in one sentence which columns a file lacks, if any; of one that has none of them, which it has."""
    gone = [f"{name!r} ({column.type})" for name, column in promised.items() if name not in names]
    if len(gone) == len(promised) > 1:
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        has = ", ".join(map(repr, names[:MOST_NAMED])) or "no column"
        return f"none of the contract's {len(promised)} columns is in {file}; it has {has}{more}: another feed's file?"
    if len(gone) > 1:
        return f"{len(gone)} of the contract's {len(promised)} columns are missing from {file}: {', '.join(gone)}"
    return f"column {gone[0]} is missing from {file}" if gone else ""


def reserved(names: Iterable[str]) -> list[str]:
    """Return which of a file's columns clash with the ones that reading adds."""
    return [name for name in names if RESERVED.fullmatch(name)]


def sql_type(column: Column) -> str:
    """Return the DuckDB type that holds a contract type."""
    return SQL_TYPES.get(column.type, column.type.upper())


def typed(name: str, column: Column) -> str:
    """Return SQL that reads a file's column as its contract type; NaN is read as missing."""
    value = f"CAST({sql.name(name)} AS {sql_type(column)})"
    # not isnan(): DuckDB answers it from a file's statistics, and those leave NaN out
    return (
        f"CASE WHEN isfinite({value}) OR isinf({value}) THEN {value} END" if column.type == "float" else value
    )


def row_rules(dataset: Dataset) -> list[RowRule]:
    """Return every rule of the contract that can set a record aside."""
    rules: list[RowRule] = []
    for name, column in kept_columns(dataset).items():
        quoted = sql.name(name)
        if column.required or name in dataset.key:
            rules.append(RowRule("missing_value", name, f"{quoted} IS NULL"))
        if column.type == "float":
            rules.append(RowRule("not_finite", name, f"coalesce(isinf({quoted}), false)"))
        if column.min is not None or column.max is not None:
            rules.append(_range_rule(name, column))
        if column.values is not None:
            listed = ", ".join(sql.text(value) for value in column.values)
            violates = f"coalesce({quoted} NOT IN ({listed}), false)" if listed else f"{quoted} IS NOT NULL"
            rules.append(RowRule("not_in_set", name, violates, values=tuple(column.values)))
        if column.pattern is not None:
            violates = f"coalesce(NOT regexp_full_match({quoted}, {sql.text(column.pattern)}), false)"
            rules.append(RowRule("pattern", name, violates, pattern=column.pattern))
    if dataset.key:
        rules.append(_key_rule(dataset.key))
    return rules


def _range_rule(name: str, column: Column) -> RowRule:
    value, bounds = f"CAST({sql.name(name)} AS DOUBLE)", []
    if column.min is not None:
        bounds.append(f"{value} < {column.min!r}::DOUBLE")
    if column.max is not None:
        bounds.append(f"{value} > {column.max!r}::DOUBLE")
    # an infinite value is set aside as such: one reason is enough
    violates = f"coalesce(({' OR '.join(bounds)}) AND NOT isinf({value}), false)"
    return RowRule("out_of_range", name, violates, minimum=column.min, maximum=column.max)


def _key_rule(key: list[str]) -> RowRule:
    columns = ", ".join(map(sql.name, key))
    present = " AND ".join(f"{sql.name(name)} IS NOT NULL" for name in key)
    repeat = f"row_number() OVER (PARTITION BY {columns} ORDER BY vaewatch_row) > 1"
    one = key[0] if len(key) == 1 else None
    return RowRule("duplicate_key", one, f"({present} AND {repeat})", columns=tuple(key))


def batch_rules(dataset: Dataset) -> list[BatchRule]:
    """Return every rule of the contract that can refuse a whole batch."""
    promised = dataset.batch
    rules = [
        BatchRule("columns", columns=tuple(kept_columns(dataset))),
        BatchRule("row_count", minimum=promised.min_records, maximum=promised.max_records),
        BatchRule("share_set_aside", maximum=promised.max_set_aside),
    ]
    if promised.max_age_days is not None and dataset.time is not None:
        rules.append(BatchRule("freshness", column=dataset.time, maximum=promised.max_age_days))
    return rules
