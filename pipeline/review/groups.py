"""Flagged records that are odd alike, gathered: how many there are, and the most severe one to look at.

Belongs here: groups, counted per batch and summed. Does not: pages of records (queue.py).

Records are in one group if their scores come from the same columns in the same directions: their signature. A
batch counts its groups when one of its rows changes (intake.py), so that counting groups never reads the
queue's rows, however many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field

from pipeline.errors import ConfigError
from pipeline.review.filters import Filters, Unindexed, of
from pipeline.review.queue import read_rows
from pipeline.review.queued import Listed
from pipeline.storage.ledger import Ledger
from pipeline.storage.review_schema import group_tallies, queue

PART = ("since", "until", "batch")  # narrows a list of groups, and a verdict on one of them
COUNTED_BY = ("dataset", "state", "signature", *PART)
SHOWN = 30  # groups, the largest ones


@dataclass(frozen=True)
class Group:
    """Records that are odd in the same columns and directions."""

    dataset: str
    signature: str
    n: int
    severest: float
    first_day: str
    last_day: str
    exemplar: Annotated[Listed, Field(description="the most severe of them")]


@dataclass(frozen=True)
class Size:
    """How many groups there are in all, shown or not, and how many records they hold."""

    n_groups: int
    n_records: int


def size(ledger: Ledger, filters: Filters) -> Size:
    """Return how many groups `groups` would give without a limit, and how many records they hold.

    Raises:
        ConfigError: a filter that groups are not counted by.
    """
    _check(filters)
    columns = group_tallies.c
    alike = _wanted(sa.select(sa.func.sum(columns.n).label("n")), filters)
    counted = alike.group_by(columns.dataset, columns.signature).subquery()
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(counted.c.n), 0)).select_from(counted)
    with ledger.transaction() as connection:
        return Size(*map(int, connection.execute(query).one()))


def _check(filters: Filters) -> None:
    if others := filters.chosen().keys() - COUNTED_BY:
        raise ConfigError(
            f"groups are counted by {', '.join(COUNTED_BY)}, not by {', '.join(sorted(others))}"
        )


def groups(ledger: Ledger, filters: Filters, *, limit: int = SHOWN) -> list[Group]:
    """Return the largest groups of flagged records that no rule hides.

    Raises:
        ConfigError: a filter that groups are not counted by.
    """
    _check(filters)
    columns, counted = group_tallies.c, sa.func.sum(group_tallies.c.n)
    most = sa.func.max(columns.severest)
    query = (
        _wanted(
            sa.select(
                columns.dataset,
                columns.signature,
                counted,
                most,
                sa.func.min(columns.day),
                sa.func.max(columns.day),
            ),
            filters,
        )
        .group_by(columns.dataset, columns.signature)
        .order_by(counted.desc(), most.desc(), columns.dataset, columns.signature)
        .limit(limit)
    )
    with ledger.transaction() as connection:
        found = connection.execute(query).all()
        names = [(dataset, signature) for dataset, signature, *_ in found]
        exemplars = _exemplars(connection, filters, names)
    return [
        Group(dataset, signature, int(n), severest, first, last, exemplars[dataset, signature])
        for dataset, signature, n, severest, first, last in found
        if (dataset, signature) in exemplars
    ]


def _wanted(query: Any, filters: Filters) -> Any:
    columns = group_tallies.c
    query = of(of(query, group_tallies, filters.dataset), group_tallies, filters.among)
    equal = {"state": columns.state, "batch": columns.batch_id, "signature": columns.signature}
    for name, column in equal.items():
        if (value := getattr(filters, name)) is not None:
            query = query.where(column == value)
    if filters.since is not None:
        query = query.where(columns.day >= filters.since)
    return query if filters.until is None else query.where(columns.day <= filters.until)


def _exemplars(
    connection: sa.Connection, filters: Filters, groups: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Listed]:
    """Return the most severe record of each group, looked for in one batch alone.

    There is none for a group whose records were judged since they were counted.
    """
    batches = _severest_batches(filters, groups)
    alike = (
        (queue.c.dataset == batches.c.dataset)
        & (queue.c.batch_id == batches.c.batch_id)
        & (Unindexed(queue.c.signature) == batches.c.signature)
    )
    in_sight = [batches.c.place == 1, queue.c.kind == "flagged", queue.c.suppressed == 0]
    if filters.state is not None:
        in_sight.append(Unindexed(queue.c.state) == filters.state)
    most_severe = sa.func.row_number().over(
        partition_by=(queue.c.dataset, queue.c.signature),
        order_by=(queue.c.severity.desc(), queue.c.anomaly_score.desc(), queue.c.anomaly_id.desc()),
    )
    members = sa.select(queue.c.anomaly_id, most_severe.label("place")).select_from(
        batches.join(queue, alike)
    )
    ranked = members.where(*in_sight).subquery()
    chosen = sa.select(ranked.c.anomaly_id).where(ranked.c.place == 1)
    rows = read_rows(connection, lambda query: query.where(queue.c.anomaly_id.in_(chosen)))
    return {(row.dataset, row.signature): row for row in rows}


def _severest_batches(filters: Filters, groups: Sequence[tuple[str, str]]) -> sa.Subquery:
    """Select the batches of these groups; `place` is 1 for the one with a group's most severe record."""
    columns = group_tallies.c
    place = sa.func.row_number().over(
        partition_by=(columns.dataset, columns.signature),
        order_by=(columns.severest.desc(), columns.day.desc(), columns.batch_id),
    )
    these = sa.tuple_(columns.dataset, columns.signature).in_(groups)
    placed = sa.select(columns.dataset, columns.signature, columns.batch_id, place.label("place"))
    found: sa.Subquery = _wanted(placed.where(these), filters).subquery()
    return found
