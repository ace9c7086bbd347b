"""How reviewers work: whether they agree, who judged how much, how long a record waits for its first verdict.

Belongs here: what is read from the verdicts themselves. Does not: counts of records (statistics.py), or what
a verdict does (judging.py).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from pipeline.records.verdicts import WITHDRAWN
from pipeline.review.estimates import Share, share_of
from pipeline.review.filters import Datasets, of
from pipeline.storage.review_schema import scorings, verdicts

RECENT = 90  # days of verdicts that are read
MOST_WAITS = 5000  # first verdicts, the newest ones, that the time to verdict is taken from


def _counting(dataset: Datasets) -> sa.Select[Any]:
    """Select the verdicts of the last RECENT days that nobody took back."""
    since = datetime.now(UTC) - timedelta(days=RECENT)
    recent = _holds(verdicts) & (verdicts.c.decided_at >= since)
    query: sa.Select[Any] = of(sa.select(verdicts).where(recent), verdicts, dataset)
    return query


def _holds(said: sa.FromClause) -> sa.ColumnElement[bool]:
    """Return the condition that a row of `verdicts` is an opinion that nobody took back."""
    withdrawn = sa.select(verdicts.c.withdraws).where(verdicts.c.withdraws.is_not(None))
    held: sa.ColumnElement[bool] = (said.c.verdict != WITHDRAWN) & said.c.number.not_in(withdrawn)
    return held


def agreement(connection: sa.Connection, dataset: Datasets) -> Share:
    """Return how many records two or more people judged, and on how many their last words agree.

    A verdict that settled a disagreement is no opinion on it. Most records have one verdict: those with more
    are looked for first, in an index alone.
    """
    names = (verdicts.c.dataset, verdicts.c.anomaly_id)
    again = of(sa.select(*names), verdicts, dataset).group_by(*names).having(sa.func.count() > 1).subquery()
    same_record = sa.and_(*(column == again.c[column.name] for column in names))
    lasts = (
        _counting(dataset)
        .join(again, same_record)
        .where(~verdicts.c.settles)
        .with_only_columns(sa.func.max(verdicts.c.number).label("number"))
        .group_by(*names, verdicts.c.by)
        .subquery()
    )
    agree = sa.case((sa.func.min(verdicts.c.verdict) == sa.func.max(verdicts.c.verdict), 1), else_=0)
    said = (
        sa
        .select(agree.label("agree"))
        .join(lasts, lasts.c.number == verdicts.c.number)
        .group_by(*names)
        .having(sa.func.count() > 1)
        .subquery()
    )
    n, hits = connection.execute(sa.select(sa.func.count(), sa.func.sum(said.c.agree))).one()
    return share_of(int(hits or 0), int(n))


def judged(connection: sa.Connection, dataset: Datasets) -> dict[str, int]:
    n = sa.func.count(verdicts.c.anomaly_id.distinct())
    query = _counting(dataset).with_only_columns(verdicts.c.by, n).group_by(verdicts.c.by)
    return {by: int(n) for by, n in connection.execute(query.order_by(n.desc(), verdicts.c.by))}


def waits(connection: sa.Connection, dataset: Datasets) -> list[float]:
    """Return the hours from first scoring to the first verdict that holds, for those given in RECENT days."""
    same = (scorings.c.dataset == verdicts.c.dataset) & (scorings.c.anomaly_id == verdicts.c.anomaly_id)
    scored_at = sa.select(sa.func.min(scorings.c.scored_at)).where(same).scalar_subquery()
    earlier = verdicts.alias()
    before = sa.exists().where(
        earlier.c.dataset == verdicts.c.dataset,
        earlier.c.anomaly_id == verdicts.c.anomaly_id,
        earlier.c.number < verdicts.c.number,
        _holds(earlier),
    )
    waited: sa.ColumnElement[float] = Hours(scored_at, verdicts.c.decided_at)
    firsts = _counting(dataset).where(~before).with_only_columns(waited)
    newest = connection.execute(firsts.order_by(verdicts.c.number.desc()).limit(MOST_WAITS)).scalars()
    return [float(gap) for gap in newest if gap is not None and gap >= 0]


class Hours(FunctionElement[float]):
    """The time between two instants, computed by the database: parsing thousands of texts here is slow."""

    inherit_cache = True


@compiles(Hours)
def _by_epoch(element: Hours, compiler: Any, **options: Any) -> str:
    since, until = (compiler.process(clause, **options) for clause in element.clauses)
    return f"extract(epoch FROM {until} - {since}) / 3600"


@compiles(Hours, "sqlite")
def _by_day(element: Hours, compiler: Any, **options: Any) -> str:
    since, until = (compiler.process(clause, **options) for clause in element.clauses)
    return f"24 * (julianday({until}) - julianday({since}))"
