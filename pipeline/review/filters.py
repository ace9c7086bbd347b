"""Questions to the queue: which rows, after which place, and how that is said in SQL.

Belongs here: filters, places, and their conditions in SQL. Does not: an answer (queue.py, groups.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from pipeline.storage.review_schema import queue

T = TypeVar("T")
Datasets = str | Collection[str] | None  # one, several, or all
CHUNK = 400  # values per statement: SQLite and PostgreSQL limit its parameters
BANDS = (0, 2, 3, 4, 6, 10, 16)  # severities that can be asked for: at least …


@dataclass(frozen=True)
class Filters:
    """Which rows; None lets all through.

    Attributes:
        since, until: days, ISO, both included.
        severity: at least, one of BANDS.
        search: the beginning of a record's key or anomaly_id.
        suppressed: True for the rows that a rule hides, and no others; False for the rest.
        among: these datasets only, whatever else is chosen; never part of an address.
    """

    dataset: str | None = None
    state: str | None = None
    driver: str | None = None
    oddness: str | None = None
    severity: int | None = None
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
        """Replace the character NUL as the queue does: no database holds it."""
        for name, value in vars(self).items():
            if isinstance(value, str) and "\0" in value:
                object.__setattr__(self, name, without_nul(value))

    def without(self, *names: str) -> Filters:
        nothing: dict[str, Any] = dict.fromkeys(names)
        return replace(self, **nothing)

    def chosen(self) -> dict[str, Any]:
        chosen = {name: value for name, value in asdict(self).items() if name != "among"}
        return {name: value for name, value in chosen.items() if value not in {None, False}}


def without_nul(text: str) -> str:
    """Return a text as the queue holds it."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def of(query: Any, table: sa.Table, dataset: Datasets) -> Any:
    """Restrict a query to one dataset's rows, or to several's; None leaves it as it is."""
    if dataset is None:
        return query
    return query.where(
        table.c.dataset == dataset if isinstance(dataset, str) else table.c.dataset.in_(dataset)
    )


class Place(NamedTuple):
    """Where a page ended: the next begins after it."""

    day: str
    severity: float
    anomaly_score: float
    anomaly_id: str

    def __str__(self) -> str:
        return f"{self.day}~{self.severity!r}~{self.anomaly_score!r}~{self.anomaly_id}"

    @classmethod
    def read(cls, text: str) -> Place:
        """Read what __str__ wrote.

        Raises:
            ValueError: it did not write this.
        """
        day, severity, score, anomaly_id = text.split("~")
        is_day = date.fromisoformat(day).isoformat()
        return cls(is_day, float(severity), float(score), without_nul(anomaly_id))


def begins(connection: sa.Connection, column: Any, start: str) -> sa.ColumnElement[bool]:
    """Return the condition that a column's text begins so, whatever either holds.

    On SQLite it is a range of the index, in the order of code points; PostgreSQL's order is that of some
    language.
    """
    if connection.dialect.name == "sqlite":
        return sa.and_(column >= start, column < f"{start}\U0010ffff")
    beginning: sa.ColumnElement[bool] = column.startswith(start, autoescape=True)
    return beginning


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield items in parts that fit a statement."""
    rest = iter(items)
    while part := list(islice(rest, CHUNK)):
        yield part


class Unindexed(FunctionElement[Any]):
    """A column that SQLite must not look rows up by: it prefers one equality to the order of days."""

    inherit_cache = True


@compiles(Unindexed)
def _as_it_is(element: Unindexed, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(Unindexed, "sqlite")
def _with_plus(element: Unindexed, compiler: Any, **options: Any) -> str:
    return f"+{compiler.process(element.clauses, **options)}"


def conditions(table: sa.Table, filters: Filters) -> list[sa.ColumnElement[bool]]:
    """Return what a row of the queue, or of the tallies, must fulfil; search is not among it."""
    by_order = table is queue and filters.signature is None  # a signature has an index of its own

    def column(name: str) -> Any:
        return Unindexed(table.c[name]) if by_order else table.c[name]

    hidden = column("suppressed") != 0 if table is queue else table.c.suppressed
    conditions: list[sa.ColumnElement[bool]] = [hidden if filters.suppressed else ~hidden]
    equal = ["dataset", "state", "driver", "oddness", "kind", "model_version", "reviewer"]
    conditions += [column(name) == value for name in equal if (value := getattr(filters, name)) is not None]
    if filters.among is not None:
        conditions.append(column("dataset").in_(filters.among))
    if filters.severity is not None:
        conditions.append(column("band") >= filters.severity)
    if filters.since is not None:
        conditions.append(table.c.day >= filters.since)
    if filters.until is not None:
        conditions.append(table.c.day <= filters.until)
    if filters.batch is not None:
        conditions.append(column("batch_id") == filters.batch)
    if filters.signature is not None and table is queue:
        conditions.append(queue.c.signature == filters.signature)
    return conditions
