"""Who is at a record just now, so that two people do not judge it side by side.

Belongs here: claims, taken, given back and read. Does not: verdicts, which end their givers' claims
(judging.py). A claim ends by itself after CLAIM: one that never ended would lose the record.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from pipeline.errors import ClaimedByAnother, ConfigError, NotReady
from pipeline.records.verdicts import name_fault, name_of
from pipeline.review.filters import chunks, without_nul
from pipeline.review.queued import Claim
from pipeline.storage.ledger import Ledger
from pipeline.storage.review_schema import queue, record_claims

CLAIM = timedelta(minutes=10)


def claim(ledger: Ledger, anomaly_id: str, *, by: str, lasts: timedelta = CLAIM) -> Claim:
    """Claim a record; return who holds the claim, and until when: somebody else, if they were first.

    While the claim lasts, `judging.give` leaves the record out for others, unless they insist.

    Raises:
        NotReady: the record is not in the queue.
        ConfigError: too long a name.
    """
    if fault := name_fault(by):
        raise ConfigError(fault)
    now, this = datetime.now(UTC), without_nul(anomaly_id)
    there = sa.select(queue.c.anomaly_id).where(queue.c.anomaly_id == this)
    mine = record_claims.c.anomaly_id == this
    with ledger.transaction(write=True) as connection:
        if connection.execute(there).first() is None:
            raise NotReady(f"record {this[:60]!r} is not in the queue (scored again since?)")
        connection.execute(sa.delete(record_claims).where(record_claims.c.expires_at <= now))
        held = connection.execute(sa.select(record_claims).where(mine)).one_or_none()
        if held is not None and held.by != by:
            return Claim(held.by, held.expires_at)
        connection.execute(sa.delete(record_claims).where(mine))
        connection.execute(sa.insert(record_claims).values(anomaly_id=this, by=by, expires_at=now + lasts))
    return Claim(by, now + lasts)


def release(ledger: Ledger, anomaly_id: str, *, by: str) -> None:
    """Give a claim back; somebody else's stays."""
    with ledger.transaction(write=True) as connection:
        end(connection, [anomaly_id], {by})


def end(connection: sa.Connection, anomaly_ids: Sequence[str], of: Collection[str]) -> None:
    """End these people's claims on some records.

    Args:
        anomaly_ids: as many as a statement takes.
    """
    theirs = record_claims.c.anomaly_id.in_(anomaly_ids) & record_claims.c.by.in_(of)
    connection.execute(sa.delete(record_claims).where(theirs))


def read(connection: sa.Connection, anomaly_ids: Sequence[str]) -> dict[str, Claim]:
    """Return who is at which of these records, and until when.

    Args:
        anomaly_ids: as many as a statement takes.
    """
    query = sa.select(record_claims).where(
        record_claims.c.anomaly_id.in_(anomaly_ids), record_claims.c.expires_at > datetime.now(UTC)
    )
    return {row.anomaly_id: Claim(row.by, row.expires_at) for row in connection.execute(query)}


def of_others(connection: sa.Connection, rows: Sequence[Any], by: str) -> set[str]:
    """Return which of these records somebody else is at.

    Args:
        rows: of the queue, with anomaly_id, record_key, batch_id and row_number.

    Raises:
        ClaimedByAnother: all of them.
    """
    found: dict[str, Claim] = {}
    for some in chunks(row.anomaly_id for row in rows):
        found |= {name: held for name, held in read(connection, some).items() if held.by != by}
    if found and len(found) == len(rows):
        last = max(found.values(), key=lambda held: held.until)
        others = len({held.by for held in found.values()}) - 1
        who = last.by if not others else f"{last.by} and {others} other{'s' * (others != 1)}"
        name = name_of(rows[0].record_key, rows[0].batch_id, rows[0].row_number)
        what = f"record {name[:60]!r}" if len(rows) == 1 else f"all {len(rows)} records"
        raise ClaimedByAnother(
            f"{who} {'is' if not others else 'are'} at {what} until {last.until:%H:%M} UTC; nothing was written: "
            "wait, or give the verdict anyway"
        )
    return set(found)
