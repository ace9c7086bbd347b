"""Rules that keep known oddities out of sight until a day.

Belongs here: what a rule hides, and which rules there are. Does not: whether its words fit the dataset
(rule_words.py), how much it hides (effects.py), or the queue's pages (queue.py). A hidden record stays in
every table and is counted; it is not learned as normal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field

from pipeline.errors import ConfigError, NotReady
from pipeline.records.verdicts import name_fault
from pipeline.review.filters import CHUNK, chunks, without_nul
from pipeline.review.intake import retally
from pipeline.storage.ledger import Ledger
from pipeline.storage.review_schema import queue, queue_batches, suppressions, tally_sums

LONGEST = 366  # days that a rule may hold


@dataclass(frozen=True)
class Rule:
    """Hide flagged records of one signature whose columns have these values, up to a day; then they come
    back.
    """

    dataset: str
    signature: Annotated[str, Field(description="as records have it; empty: any")]
    conditions: Annotated[Mapping[str, str], Field(description="column → value as text; all must hold")]
    ends_on: Annotated[str, Field(description="the last day")]
    note: Annotated[str, Field(description="what is known about these")]
    by: str
    number: int = 0
    made_at: datetime | None = None
    ended_by: str | None = None
    ended_at: datetime | None = None

    def hides(self, signature: str, record: Mapping[str, Any]) -> bool:
        same = not self.signature or signature == self.signature
        return same and all(as_text(record.get(name)) == value for name, value in self.conditions.items())


def as_text(value: Any) -> str:
    """Return a value as rules compare it."""
    return "missing" if value is None else str(value)


def conditions(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return columns and their values as a person gives them; an empty pair is ignored.

    Raises:
        ConfigError: a column is given two values, which no record has; or a value has no column.
    """
    found: dict[str, str] = {}
    for name, value in pairs:
        if value and not name:
            raise ConfigError(f"suppression rule: value {value!r} has no column: say which")
        if name and found.setdefault(name, value) != value:
            raise ConfigError(
                f"suppression rule: column {name!r} is given two values, {found[name]!r} and {value!r}: all conditions "
                "must hold at once; make a rule for each"
            )
    return found


def check(rule: Rule) -> None:
    """Refuse a rule that hides everything, gives no reason, has too long a name, or never ends.

    Raises:
        ConfigError: with every fault.
    """
    faults = []
    if not rule.signature and not rule.conditions:
        faults.append("it would hide everything: give a signature or a condition")
    if not rule.note.strip():
        faults.append("it needs a note that says why")
    _refuse([*faults, *filter(None, [name_fault(rule.by)]), *_day_faults(rule.ends_on)])


def check_last_day(rule: Rule) -> None:
    """Refuse a last day that is no day, has passed, or is too far off.

    Raises:
        ConfigError: it is one of these.
    """
    _refuse(_day_faults(rule.ends_on))


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise ConfigError("suppression rule: " + "; ".join(faults))


def _day_faults(ends_on: str) -> list[str]:
    try:
        days = (date.fromisoformat(ends_on) - datetime.now(UTC).date()).days
    except ValueError:
        return [f"{ends_on!r} is not a day like 2026-12-31"]
    return (
        []
        if 0 <= days <= LONGEST
        else [f"its last day must lie within {LONGEST} days from today, is {ends_on}"]
    )


def save(ledger: Ledger, rule: Rule) -> Rule:
    """Save a rule, and hide what it matches among the open records; all of it or nothing.

    A rule that is sent twice is saved once: the answer is the one in force that the same person gave in the
    same words.

    Raises:
        ConfigError: see `check`.
    """
    check(rule)
    said = replace(
        rule,
        signature=without_nul(rule.signature),
        conditions=dict(rule.conditions),
        note=without_nul(rule.note),
        number=0,
        made_at=None,
        ended_by=None,
        ended_at=None,
    )
    with ledger.transaction() as connection:  # the long search; it blocks no writer
        known = _fills(connection, said.dataset)
        found = _matches(connection, said, sa.true())
    with ledger.transaction(write=True) as connection:
        for one in _in_force(connection, said.dataset):
            if replace(one, number=0, made_at=None) == said:
                return one
        kept = _insert(connection, said)
        now = _fills(connection, said.dataset)
        since = [batch_id for batch_id, fill in now.items() if known.get(batch_id) != fill]
        hit = {name: batch_id for name, batch_id in found.items() if batch_id not in since}
        for some in chunks(since):
            hit |= _matches(connection, kept, queue.c.batch_id.in_(some))
        in_sight = (queue.c.state == "open") & (queue.c.suppressed == 0)
        for ids in chunks(hit):
            these = queue.c.anomaly_id.in_(ids) & in_sight
            connection.execute(sa.update(queue).where(these).values(suppressed=kept.number))
        retally(connection, kept.dataset, hit.values())
    return kept


def _fills(connection: sa.Connection, dataset: str) -> dict[str, Any]:
    """Return, by batch, what changes whenever its records are put into the queue anew."""
    b = queue_batches.c
    query = sa.select(b.batch_id, b.model_version, b.scored_at, b.n_flagged).where(b.dataset == dataset)
    return {row.batch_id: tuple(row) for row in connection.execute(query)}


def _matches(connection: sa.Connection, rule: Rule, among: sa.ColumnElement[bool]) -> dict[str, str]:
    return {row.anomaly_id: row.batch_id for row in matching(connection, rule, among)}


def _insert(connection: sa.Connection, rule: Rule) -> Rule:
    names = ("dataset", "signature", "ends_on", "note", "by")
    values = {name: getattr(rule, name) for name in names} | {"conditions": json.dumps(rule.conditions)}
    made_at = datetime.now(UTC)
    key = connection.execute(sa.insert(suppressions).values(**values, made_at=made_at)).inserted_primary_key
    assert key is not None  # noqa: S101  # SQLAlchemy gives it for one row
    return replace(rule, number=key[0], made_at=made_at)


def end(ledger: Ledger, number: int, *, by: str) -> int:
    """End a rule now; return how many records come back to the queue, as no other rule hides them.

    Raises:
        NotReady: there is no such rule, or it was ended before.
        ConfigError: too long a name.
    """
    _refuse([*filter(None, [name_fault(by)])])
    this = (suppressions.c.number == number) & suppressions.c.lifted_at.is_(None)
    known = 0 < number < 2**31  # what the column holds
    with ledger.transaction(write=True) as connection:
        dataset = (
            connection.execute(sa.select(suppressions.c.dataset).where(this)).scalar_one_or_none()
            if known
            else None
        )
        if dataset is None:
            raise NotReady(
                f"there is no suppression rule {number} in force: `vaewatch review rules list` lists those that are"
            )
        ended = sa.update(suppressions).where(this).values(lifted_by=by, lifted_at=datetime.now(UTC))
        connection.execute(ended)
    return release(ledger, dataset)


def release(ledger: Ledger, dataset: str) -> int:
    """Bring back what rules hid that were ended or have expired; return how many records.

    A record that another rule in force matches, too, stays hidden, by that rule. If the process is killed,
    the next call goes on: nothing but the rules and the rows say what is left to do.
    """
    hidden = sa.select(sa.func.sum(tally_sums.c.n)).where(
        tally_sums.c.dataset == dataset, tally_sums.c.suppressed
    )
    with ledger.transaction() as connection:
        if not connection.execute(hidden).scalar_one_or_none():
            return 0
    n, after = 0, ""
    while True:
        with ledger.transaction(write=True) as connection:
            holding = _in_force(connection, dataset)
            numbers = [rule.number for rule in holding]
            stale = (queue.c.suppressed != 0) & queue.c.suppressed.not_in(numbers)
            wanted = sa.select(queue.c.anomaly_id, queue.c.batch_id, queue.c.signature, queue.c.record)
            mine = (queue.c.dataset == dataset) & stale & (queue.c.anomaly_id > after)
            rows = connection.execute(wanted.where(mine).order_by(queue.c.anomaly_id).limit(CHUNK)).all()
            if not rows:
                return n
            found = {
                row.anomaly_id: first_match(holding, row.signature, json.loads(row.record)) for row in rows
            }
            connection.execute(
                sa
                .update(queue)
                .where(queue.c.anomaly_id == sa.bindparam("this"))
                .values(suppressed=sa.bindparam("by")),
                [{"this": name, "by": rule.number if rule else 0} for name, rule in found.items()],
            )
            retally(connection, dataset, (row.batch_id for row in rows))
        n, after = n + sum(rule is None for rule in found.values()), rows[-1].anomaly_id


def rules(ledger: Ledger, dataset: str | None = None) -> list[Rule]:
    """Return every rule, newest first, those that were ended included."""
    query = sa.select(suppressions).order_by(suppressions.c.number.desc())
    if dataset is not None:
        query = query.where(suppressions.c.dataset == dataset)
    with ledger.transaction() as connection:
        return [_rule(row) for row in connection.execute(query)]


def _in_force(connection: sa.Connection, dataset: str) -> list[Rule]:
    """Return the rules that hide records today, oldest first."""
    today = datetime.now(UTC).date().isoformat()
    holds = suppressions.c.lifted_at.is_(None) & (suppressions.c.ends_on >= today)
    query = sa.select(suppressions).where(suppressions.c.dataset == dataset, holds)
    return [_rule(row) for row in connection.execute(query.order_by(suppressions.c.number))]


def first_match(rules: Sequence[Rule], signature: str, record: Mapping[str, Any]) -> Rule | None:
    """Return the first of these rules that hides a record."""
    return next((rule for rule in rules if rule.hides(signature, record)), None)


def marked(
    connection: sa.Connection, dataset: str, flagged: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return flagged rows as they enter the queue, each with the rule in force that hides it, or 0."""
    holding = _in_force(connection, dataset)
    if not holding:
        return [*flagged]
    found = [(row, first_match(holding, row["signature"], json.loads(row["record"]))) for row in flagged]
    return [row | {"suppressed": rule.number if rule else 0} for row, rule in found]


def hidden_by(connection: sa.Connection, dataset: str, anomaly_ids: Sequence[str]) -> dict[str, int]:
    """Return which of these flagged records a rule in force hides once they are open: the oldest such rule.

    Args:
        anomaly_ids: as many as a statement takes.
    """
    holding = _in_force(connection, dataset) if anomaly_ids else []
    if not holding:
        return {}
    wanted = sa.select(queue.c.anomaly_id, queue.c.signature, queue.c.record)
    these = queue.c.anomaly_id.in_(anomaly_ids) & (queue.c.kind == "flagged")
    rows = connection.execute(wanted.where(these))
    found = {row.anomaly_id: first_match(holding, row.signature, json.loads(row.record)) for row in rows}
    return {name: rule.number for name, rule in found.items() if rule}


def matching(connection: sa.Connection, rule: Rule, among: sa.ColumnElement[bool]) -> Iterator[Any]:
    """Yield the flagged rows that a rule matches, one by one: their records may be many and large."""
    names = ("anomaly_id", "batch_id", "day", "state", "suppressed", "signature")
    columns = [queue.c[name] for name in names]
    wanted = [queue.c.dataset == rule.dataset, queue.c.kind == "flagged", among]
    if rule.signature:
        wanted.append(queue.c.signature == without_nul(rule.signature))
    if rule.conditions:
        columns.append(queue.c.record)
    query = sa.select(*columns).where(*wanted).execution_options(yield_per=CHUNK)
    for row in connection.execute(query):
        if not rule.conditions or rule.hides(row.signature, json.loads(row.record)):
            yield row


def _rule(row: Any) -> Rule:
    return Rule(
        row.dataset, row.signature, json.loads(row.conditions), row.ends_on, row.note, row.by, row.number,
        row.made_at, row.lifted_by, row.lifted_at,
    )  # fmt: skip
