"""What enters the queue, and the counts that are kept of it: one transaction per batch.

Belongs here: rows and tallies, written. Does not: where rows come from (filling.py), or reading them
(queue.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pipeline.records.verdicts import NORMAL, NOT_LEARNED, read_history, standing
from pipeline.review.filters import Unindexed, chunks
from pipeline.storage.ledger import Ledger
from pipeline.storage.review_schema import (
    group_tallies,
    queue,
    queue_batches,
    scorings,
    tallies,
    tally_sums,
    version_tallies,
)

_SUMMED = [column.name for column in tally_sums.c if column.name != "n"]
_TALLIED = [column for column in tallies.c if column.name not in {"n", "suppressed"}]


@dataclass(frozen=True)
class QueueBatch:
    """What the queue holds of a batch, as one model version scored it.

    Attributes:
        told: whether its digest went out, or need not.
    """

    dataset: str
    batch_id: str
    day: str
    model_version: int
    scored_at: datetime
    n_flagged: int
    n_unflagged: int
    n_sampled: int
    n_suppressed: int
    told: bool = True


def replace_batch(
    connection: sa.Connection,
    batch: QueueBatch,
    rows: Iterable[dict[str, Any]],
    cleared: Sequence[dict[str, Any]] = (),
) -> None:
    """Replace the rows that the queue holds of a batch, all of them or none.

    What was judged stays: a row that is no longer flagged is kept as `cleared`, with its verdicts.

    Args:
        connection: a writing transaction, in which the rules that hide some of the rows were read.
        rows: columns of the table `queue` but for state, reviewer and decided_at, which follow from verdicts.
        cleared: columns of the table `scorings`, of judged records that this version does not flag.
    """
    mine = (queue.c.dataset == batch.dataset) & (queue.c.batch_id == batch.batch_id)
    kept = set(
        connection.execute(sa.select(queue.c.anomaly_id).where(mine, queue.c.state != "open")).scalars()
    )
    connection.execute(sa.delete(queue).where(mine, queue.c.state == "open"))
    connection.execute(sa.update(queue).where(mine).values(kind="cleared", suppressed=0))
    since = _take_scorings(connection, batch)
    for chunk in chunks(rows):
        _put(connection, batch, chunk, kept, since)
    if cleared:
        connection.execute(sa.insert(scorings), [_waiting(row, since) for row in cleared])
    same = (queue_batches.c.dataset == batch.dataset) & (queue_batches.c.batch_id == batch.batch_id)
    connection.execute(sa.delete(queue_batches).where(same))
    connection.execute(sa.insert(queue_batches).values(asdict(batch)))
    retally(connection, batch.dataset, [batch.batch_id])


def _take_scorings(connection: sa.Connection, batch: QueueBatch) -> dict[str, datetime]:
    """Delete what this version said of the batch's records; return when it first scored each of them."""
    mine = (scorings.c.dataset == batch.dataset) & (scorings.c.batch_id == batch.batch_id)
    mine &= scorings.c.model_version == batch.model_version
    columns = (scorings.c.anomaly_id, scorings.c.scored_at)
    since = {row.anomaly_id: row.scored_at for row in connection.execute(sa.select(*columns).where(mine))}
    connection.execute(sa.delete(scorings).where(mine))
    return since


def _waiting(row: dict[str, Any], since: Mapping[str, datetime]) -> dict[str, Any]:
    """Return a row of `scorings` with the first time that it was scored: people wait since then."""
    return row | {"scored_at": min(row["scored_at"], since.get(row["anomaly_id"], row["scored_at"]))}


def _put(
    connection: sa.Connection,
    batch: QueueBatch,
    rows: list[dict[str, Any]],
    kept: set[str],
    since: Mapping[str, datetime],
) -> None:
    ids = [row["anomaly_id"] for row in rows]
    if again := [anomaly_id for anomaly_id in ids if anomaly_id in kept]:
        connection.execute(sa.delete(queue).where(queue.c.anomaly_id.in_(again)))
    given = read_history(connection, batch.dataset, ids)
    stand = [row | stands(given.get(row["anomaly_id"], [])) for row in rows]
    # no rule hides a verdict
    seen = [row if row["state"] == "open" else row | {"suppressed": 0} for row in stand]
    connection.execute(sa.insert(queue), seen)
    words = ("dataset", "anomaly_id", "model_version", "batch_id", "kind", "severity", "anomaly_score", "threshold", "scored_at")  # fmt: skip
    connection.execute(
        sa.insert(scorings), [_waiting({name: row[name] for name in words}, since) for row in rows]
    )


def stands(entries: Sequence[Any]) -> dict[str, Any]:
    """Return the columns of the queue that follow from a record's verdicts."""
    found = standing(entries)
    newest = found.newest
    return {
        "state": found.state,
        "reviewer": newest.by if newest else "",
        "decided_at": newest.decided_at if newest else None,
    }


def retally(connection: sa.Connection, dataset: str, batch_ids: Iterable[str]) -> None:
    """Count some batches' rows anew, and update the sums.

    Counting what is there cannot drift away from it, as adding and subtracting one by one can.
    """
    change: Counter[tuple[Any, ...]] = Counter()
    for batch_id in sorted(set(batch_ids)):
        mine = (tallies.c.dataset == dataset) & (tallies.c.batch_id == batch_id)
        change.subtract(_summed(connection, mine))
        connection.execute(sa.delete(tallies).where(mine))
        hidden = sa.case((queue.c.suppressed != 0, sa.true()), else_=sa.false())
        columns = [*(queue.c[column.name] for column in _TALLIED), hidden]
        rows = (queue.c.dataset == dataset) & (queue.c.batch_id == batch_id)
        counted = sa.select(*columns, sa.func.count()).where(rows).group_by(*columns)
        names = [*(column.name for column in _TALLIED), "suppressed", "n"]
        connection.execute(sa.insert(tallies).from_select(names, counted))
        _regroup(connection, dataset, batch_id)
        _count_versions(connection, dataset, batch_id)
        change.update(_summed(connection, mine))
    for key, by in sorted(change.items()):
        if by:
            _add(connection, dict(zip(_SUMMED, key, strict=True)), by)


def _regroup(connection: sa.Connection, dataset: str, batch_id: str) -> None:
    same = (group_tallies.c.dataset == dataset) & (group_tallies.c.batch_id == batch_id)
    connection.execute(sa.delete(group_tallies).where(same))
    columns = [queue.c[name] for name in ("dataset", "batch_id", "day", "signature", "state")]
    in_sight = (queue.c.kind == "flagged") & (queue.c.suppressed == 0)
    mine = (queue.c.dataset == dataset) & (queue.c.batch_id == batch_id) & in_sight
    counted = sa.select(*columns, sa.func.count(), sa.func.max(queue.c.severity)).where(mine)
    names = [*(column.name for column in columns), "n", "severest"]
    connection.execute(sa.insert(group_tallies).from_select(names, counted.group_by(*columns)))


def _count_versions(connection: sa.Connection, dataset: str, batch_id: str) -> None:
    """Count anew, per version and signature, how many records that it flagged in a batch were judged, and
    confirmed.
    """
    same = (version_tallies.c.dataset == dataset) & (version_tallies.c.batch_id == batch_id)
    connection.execute(sa.delete(version_tallies).where(same))
    hits = sa.func.sum(sa.case((queue.c.state.in_(NOT_LEARNED), 1), else_=0))
    columns = [*(scorings.c[name] for name in ("dataset", "batch_id", "model_version")), queue.c.signature]
    counted = (
        sa
        .select(*columns, sa.func.count(), hits)
        .join_from(scorings, queue, queue.c.anomaly_id == scorings.c.anomaly_id)
        .where(scorings.c.dataset == dataset, scorings.c.batch_id == batch_id)
        .where(Unindexed(scorings.c.kind) == "flagged")  # makes SQLite begin with the batch
        .where(Unindexed(queue.c.state).in_([*NOT_LEARNED, *NORMAL]))
        .group_by(*columns)
    )
    names = [*(column.name for column in columns), "n_judged", "n_hits"]
    connection.execute(sa.insert(version_tallies).from_select(names, counted))


def _summed(connection: sa.Connection, mine: sa.ColumnElement[bool]) -> dict[tuple[Any, ...], int]:
    columns = [tallies.c[name] for name in _SUMMED]
    query = sa.select(*columns, sa.func.sum(tallies.c.n)).where(mine).group_by(*columns)
    return {tuple(key): int(n) for *key, n in connection.execute(query)}


def _add(connection: sa.Connection, key: Mapping[str, Any], by: int) -> None:
    same = sa.and_(*(tally_sums.c[name] == value for name, value in key.items()))
    added = connection.execute(sa.update(tally_sums).where(same).values(n=tally_sums.c.n + by))
    if not added.rowcount:
        connection.execute(sa.insert(tally_sums).values(**key, n=by))


def judged_keys(ledger: Ledger, dataset: str, batch_id: str) -> dict[str, str]:
    """Return record_key by anomaly_id, for the records of a batch that somebody judged."""
    query = sa.select(queue.c.anomaly_id, queue.c.record_key).where(
        queue.c.dataset == dataset, queue.c.batch_id == batch_id, queue.c.state != "open"
    )
    with ledger.transaction() as connection:
        return {row.anomaly_id: row.record_key for row in connection.execute(query)}


def held(ledger: Ledger, dataset: str) -> dict[str, QueueBatch]:
    """Return the batches that the queue holds, by batch_id."""
    query = sa.select(queue_batches).where(queue_batches.c.dataset == dataset)
    names = [field.name for field in fields(QueueBatch)]
    with ledger.transaction() as connection:
        found = [
            QueueBatch(**{name: getattr(row, name) for name in names}) for row in connection.execute(query)
        ]
    return {batch.batch_id: batch for batch in found}


def flagged_since(ledger: Ledger, dataset: str, since: datetime) -> int:
    """Count the flagged records that no rule hides, of the batches scored since then."""
    b = queue_batches.c
    query = sa.select(sa.func.coalesce(sa.func.sum(b.n_flagged - b.n_suppressed), 0))
    with ledger.transaction() as connection:
        return int(connection.execute(query.where(b.dataset == dataset, b.scored_at > since)).scalar_one())


def take_untold(ledger: Ledger, dataset: str, among: Iterable[str]) -> list[str]:
    """Return which of these batches nobody was told of, in order, and count them as told from now on.

    So of two processes only one tells.
    """
    mine = (queue_batches.c.dataset == dataset) & ~queue_batches.c.told
    query = sa.select(queue_batches.c.batch_id).where(mine).order_by(queue_batches.c.batch_id)
    wanted = set(among)
    with ledger.transaction(write=True) as connection:
        untold = [batch_id for batch_id in connection.execute(query).scalars() if batch_id in wanted]
        for some in chunks(untold):
            these = queue_batches.c.batch_id.in_(some)
            connection.execute(sa.update(queue_batches).where(mine, these).values(told=True))
    return untold
