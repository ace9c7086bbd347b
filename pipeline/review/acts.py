"""An act: what one reviewer said at once, of one record or of many, and how people are told which it was.

Belongs here: finding and naming acts. Does not: taking one back (judging.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field

from pipeline.numerals import number
from pipeline.records.verdicts import WITHDRAWN, name_of
from pipeline.review.filters import Datasets, of, without_nul
from pipeline.storage.ledger import Ledger
from pipeline.storage.review_schema import NO_COLUMN, queue, verdicts

NAMED = 3  # records; of more, how many there are, and what they share
LONGEST_NAMED = 40  # characters of a record's name or a group's


@dataclass(frozen=True)
class Act:
    """What somebody said at once."""

    act: str
    what: Annotated[str, Field(description="verdict, records and dataset, for people")]
    given_at: datetime


def newest(ledger: Ledger, *, by: str, among: Datasets = None) -> str | None:
    """Return a reviewer's newest act that still holds in part: on one dataset, on several, or on any."""
    withdrawn = verdicts.alias()
    query = (
        sa
        .select(verdicts.c.act)
        .outerjoin(withdrawn, withdrawn.c.withdraws == verdicts.c.number)
        .where(
            verdicts.c.by == by,
            verdicts.c.act != "",
            verdicts.c.verdict != WITHDRAWN,
            withdrawn.c.number.is_(None),
        )
        .order_by(verdicts.c.number.desc())
    )
    with ledger.transaction() as connection:
        return connection.execute(of(query, verdicts, among).limit(1)).scalar_one_or_none()


def datasets(ledger: Ledger, act: str) -> set[str]:
    """Return the datasets that an act is about."""
    query = sa.select(verdicts.c.dataset).where(verdicts.c.act == without_nul(act)).distinct()
    with ledger.transaction() as connection:
        return set(connection.execute(query).scalars()) if act else set()


def one(ledger: Ledger, act: str) -> Act | None:
    """Return what was said in an act, whether it was taken back or not; None where there is none."""
    of_record = verdicts.outerjoin(queue, queue.c.anomaly_id == verdicts.c.anomaly_id)
    columns = [verdicts.c[name] for name in ("verdict", "dataset", "anomaly_id", "batch_id", "record_key")]
    more = (verdicts.c.decided_at, queue.c.row_number, queue.c.signature)
    said = sa.select(*columns, *more).select_from(of_record)
    mine = said.where(verdicts.c.act == without_nul(act), verdicts.c.verdict != WITHDRAWN)
    with ledger.transaction() as connection:
        rows = (
            connection.execute(mine.order_by(verdicts.c.record_key, verdicts.c.number)).all() if act else []
        )
    return Act(act, _what(rows), rows[0].decided_at) if rows else None


def no_act(act: str) -> str:
    """Say that there is no such act, and how acts are named."""
    return (
        f"nothing was undone: there is no act {act[:60]!r}; acts are named where a verdict is given, and in "
        "the history that `vaewatch review export DATASET FILE --history` writes; without a name your newest is taken back"
    )


def _what(rows: Sequence[Any]) -> str:
    """Say it like "normal on k1 of payments" or "normal on 171 records of payments, all odd in amount↑"."""
    of = " and ".join(sorted({row.dataset for row in rows}))
    said = f"{rows[0].verdict.replace('_', ' ')} on "
    if len(rows) <= NAMED:
        return f"{said}{', '.join(_brief(_name(row)) for row in rows)} of {of}"
    counted = f"{said}{number(len(rows))} records of {of}"
    signatures = {row.signature for row in rows}
    if len(signatures) == 1 and (shared := signatures.pop()):
        return f"{counted}, all odd in {'no single column' if shared == NO_COLUMN else _brief(shared)}"
    return f"{counted}, {_brief(_name(rows[0]))} and others"


def _name(row: Any) -> str:
    """Name a record; one that left the queue, as its batch was delivered again, by what is kept of it."""
    return row.anomaly_id if row.row_number is None else name_of(row.record_key, row.batch_id, row.row_number)


def _brief(text: str) -> str:
    return text if len(text) <= LONGEST_NAMED else f"{text[:LONGEST_NAMED]}…"
