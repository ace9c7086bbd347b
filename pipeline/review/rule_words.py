"""Suppression rules in a dataset's own words: columns that it has, values as its records hold them.

Belongs here: what a rule may name, and how a value that a person typed is written in a record. Does not: what
a rule hides (suppression.py), or rules about rows of a batch (config/contracts.py).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

import sqlalchemy as sa

from pipeline.config.columns import Column
from pipeline.config.contracts import kept_columns
from pipeline.errors import ConfigError
from pipeline.review.filters import without_nul
from pipeline.review.suppression import Rule, as_text
from pipeline.storage.ledger import Ledger
from pipeline.storage.review_schema import NO_COLUMN, queue

if TYPE_CHECKING:
    from pipeline.installation import Installation

MISSING = as_text(None)
BOOLS = {"true": "True", "false": "False"}
EXAMPLES = {"int": "12", "bool": "true", "date": "2026-01-31", "timestamp": "2026-01-31T12:00:00"}


def fitted(here: Installation, rule: Rule) -> Rule:
    """Return the same rule with its values as records hold them: amount=12 is 12.0 where amounts are floats.

    Records of a dataset whose file is gone are still judged: a rule about them is returned as it is.

    Raises:
        ConfigError: it names a column that the dataset lacks, or a value that its column cannot have; with
            every fault.
    """
    try:
        dataset = here.dataset(rule.dataset)
    except ConfigError:
        return rule
    columns, faults, said = kept_columns(dataset), [], {}
    for name, value in rule.conditions.items():
        if name not in columns:
            faults.append(_unknown(name, columns))
            continue
        try:
            said[name] = value if value == MISSING else _as_held(columns[name], value)
        except (ValueError, InvalidOperation, OverflowError):
            type_ = columns[name].type
            example = EXAMPLES.get(type_.removesuffix("_utc"), "12.5")
            faults.append(
                f"{name} is of type {type_}, and {value!r} is not (write it like {example}, or {MISSING})"
            )
    if rule.signature and not _is_known(here.ledger, rule):
        faults += _signature_faults(rule.signature, list(dataset.with_derived))
    if faults:
        raise ConfigError(f"suppression rule for {dataset.name}: " + "; ".join(faults))
    return replace(rule, conditions=said)


def _as_held(column: Column, value: str) -> str:
    """Return a value as `suppression.as_text` writes that of a record."""
    if column.type == "int":
        return str(int(value))
    if column.type == "float":
        return str(float(value))
    if column.type == "bool":
        if value.lower() not in BOOLS:
            raise ValueError(value)
        return BOOLS[value.lower()]
    if column.type == "date":
        return date.fromisoformat(value).isoformat()
    if column.type.startswith("timestamp"):
        return _instant(value, utc=column.type == "timestamp_utc").isoformat()
    if column.is_number:  # decimal(p,s): with as many places as its column has
        places = int(column.type.rstrip(")").split(",")[1])
        held = Decimal(value).quantize(Decimal(1).scaleb(-places))
        if held != Decimal(value):
            raise ValueError(value)
        return str(held)
    return value


def _instant(value: str, *, utc: bool) -> datetime:
    """Read an instant: in UTC where the column has a zone, else without one."""
    said = datetime.fromisoformat(value)
    if utc:
        return (said if said.tzinfo else said.replace(tzinfo=UTC)).astimezone(UTC)
    if said.tzinfo:
        raise ValueError(value)
    return said


def _is_known(ledger: Ledger, rule: Rule) -> bool:
    """Return whether the queue ever had this signature: long ones are cut there, and columns may be gone."""
    same = (queue.c.dataset == rule.dataset) & (queue.c.signature == without_nul(rule.signature))
    with ledger.transaction() as connection:
        return connection.execute(sa.select(queue.c.anomaly_id).where(same).limit(1)).first() is not None


def _signature_faults(signature: str, columns: list[str]) -> list[str]:
    """Return what is wrong with a signature like `amount↑ fee↓`; column names may have spaces."""
    if signature == NO_COLUMN:
        return []
    parts = [part.strip() for part in re.split(r"(?<=[↑↓∅≠])(?: |$)", signature) if part.strip()]
    faults = [
        _unknown(part[:-1], columns) for part in parts if part[-1] in "↑↓∅≠" and part[:-1] not in columns
    ]
    faults += [
        f"{part!r} has no direction: one of ↑ ↓ ∅ ≠ after the column"
        for part in parts
        if part[-1] not in "↑↓∅≠"
    ]
    if not faults and (ordered := " ".join(sorted(parts))) != signature:
        faults.append(f"the queue writes this signature as {ordered!r}")
    return faults


def _unknown(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"its columns: {', '.join(known)}"
    return f"there is no column {name!r}; {hint}"
