"""Rules that keep known oddities out of sight until a day: drafted from a record, tried before they are saved.

Belongs here: what a rule hides, and what it would have hidden. Does not: the queue's pages (queue.py). A hidden record
stays in every table and is counted; it is not learned as normal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from pipeline.errors import ConfigError, NotReady
from pipeline.ledger import Ledger
from pipeline.review.intake import retally
from pipeline.review.schema import queue, queue_batches, suppressions

LOOK_BACK = 30  # days that a draft is tried on
LONGEST = 366  # days that a rule may hold


@dataclass(frozen=True)
class Rule:
    """Hide flagged records of one signature whose columns have these values, up to a day.

    Attributes:
        signature: as the queue has it; every one where it is empty.
        conditions: column → value, as text; all must hold.
        ends_on: the last day, ISO.
    """

    dataset: str
    signature: str
    conditions: Mapping[str, str]
    ends_on: str
    note: str
    by: str
    number: int = 0
    made_at: datetime | None = None
    lifted_by: str | None = None

    def hides(self, signature: str, record: Mapping[str, Any]) -> bool:
        """Whether a flagged record is out of sight under this rule."""
        same = not self.signature or signature == self.signature
        return same and all(as_text(record.get(name)) == value for name, value in self.conditions.items())


@dataclass(frozen=True)
class Preview:
    """What a rule would have hidden in the last days.

    Attributes:
        n_hidden: flagged records, judged or not.
        n_judged, n_confirmed: of these; confirmed are anomalies and data errors.
        examples: anomaly_ids of confirmed ones first, then others.
    """

    n_hidden: int
    n_judged: int
    n_confirmed: int
    examples: tuple[str, ...]


def as_text(value: Any) -> str:
    """A value as rules compare it."""
    return "missing" if value is None else str(value)


def check(rule: Rule) -> None:
    """Refuse a rule that hides everything, says nothing of why, or never ends.

    Raises:
        ConfigError: with every fault.
    """
    faults = []
    if not rule.signature and not rule.conditions:
        faults.append("it would hide everything: give a signature or a condition")
    if not rule.note.strip():
        faults.append("it needs a note that says why")
    try:
        days = (date.fromisoformat(rule.ends_on) - datetime.now(UTC).date()).days
    except ValueError:
        faults.append(f"{rule.ends_on!r} is not a day like 2026-12-31")
    else:
        if not 0 <= days <= LONGEST:
            faults.append(f"its last day must lie within {LONGEST} days from today, is {rule.ends_on}")
    if faults:
        raise ConfigError("suppression rule: " + "; ".join(faults))


def preview(ledger: Ledger, rule: Rule, *, days: int = LOOK_BACK) -> Preview:
    """Try a rule on the newest days of the queue; nothing is written."""
    with ledger.transaction() as connection:
        newest = sa.select(sa.func.max(queue_batches.c.day)).where(queue_batches.c.dataset == rule.dataset)
        last = connection.execute(newest).scalar_one_or_none()
        if last is None:
            return Preview(0, 0, 0, ())
        since = (date.fromisoformat(last) - timedelta(days=days - 1)).isoformat()
        hit = _matching(connection, rule, since)
    confirmed = [row.anomaly_id for row in hit if row.state in {"anomaly", "data_error"}]
    others = [row.anomaly_id for row in hit if row.anomaly_id not in set(confirmed)]
    n_judged = sum(row.state != "open" for row in hit)
    return Preview(len(hit), n_judged, len(confirmed), tuple([*confirmed, *others][:5]))


def save(ledger: Ledger, rule: Rule) -> Rule:
    """Keep a rule, and hide what it matches among the records that are open now.

    Raises:
        ConfigError: see `check`.
    """
    check(rule)
    values = {
        "dataset": rule.dataset,
        "signature": rule.signature,
        "conditions": json.dumps(dict(rule.conditions)),
        "ends_on": rule.ends_on,
        "note": rule.note,
        "by": rule.by,
        "made_at": datetime.now(UTC),
    }
    with ledger.transaction(write=True) as connection:
        number = connection.execute(sa.insert(suppressions).values(values)).inserted_primary_key
        assert number is not None  # noqa: S101  # SQLAlchemy gives it for one row
        hit = [row for row in _matching(connection, rule, "") if row.state == "open" and not row.suppressed]
        ids = [row.anomaly_id for row in hit]
        for i in range(0, len(ids), 400):
            some = queue.c.anomaly_id.in_(ids[i : i + 400])
            connection.execute(sa.update(queue).where(some).values(suppressed=number[0]))
        retally(connection, rule.dataset, (row.batch_id for row in hit))
    return next(kept for kept in rules(ledger, rule.dataset) if kept.number == number[0])


def lift(ledger: Ledger, number: int, *, by: str) -> int:
    """End a rule now: what it hid comes back to the queue; returns how many records.

    Raises:
        NotReady: there is no such rule, or it was lifted before.
    """
    with ledger.transaction(write=True) as connection:
        this = (suppressions.c.number == number) & suppressions.c.lifted_at.is_(None)
        ended = sa.update(suppressions).where(this).values(lifted_by=by, lifted_at=datetime.now(UTC))
        if not connection.execute(ended).rowcount:
            raise NotReady(f"there is no suppression rule {number} in force")
        hidden = queue.c.suppressed == number
        found = connection.execute(sa.select(queue.c.dataset, queue.c.batch_id).where(hidden)).all()
        connection.execute(sa.update(queue).where(hidden).values(suppressed=0))
        for dataset in {row.dataset for row in found}:
            retally(connection, dataset, (row.batch_id for row in found if row.dataset == dataset))
    return len(found)


def rules(ledger: Ledger, dataset: str | None = None) -> list[Rule]:
    """Every rule, newest first, the lifted ones too."""
    query = sa.select(suppressions).order_by(suppressions.c.number.desc())
    if dataset is not None:
        query = query.where(suppressions.c.dataset == dataset)
    with ledger.transaction() as connection:
        return [_rule(row) for row in connection.execute(query)]


def in_force(ledger: Ledger, dataset: str, day: str) -> list[Rule]:
    """The rules that hide a batch's records, oldest first."""
    found = [rule for rule in rules(ledger, dataset) if rule.lifted_by is None and day <= rule.ends_on]
    return found[::-1]


def first_match(rules: Sequence[Rule], signature: str, record: Mapping[str, Any]) -> Rule | None:
    """The oldest rule that hides a record."""
    return next((rule for rule in rules if rule.hides(signature, record)), None)


def _matching(connection: sa.Connection, rule: Rule, since: str) -> list[Any]:
    columns = (queue.c.anomaly_id, queue.c.batch_id, queue.c.state, queue.c.suppressed, queue.c.signature)
    wanted = [queue.c.dataset == rule.dataset, queue.c.kind == "flagged", queue.c.day >= since]
    wanted.append(queue.c.day <= rule.ends_on)
    if rule.signature:
        wanted.append(queue.c.signature == rule.signature)
    if not rule.conditions:
        return list(connection.execute(sa.select(*columns).where(*wanted)))
    found = connection.execute(sa.select(*columns, queue.c.record).where(*wanted))
    return [row for row in found if rule.hides(row.signature, json.loads(row.record))]


def _rule(row: Any) -> Rule:
    return Rule(
        row.dataset, row.signature, json.loads(row.conditions), row.ends_on, row.note, row.by, row.number,
        row.made_at, row.lifted_by,
    )  # fmt: skip
