"""What people found flagged records to be.

Belongs here: verdicts, append-only, and which records they keep out of training or in it. Does not: the records (tables.py).
A verdict names a record, not a row of a table: it outlives scoring again, another model and another delivery.
Importing this costs nothing: the command line offers the opinions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from pipeline.ledger import Ledger

Opinion = Literal["anomaly", "normal", "expected_change", "data_error", "unsure"]
NOT_LEARNED: tuple[Opinion, ...] = ("anomaly", "data_error")
NORMAL: tuple[Opinion, ...] = ("normal", "expected_change")
JUDGED_NORMAL = "vaewatch judged normal"  # column of training records: people found them to be normal


@dataclass(frozen=True)
class Verdict:
    """One person's word on one record at one time."""

    anomaly_id: str
    batch_id: str
    record_key: str
    verdict: Opinion
    note: str
    by: str
    decided_at: datetime

    @classmethod
    def of(cls, row: Any) -> Self:
        return cls(**{field.name: getattr(row, field.name) for field in fields(cls)})


def give(
    ledger: Ledger, dataset: str, record: dict[str, Any], verdict: Opinion, *, by: str, note: str
) -> Verdict:
    """Add a verdict; earlier ones stay.

    Args:
        record: a flagged record: anomaly_id, batch_id, record_key.
    """
    import sqlalchemy as sa

    from pipeline.ledger import verdicts

    given = Verdict(
        record["anomaly_id"], record["batch_id"], record["record_key"], verdict, note, by, datetime.now(UTC)
    )
    values = {field.name: getattr(given, field.name) for field in fields(given)}
    with ledger.transaction(write=True) as connection:
        connection.execute(sa.insert(verdicts).values(dataset=dataset, **values))
    return given


def history(ledger: Ledger, dataset: str) -> dict[str, list[Verdict]]:
    """Every verdict, oldest first, by anomaly_id."""
    import sqlalchemy as sa

    from pipeline.ledger import verdicts

    query = sa.select(verdicts).where(verdicts.c.dataset == dataset).order_by(verdicts.c.number)
    found: dict[str, list[Verdict]] = {}
    with ledger.transaction() as connection:
        for row in connection.execute(query):
            found.setdefault(row.anomaly_id, []).append(Verdict.of(row))
    return found


def judged(ledger: Ledger, dataset: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(batch_id, record_key), in order, of the records whose newest verdict keeps them out of training, and of the normal ones."""
    newest = [given[-1] for given in history(ledger, dataset).values()]
    odd, normal = (
        sorted((v.batch_id, v.record_key) for v in newest if v.verdict in opinions)
        for opinions in (NOT_LEARNED, NORMAL)
    )
    return odd, normal
