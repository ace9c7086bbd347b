"""The queue: pages of its rows, and counts of them, by any filter.

Belongs here: the queries. Does not: where rows come from (filling.py), verdicts (judging.py), one record (record.py), groups
of those that are alike (groups.py).

A page of a million rows is quick because of two things: `tallies` says on which days the next rows are that a filter
lets through, so no more than these are looked at, and one index holds every column that a filter or the order reads.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from pipeline.ledger import Ledger
from pipeline.review.schema import queue, queue_batches, record_claims, tallies, tally_sums
from pipeline.verdicts import STATES

Datasets = str | Collection[str] | None  # one, several, or all
Kind = Literal["flagged", "sampled", "cleared"]
BANDS = (0, 2, 3, 4, 6, 10, 16)  # severities that can be asked for: at least …
PAGE = 50
CHUNK = 400  # values a statement: SQLite and PostgreSQL limit its parameters
LOOKED_UP = (
    2000  # rows that a search finds by their key before it looks at the rest in the order of the pages
)
FACETS = ("dataset", "state", "driver", "band", "kind", "model_version", "reviewer")
LISTED = [column for column in queue.c if column.name not in {"record", "record_key", "row_number"}]


@dataclass(frozen=True)
class Filters:
    """Which rows; None lets all through.

    Attributes:
        since, until: days, ISO, both included.
        band: severity at least this; of BANDS.
        search: the beginning of a record's key or anomaly_id.
        suppressed: True for the rows that a rule hides, and for nothing else.
        among: of these datasets only, whatever else is chosen; part of no address.
    """

    dataset: str | None = None
    state: str | None = None
    driver: str | None = None
    band: int | None = None
    kind: str | None = None
    model_version: int | None = None
    reviewer: str | None = None
    since: str | None = None
    until: str | None = None
    batch: str | None = None
    signature: str | None = None
    search: str | None = None
    suppressed: bool = False
    among: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """No database holds the character NUL; the queue has another in its place."""
        for name, value in vars(self).items():
            if isinstance(value, str) and "\0" in value:
                object.__setattr__(self, name, without_nul(value))

    def without(self, *names: str) -> Filters:
        """The same filters, but for these."""
        nothing: dict[str, Any] = dict.fromkeys(names)
        return replace(self, **nothing)

    def chosen(self) -> dict[str, Any]:
        """What was chosen, by name."""
        chosen = {name: value for name, value in asdict(self).items() if name != "among"}
        return {name: value for name, value in chosen.items() if value not in {None, False}}


def without_nul(text: str) -> str:
    """Text as the queue holds it."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def of(query: Any, table: sa.Table, dataset: Datasets) -> Any:
    """A query, of one dataset's rows, or of several's, or of all."""
    if dataset is None:
        return query
    return query.where(
        table.c.dataset == dataset if isinstance(dataset, str) else table.c.dataset.in_(dataset)
    )


class Place(NamedTuple):
    """Where a page ended: the next begins after it."""

    day: str
    severity: float
    anomaly_id: str

    def __str__(self) -> str:
        return f"{self.day}~{self.severity!r}~{self.anomaly_id}"

    @classmethod
    def read(cls, text: str) -> Place:
        """What __str__ wrote.

        Raises:
            ValueError: it did not.
        """
        day, severity, anomaly_id = text.split("~")
        return cls(date.fromisoformat(day).isoformat(), float(severity), without_nul(anomaly_id))


@dataclass(frozen=True)
class Page:
    """Rows in order, and the place after which there are more; None at the end."""

    rows: list[dict[str, Any]]
    more_after: Place | None


def page(ledger: Ledger, filters: Filters, *, after: Place | None = None, limit: int = PAGE) -> Page:
    """The newest day first, on a day the most severe first."""
    with ledger.transaction() as connection:
        chosen = _ids(connection, filters, after, limit + 1)
        newest_first = [column.desc() for column in (queue.c.day, queue.c.severity, queue.c.anomaly_id)]
        these = queue.c.anomaly_id.in_(chosen)
        rows = read_rows(connection, lambda query: query.where(these).order_by(*newest_first))
    if len(rows) <= limit:
        return Page(rows, None)
    shown, last = rows[:limit], rows[limit - 1]
    return Page(shown, Place(last["day"], last["severity"], last["anomaly_id"]))


def _ids(
    connection: sa.Connection, filters: Filters, after: Place | None, n: int, *, upwards: bool = False
) -> list[str]:
    """The next n rows after a place; `upwards`: of newer days, the nearest first."""
    columns = (queue.c.day, queue.c.severity, queue.c.anomaly_id)
    wanted = _conditions(queue, filters)
    if after is not None:
        order, here = sa.tuple_(*columns), sa.tuple_(*map(sa.literal, after))
        wanted.append(order > here if upwards else order < here)
    if filters.search:
        wanted.append(_searched(connection, filters.search))
    elif filters.signature is None:
        days = _days(connection, filters, after, n, upwards=upwards)
        if not days:
            return []
        wanted.append(queue.c.day.in_(days))
    by = columns if upwards else [column.desc() for column in columns]
    query = sa.select(queue.c.anomaly_id).where(*wanted).order_by(*by).limit(n)
    return list(connection.execute(query).scalars())


def _days(
    connection: sa.Connection, filters: Filters, after: Place | None, n: int, *, upwards: bool
) -> list[str]:
    """The days that hold the next n rows, in order."""
    column = tallies.c.day
    query = sa.select(column, sa.func.sum(tallies.c.n)).where(*_conditions(tallies, filters))
    if after is not None:
        query = query.where(column >= after.day if upwards else column <= after.day)
    days, found = [], 0
    by = column.asc() if upwards else column.desc()
    for day, count in connection.execute(query.group_by(column).order_by(by)):
        days.append(day)
        found += 0 if after is not None and day == after.day else count  # of that day some were shown
        if found >= n:
            break
    return days


def _searched(connection: sa.Connection, search: str) -> sa.ColumnElement[bool]:
    """Rows whose key or id begins so: a few are looked up; where there are many, the first ones are near in the order."""
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


def begins(connection: sa.Connection, column: Any, start: str) -> sa.ColumnElement[bool]:
    """Whether a text begins so, whatever either holds.

    On SQLite a range of its index, in the order of code points; PostgreSQL's order is that of some language.
    """
    if connection.dialect.name == "sqlite":
        return sa.and_(column >= start, column < f"{start}\U0010ffff")
    beginning: sa.ColumnElement[bool] = column.startswith(start, autoescape=True)
    return beginning


class Unindexed(FunctionElement[Any]):
    """A column by which SQLite is not to look rows up: it takes one equality for worth more than the order of days."""

    inherit_cache = True


@compiles(Unindexed)
def _as_it_is(element: Unindexed, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(Unindexed, "sqlite")
def _with_plus(element: Unindexed, compiler: Any, **options: Any) -> str:
    return f"+{compiler.process(element.clauses, **options)}"


def _conditions(table: sa.Table, filters: Filters) -> list[sa.ColumnElement[bool]]:
    """What a row of the queue, or of the tallies, must be like; search is not among it."""
    by_order = table is queue and filters.signature is None  # a signature has an index of its own

    def column(name: str) -> Any:
        return Unindexed(table.c[name]) if by_order else table.c[name]

    hidden = column("suppressed") != 0 if table is queue else table.c.suppressed
    conditions: list[sa.ColumnElement[bool]] = [hidden if filters.suppressed else ~hidden]
    equal = ["dataset", "state", "driver", "kind", "model_version", "reviewer"]
    conditions += [column(name) == value for name in equal if (value := getattr(filters, name)) is not None]
    if filters.among is not None:
        conditions.append(column("dataset").in_(filters.among))
    if filters.band is not None:
        conditions.append(column("band") >= filters.band)
    if filters.since is not None:
        conditions.append(table.c.day >= filters.since)
    if filters.until is not None:
        conditions.append(table.c.day <= filters.until)
    if filters.batch is not None:
        conditions.append(column("batch_id") == filters.batch)
    if filters.signature is not None and table is queue:
        conditions.append(queue.c.signature == filters.signature)
    return conditions


def counts(ledger: Ledger, filters: Filters) -> dict[str, dict[Any, int]]:
    """How many rows each choice of each filter would show, the others being as they are.

    A search or a signature is left out of account: they are looked up, not counted. For `band`: at least.
    """
    chosen = {name: getattr(filters, name) for name in FACETS}
    wide = filters.without(*FACETS, "search", "signature")
    table = _counted(wide)
    columns = [table.c[name] for name in FACETS]
    query = sa.select(*columns, sa.func.sum(table.c.n)).where(table.c.n > 0, *_conditions(table, wide))
    found: dict[str, Counter[Any]] = {name: Counter() for name in FACETS}
    with ledger.transaction() as connection:
        rows = connection.execute(query.group_by(*columns)).all()
    for *values, n in rows:
        row = dict(zip(FACETS, values, strict=True))
        fails = {
            name for name, wanted in chosen.items() if wanted is not None and not _lets(name, wanted, row)
        }
        for name in FACETS:
            if not fails - {name}:
                found[name][row[name]] += int(n)  # PostgreSQL sums to a Decimal
    return {name: _in_order(name, counter) for name, counter in found.items()}


def _counted(filters: Filters) -> sa.Table:
    """The smallest table that can count what the filters let through."""
    of_all_batches = filters.since is None and filters.until is None and filters.batch is None
    return tally_sums if of_all_batches else tallies


def _lets(name: str, wanted: Any, row: Mapping[str, Any]) -> bool:
    return bool(row[name] >= wanted) if name == "band" else row[name] == wanted


def _in_order(name: str, counter: Counter[Any]) -> dict[Any, int]:
    if name == "band":
        at_least = {band: sum(n for found, n in counter.items() if found >= band) for band in BANDS}
        return {band: n for band, n in at_least.items() if n}
    if name == "state":
        return {state: counter[state] for state in STATES if counter[state]}
    if name in {"dataset", "model_version"}:
        return dict(sorted(counter.items()))
    return dict(sorted(counter.items(), key=lambda item: (-item[1], str(item[0]))))


def total(ledger: Ledger, filters: Filters) -> int:
    """How many rows the filters let through; a search or a signature is left out of account."""
    table = _counted(filters)
    query = sa.select(sa.func.coalesce(sa.func.sum(table.c.n), 0)).where(*_conditions(table, filters))
    with ledger.transaction() as connection:
        return int(connection.execute(query).scalar_one())


def datasets(ledger: Ledger, anomaly_ids: Sequence[str] | None = None) -> set[str]:
    """The datasets that the queue holds records of, or that these records are of."""
    if anomaly_ids is None:
        queries = [sa.select(tally_sums.c.dataset).distinct()]
    else:
        some = [anomaly_ids[i : i + CHUNK] for i in range(0, len(anomaly_ids), CHUNK)]
        queries = [sa.select(queue.c.dataset).where(queue.c.anomaly_id.in_(ids)).distinct() for ids in some]
    with ledger.transaction() as connection:
        return {name for query in queries for name in connection.execute(query).scalars()}


def newest_day(ledger: Ledger, dataset: Datasets = None) -> str | None:
    """The newest day, up to today, of which the queue holds a batch; a day that is to come is a slip of some clock."""
    today = datetime.now(UTC).date().isoformat()
    newest = sa.select(sa.func.max(queue_batches.c.day)).where(queue_batches.c.day <= today)
    newest = of(newest, queue_batches, dataset)
    with ledger.transaction() as connection:
        found: str | None = connection.execute(newest).scalar_one()
        return found


def members(ledger: Ledger, filters: Filters) -> list[str]:
    """The anomaly_ids of every row that the filters let through, in no particular order."""
    with ledger.transaction() as connection:
        return read_members(connection, filters)


def read_members(connection: sa.Connection, filters: Filters) -> list[str]:
    """The same, inside a transaction of the caller's."""
    query = sa.select(queue.c.anomaly_id).where(*_conditions(queue, filters))
    return list(connection.execute(query).scalars())


def size(ledger: Ledger, filters: Filters) -> int:
    """How many rows these are: counted one by one, so a signature is heeded; a search is not."""
    with ledger.transaction() as connection:
        query = sa.select(sa.func.count()).select_from(queue).where(*_conditions(queue, filters))
        return int(connection.execute(query).scalar_one())


def states(ledger: Ledger, anomaly_ids: Sequence[str]) -> dict[str, Any]:
    """What some records' verdicts come to."""
    query = sa.select(queue.c.anomaly_id, queue.c.state).where(queue.c.anomaly_id.in_(anomaly_ids))
    with ledger.transaction() as connection:
        return {row.anomaly_id: row.state for row in connection.execute(query)}


def beside(ledger: Ledger, filters: Filters, place: Place) -> tuple[str | None, str | None]:
    """The rows before and after a place in the order of the pages; None at an end."""
    with ledger.transaction() as connection:
        before, after = (_ids(connection, filters, place, 1, upwards=upwards) for upwards in (True, False))
    return next(iter(before), None), next(iter(after), None)


def read_claims(connection: sa.Connection, anomaly_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Who is at which of these records, and until when."""
    query = sa.select(record_claims).where(
        record_claims.c.anomaly_id.in_(anomaly_ids), record_claims.c.expires_at > datetime.now(UTC)
    )
    return {row.anomaly_id: {"by": row.by, "until": row.expires_at} for row in connection.execute(query)}


def read_rows(
    connection: sa.Connection, wanted: Callable[[sa.Select[Any]], sa.Select[Any]]
) -> list[dict[str, Any]]:
    """Rows as a list shows them, with who is at each.

    Args:
        wanted: says which rows, and in which order.
    """
    query = sa.select(*LISTED, sa.func.substr(queue.c.record_key, 1, 200).label("record_key"))
    rows = [dict(row._mapping) for row in connection.execute(wanted(query))]
    claims = read_claims(connection, [row["anomaly_id"] for row in rows])
    return [
        row | {"reasons": json.loads(row["reasons"]), "claim": claims.get(row["anomaly_id"])} for row in rows
    ]
