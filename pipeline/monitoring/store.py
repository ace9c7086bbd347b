"""What was measured of each batch, one row a batch, in the ledger's database.

A batch that is scored again replaces its row.

Belongs here: the table, writing a row, reading earlier ones. Does not: what the numbers mean (judgement.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa

from pipeline.detection.measures import Measures
from pipeline.incoming.batches import UNDATED
from pipeline.monitoring.findings import Finding, news
from pipeline.monitoring.history import Past
from pipeline.storage.ledger import Ledger
from pipeline.storage.ledger_schema import instant, metadata

# earlier batches: enough for eight of a weekday where some days bring none, and a month of the others
MOST_READ = 90

measures = sa.Table(
    "measures",
    metadata,
    sa.Column("dataset", sa.String(63), primary_key=True),
    sa.Column("batch_id", sa.String(250), primary_key=True),
    sa.Column("day", sa.String(10), nullable=False),  # the day that it counts with: window.day
    sa.Column("model_version", sa.Integer, nullable=False),
    sa.Column("measured_at", instant, nullable=False),
    sa.Column("measures", sa.JSON, nullable=False),
    sa.Column("findings", sa.JSON, nullable=False),
    sa.Index("ix_measures_day", "dataset", "day"),
)


@dataclass(frozen=True)
class Watched(Past):
    """A batch as it was measured, and by which model version."""

    model_version: int = 0
    measured_at: datetime | None = None


def replace(ledger: Ledger, dataset: str, watched: Watched) -> None:
    """Write a batch's row, replacing the earlier one."""
    row = {
        "dataset": dataset,
        "batch_id": watched.batch_id,
        "day": watched.day.isoformat(),
        "model_version": watched.model_version,
        "measured_at": watched.measured_at,
        "measures": watched.measures.to_dict(),
        "findings": [finding.to_dict() for finding in watched.findings],
    }
    same = (measures.c.dataset == dataset) & (measures.c.batch_id == watched.batch_id)
    with ledger.transaction(write=True) as connection:
        connection.execute(sa.delete(measures).where(same))
        connection.execute(sa.insert(measures).values(row))


def one(ledger: Ledger, dataset: str, batch_id: str) -> Watched | None:
    """Return a batch's row; None where it was never measured."""
    found = _read(ledger, (measures.c.dataset == dataset) & (measures.c.batch_id == batch_id), 1)
    return found[0] if found else None


def judge_again(ledger: Ledger, dataset: str, watched: Watched) -> bool:
    """Write a batch's new judgement unless it was measured again meanwhile; return whether it was written."""
    same = (measures.c.dataset == dataset) & (measures.c.batch_id == watched.batch_id)
    as_known = same & (measures.c.measured_at == watched.measured_at)
    judged = {
        "measures": watched.measures.to_dict(),
        "findings": [finding.to_dict() for finding in watched.findings],
    }
    with ledger.transaction(write=True) as connection:
        return connection.execute(sa.update(measures).where(as_known).values(judged)).rowcount == 1


def mark_told(ledger: Ledger, dataset: str, watched: Watched) -> None:
    """Note that people were told of a batch's findings.

    One that is new or worse, because the batch was measured or judged again meanwhile, is still to be told.
    """
    same = (measures.c.dataset == dataset) & (measures.c.batch_id == watched.batch_id)
    with ledger.transaction(write=True) as connection:
        kept = connection.execute(sa.select(measures.c.findings).where(same)).scalar_one_or_none() or []
        found = [Finding.from_dict(finding) for finding in kept]
        fresh = news(found, watched.findings)
        told = [
            (finding | {"told": True}) if one not in fresh else finding
            for finding, one in zip(kept, found, strict=True)
        ]
        connection.execute(sa.update(measures).where(same).values(findings=told))


def before(ledger: Ledger, dataset: str, day: date, batch_id: str) -> list[Watched]:
    """Return the newest batches before one, oldest first."""
    return _read(ledger, (measures.c.dataset == dataset) & _earlier(day, batch_id), MOST_READ)


def ids_before(ledger: Ledger, dataset: str, day: date, batch_id: str) -> list[str]:
    """Return the names of the same batches; newest first."""
    newest_first = (measures.c.day.desc(), measures.c.batch_id.desc())
    return _ids(ledger, dataset, _earlier(day, batch_id), newest_first, MOST_READ)


def ids_after(ledger: Ledger, dataset: str, day: date, batch_id: str, n: int) -> list[str]:
    """Return the next batches after one, oldest first."""
    later = ~_earlier(day, batch_id) & (measures.c.batch_id != batch_id)
    return _ids(ledger, dataset, later, (measures.c.day, measures.c.batch_id), n)


def _earlier(day: date, batch_id: str) -> sa.ColumnElement[bool]:
    same_day = (measures.c.day == day.isoformat()) & (measures.c.batch_id < batch_id)
    return (measures.c.day < day.isoformat()) | same_day


def _ids(
    ledger: Ledger, dataset: str, condition: sa.ColumnElement[bool], order: tuple[Any, ...], most: int
) -> list[str]:
    query = sa.select(measures.c.batch_id).where(measures.c.dataset == dataset, condition)
    with ledger.transaction() as connection:
        return list(connection.execute(query.order_by(*order).limit(most)).scalars())


def findings(ledger: Ledger, dataset: str, batch_ids: Sequence[str]) -> dict[str, list[Finding]]:
    """Return the findings on batches, by batch_id; those that were never measured are left out."""
    query = sa.select(measures.c.batch_id, measures.c.findings).where(
        measures.c.dataset == dataset, measures.c.batch_id.in_(batch_ids)
    )
    with ledger.transaction() as connection:
        return {
            batch_id: [Finding.from_dict(finding) for finding in found]
            for batch_id, found in connection.execute(query.order_by(measures.c.batch_id))
        }


def newest(ledger: Ledger, dataset: str, n: int = 1, *, strays: bool = True) -> list[Watched]:
    """Return the newest batches, oldest first.

    strays: include those of other periods than their delivery's. Rows from before a batch's day was capped at
    its reading may be dated in the future, and are left out.
    """
    until_today = measures.c.day <= datetime.now(UTC).date().isoformat()
    wanted = (measures.c.dataset == dataset) & until_today
    if not strays:
        wanted &= ~measures.c.batch_id.regexp_match(f"_{UNDATED}$")
    return _read(ledger, wanted, n)


def measured(ledger: Ledger, dataset: str, batch_ids: Sequence[str]) -> list[Watched]:
    """Return these batches, oldest first; those that were never measured are left out."""
    wanted = (measures.c.dataset == dataset) & measures.c.batch_id.in_(batch_ids)
    return _read(ledger, wanted, len(batch_ids))


def _read(ledger: Ledger, condition: sa.ColumnElement[bool], most: int) -> list[Watched]:
    newest_first = (measures.c.day.desc(), measures.c.batch_id.desc())
    query = sa.select(measures).where(condition).order_by(*newest_first).limit(most)
    with ledger.transaction() as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    return [_watched(row) for row in reversed(rows)]


def _watched(row: dict[str, Any]) -> Watched:
    return Watched(
        batch_id=row["batch_id"],
        day=date.fromisoformat(row["day"]),
        measures=Measures.from_dict(row["measures"]),
        findings=tuple(Finding.from_dict(finding) for finding in row["findings"]),
        model_version=row["model_version"],
        measured_at=row["measured_at"],
    )
