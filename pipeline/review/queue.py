"""The queue: pages of its rows, and counts of them, by any filter.

Belongs here: the queries. Does not: where rows come from (filling.py), verdicts (judging.py), one record
(record.py), groups of those that are alike (groups.py).

Two things make a page of a million rows quick: `tallies` tells on which days the next matching rows are, so
only these days are read, and one index holds every column that a filter or the order reads.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from pipeline.records.verdicts import STATES, State
from pipeline.review import claims
from pipeline.review.filters import BANDS, Datasets, Filters, Place, Unindexed, begins, chunks, conditions, of
from pipeline.review.queued import Listed, Reason
from pipeline.storage.ledger import Ledger
from pipeline.storage.review_schema import queue, queue_batches, tallies, tally_sums

PAGE = 50
# rows that a search looks up by key; where more match, it goes through them in the order of the pages
LOOKED_UP = 2000
FACETS = ("dataset", "state", "driver", "oddness", "severity", "kind", "model_version", "reviewer")
NOT_LISTED = {"record", "record_key", "key_start", "kl_weight", "terms"}
LISTED = [column for column in queue.c if column.name not in NOT_LISTED]


@dataclass(frozen=True)
class Page:
    """Rows in order, and the place after which there are more; None at the end."""

    rows: list[Listed]
    more_after: Place | None


def page(ledger: Ledger, filters: Filters, *, after: Place | None = None, limit: int = PAGE) -> Page:
    """Return rows, the newest day first, on a day the most severe first.

    Equally severe ones are in the order of the highest score, then of anomaly_id, so that no two rows are
    equal. The random sample by itself is in that of anomaly_id alone, a hash: what has been judged of it by
    then is a random sample, too.
    """
    with ledger.transaction() as connection:
        chosen = _ids(connection, filters, after, limit + 1)
        newest_first = [queue.c[name].desc() for name in _order(filters)]
        these = queue.c.anomaly_id.in_(chosen)
        rows = read_rows(connection, lambda query: query.where(these).order_by(*newest_first))
    if len(rows) <= limit:
        return Page(rows, None)
    shown, last = rows[:limit], rows[limit - 1]
    return Page(shown, Place(last.day, last.severity, last.anomaly_score, last.anomaly_id))


def _order(filters: Filters) -> Sequence[str]:
    """Return the columns that rows are ordered by, all of them downwards."""
    return ("day", "anomaly_id") if filters.kind == "sampled" else Place._fields


def _ids(
    connection: sa.Connection, filters: Filters, after: Place | None, n: int, *, upwards: bool = False
) -> list[str]:
    """Return the ids of the next n rows after a place; with `upwards`, of those before it, nearest first."""
    wanted, names = conditions(queue, filters), _order(filters)
    order = [queue.c[name] for name in names]
    if after is not None:
        now, here = sa.tuple_(*order), sa.tuple_(*(sa.literal(getattr(after, name)) for name in names))
        wanted.append(now > here if upwards else now < here)
    if filters.search:
        wanted.append(_searched(connection, filters.search))
    elif filters.signature is None:
        days = _days(connection, filters, after, n, upwards=upwards)
        if not days:
            return []
        wanted.append(queue.c.day.in_(days))
    by = order if upwards else [column.desc() for column in order]
    query = sa.select(queue.c.anomaly_id).where(*wanted).order_by(*by).limit(n)
    return list(connection.execute(query).scalars())


def _days(
    connection: sa.Connection, filters: Filters, after: Place | None, n: int, *, upwards: bool
) -> list[str]:
    """Return the days that hold the next n rows, in order."""
    column = tallies.c.day
    query = sa.select(column, sa.func.sum(tallies.c.n)).where(*conditions(tallies, filters))
    if after is not None:
        query = query.where(column >= after.day if upwards else column <= after.day)
    days, found = [], 0
    by = column.asc() if upwards else column.desc()
    for day, count in connection.execute(query.group_by(column).order_by(by)):
        days.append(day)
        found += 0 if after is not None and day == after.day else count  # some of that day's rows were shown
        if found >= n:
            break
    return days


def _searched(connection: sa.Connection, search: str) -> sa.ColumnElement[bool]:
    """Return the condition that a row's key or id begins so.

    A few matches are looked up; if there are many, the first ones are soon found in the order of the pages.
    """
    columns = (queue.c.key_start, queue.c.anomaly_id)
    found: list[str] = []
    for column in columns:
        query = sa.select(queue.c.anomaly_id).where(begins(connection, column, search[:120]))
        found += connection.execute(query.limit(LOOKED_UP + 1)).scalars()
    if len(found) <= LOOKED_UP:
        these: sa.ColumnElement[bool] = queue.c.anomaly_id.in_(found)
    else:
        these = sa.or_(*(begins(connection, Unindexed(column), search[:120]) for column in columns))
    whole = sa.func.substr(queue.c.record_key, 1, len(search)) == search
    return these & whole if len(search) > 120 else these


def counts(ledger: Ledger, filters: Filters) -> dict[str, dict[Any, int]]:
    """Count the rows that each choice of each filter would show, the other filters being as they are.

    Only flagged records count, unless another kind is chosen: the open ones wait for a verdict, and the
    random sample is shown beside them, by `kind`. A choice that only records of another kind have is given
    with 0, and so is a chosen one that no record has.

    A search or a signature is ignored: they are looked up, not counted. A `severity` counts what is at least
    so severe.
    """
    wanted, kind = [(name, getattr(filters, name)) for name in FACETS], filters.kind or "flagged"
    wide = filters.without(*FACETS, "search", "signature")
    table = _counted(wide)
    columns = [table.c["band" if name == "severity" else name] for name in FACETS]
    query = sa.select(*columns, sa.func.sum(table.c.n)).where(table.c.n > 0, *conditions(table, wide))
    found: dict[str, Counter[Any]] = {name: Counter() for name in FACETS}
    with ledger.transaction() as connection:
        rows = connection.execute(query.group_by(*columns)).all()
    asked = [(i, name, value) for i, (name, value) in enumerate(wanted) if value is not None]
    counters, at_kind = list(found.values()), FACETS.index("kind")
    for *values, n in rows:
        fails = [i for i, name, value in asked if not _lets(name, value, values[i])]
        if len(fails) < 2:
            is_counted = values[at_kind] == kind
            for i in fails or range(len(FACETS)):
                counters[i][values[i]] += int(n) * (is_counted or i == at_kind)  # a Decimal in PostgreSQL
    return {name: _in_order(name, found[name], value) for name, value in wanted}


def _counted(filters: Filters) -> sa.Table:
    """Return the smallest table that can count what the filters let through."""
    of_all_batches = filters.since is None and filters.until is None and filters.batch is None
    return tally_sums if of_all_batches else tallies


def _lets(name: str, wanted: Any, value: Any) -> bool:
    return bool(value >= wanted) if name == "severity" else value == wanted


def _in_order(name: str, counter: Counter[Any], asked: Any) -> dict[Any, int]:
    if name == "severity":
        at_least = {band: sum(n for found, n in counter.items() if found >= band) for band in BANDS}
        return {band: n for band, n in at_least.items() if n or band == asked}
    if asked is not None:
        counter[asked] += 0
    if name == "state":
        return {state: counter[state] for state in STATES if state in counter}
    if name in {"dataset", "model_version"}:
        return dict(sorted(counter.items()))
    return dict(sorted(counter.items(), key=lambda item: (-item[1], str(item[0]))))


def total(ledger: Ledger, filters: Filters) -> int:
    """Count the rows that the filters let through; a search or a signature is ignored."""
    table = _counted(filters)
    query = sa.select(sa.func.coalesce(sa.func.sum(table.c.n), 0)).where(*conditions(table, filters))
    with ledger.transaction() as connection:
        return int(connection.execute(query).scalar_one())


def datasets(ledger: Ledger, anomaly_ids: Sequence[str] | None = None) -> set[str]:
    """Return the datasets that the queue holds records of, or that these records are of."""
    if anomaly_ids is None:
        queries = [sa.select(tally_sums.c.dataset).where(tally_sums.c.n > 0).distinct()]
    else:
        named = (queue.c.anomaly_id.in_(some) for some in chunks(anomaly_ids))
        queries = [sa.select(queue.c.dataset).where(these).distinct() for these in named]
    with ledger.transaction() as connection:
        return {name for query in queries for name in connection.execute(query).scalars()}


def newest_day(ledger: Ledger, dataset: Datasets = None) -> str | None:
    """Return the newest day with a batch in the queue, up to today: a later one is an error of some clock."""
    today = datetime.now(UTC).date().isoformat()
    newest = sa.select(sa.func.max(queue_batches.c.day)).where(queue_batches.c.day <= today)
    newest = of(newest, queue_batches, dataset)
    with ledger.transaction() as connection:
        found: str | None = connection.execute(newest).scalar_one()
        return found


def newest(ledger: Ledger, filters: Filters, limit: int) -> list[str]:
    """Return the anomaly_ids of the first rows in the order of the pages."""
    with ledger.transaction() as connection:
        return _ids(connection, filters, None, limit)


def members(ledger: Ledger, filters: Filters) -> list[str]:
    """Return the anomaly_ids of every row that the filters let through, in no particular order."""
    with ledger.transaction() as connection:
        return read_members(connection, filters)


def read_members(connection: sa.Connection, filters: Filters) -> list[str]:
    """Return the same as `members`, inside the caller's transaction."""
    query = sa.select(queue.c.anomaly_id).where(*conditions(queue, filters))
    return list(connection.execute(query).scalars())


def size(ledger: Ledger, filters: Filters) -> int:
    """Count rows one by one, so that a signature is heeded; a search is not."""
    with ledger.transaction() as connection:
        query = sa.select(sa.func.count()).select_from(queue).where(*conditions(queue, filters))
        return int(connection.execute(query).scalar_one())


def states(ledger: Ledger, anomaly_ids: Sequence[str]) -> dict[str, State]:
    """Return what some records' verdicts come to; of those in the queue only."""
    with ledger.transaction() as connection:
        return read_states(connection, anomaly_ids)


def read_states(connection: sa.Connection, anomaly_ids: Iterable[str]) -> dict[str, State]:
    """Read them as `states` does, inside the caller's transaction."""
    found: dict[str, State] = {}
    for some in chunks(anomaly_ids):
        these = queue.c.anomaly_id.in_(some)
        rows = connection.execute(sa.select(queue.c.anomaly_id, queue.c.state).where(these))
        found |= {row.anomaly_id: row.state for row in rows}
    return found


def kinds(ledger: Ledger, anomaly_ids: Sequence[str]) -> dict[str, str]:
    """Why some records are in the queue: flagged, sampled or cleared."""
    found: dict[str, str] = {}
    with ledger.transaction() as connection:
        for some in chunks(anomaly_ids):
            these = queue.c.anomaly_id.in_(some)
            rows = connection.execute(sa.select(queue.c.anomaly_id, queue.c.kind).where(these))
            found |= {row.anomaly_id: row.kind for row in rows}
    return found


def beside(ledger: Ledger, filters: Filters, place: Place) -> tuple[str | None, str | None]:
    """Return the rows before and after a place in the order of the pages; None at an end."""
    with ledger.transaction() as connection:
        before, after = (_ids(connection, filters, place, 1, upwards=upwards) for upwards in (True, False))
    return next(iter(before), None), next(iter(after), None)


def read_rows(connection: sa.Connection, wanted: Callable[[sa.Select[Any]], sa.Select[Any]]) -> list[Listed]:
    """Return rows as a list shows them, with who is at each.

    Args:
        wanted: adds to a query which rows, and in which order.
    """
    query = sa.select(*LISTED, sa.func.substr(queue.c.record_key, 1, 200).label("record_key"))
    rows = connection.execute(wanted(query)).all()
    held = claims.read(connection, [row.anomaly_id for row in rows])
    return [
        Listed(**{**row._mapping, "reasons": read_reasons(row), "claim": held.get(row.anomaly_id)})
        for row in rows
    ]


def read_reasons(row: Any) -> tuple[Reason, ...]:
    return tuple(Reason(**reason) for reason in json.loads(row.reasons))
