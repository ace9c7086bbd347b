"""One record of the queue, whole: values, verdicts, what each model version said, and what it stands beside.

Belongs here: looking things up for one record. Does not: lists of records (queue.py), how a column
usually lies (usual.py), or how it is drawn (web/plots.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from pydantic import Field

from pipeline.config.dataset import Dataset
from pipeline.errors import NotReady
from pipeline.installation import Installation
from pipeline.records.verdicts import anomaly_id, name_of, place_of, read_history, standing
from pipeline.review import cells, claims
from pipeline.review.filling import plain
from pipeline.review.filters import begins, without_nul
from pipeline.review.queue import read_reasons
from pipeline.review.queued import Scoring, Term, Whole
from pipeline.storage.ledger import Ledger
from pipeline.storage.review_schema import queue, scorings

NEIGHBOUR_BATCHES = 3  # before and after the record's own
MOST_COMPUTED = 200_000  # records of other batches through which derived columns are computed
MOST_ALIKE = 3  # ids named where several begin alike


def find(ledger: Ledger, beginning: str, dataset: str | None = None) -> str:
    """Return the anomaly_id that begins with these letters.

    Raises:
        NotReady: none in the queue does, or more than one.
    """
    with ledger.transaction() as connection:
        fits = begins(connection, queue.c.anomaly_id, without_nul(beginning))
        query = sa.select(queue.c.anomaly_id).where(fits)
        if dataset is not None:
            query = query.where(queue.c.dataset == dataset)
        found = list(connection.execute(query.limit(MOST_ALIKE + 1)).scalars())
        newest = sa.select(queue.c.anomaly_id).order_by(queue.c.day.desc()).limit(1)
        example = "" if found else connection.execute(newest).scalar_one_or_none()
    if len(found) == 1:
        return str(found[0])
    if found:
        more = ", …" if len(found) > MOST_ALIKE else ""
        alike = f"{', '.join(sorted(found[:MOST_ALIKE]))}{more}; give more of its letters"
        raise NotReady(f"more than one record in the queue has an id that begins with {beginning!r}: {alike}")
    there = f"ids look like {example}; see `vaewatch review list`" if example else "the queue is empty"
    raise NotReady(f"no record in the queue has an id that begins with {beginning!r}; {there}")


def one(ledger: Ledger, anomaly_id: str) -> Whole:
    """Return a record with its verdicts, what they come to, who is at it, and what each version said.

    Raises:
        NotReady: it is not in the queue.
    """
    anomaly_id = without_nul(anomaly_id)
    with ledger.transaction() as connection:
        columns = [column for column in queue.c if column.name != "key_start"]
        asked = sa.select(*columns).where(queue.c.anomaly_id == anomaly_id)
        row = connection.execute(asked).one_or_none()
        if row is None:
            raise NotReady(f"record {anomaly_id!r} is not in the queue; see `vaewatch review list`")
        entries = read_history(connection, row.dataset, [anomaly_id]).get(anomaly_id, [])
        claim = claims.read(connection, [anomaly_id]).get(anomaly_id)
        said = sa.select(scorings).where(
            scorings.c.dataset == row.dataset, scorings.c.anomaly_id == anomaly_id
        )
        versions = connection.execute(said.order_by(scorings.c.model_version)).mappings().all()
    as_read = {
        "reasons": read_reasons(row),
        "terms": tuple(Term(**term) for term in json.loads(row.terms)),
        "record": json.loads(row.record),
    }
    return Whole(
        **{**row._mapping, **as_read},
        claim=claim,
        verdicts=tuple(entries),
        holding=tuple(entry.number for entry in standing(entries).holding),
        versions=tuple(Scoring(**version) for version in versions),
    )


def place(ledger: Ledger, row: Whole) -> str:
    """Say in which file of its delivery a record lies, see `place_of`; empty where the batch is unknown."""
    state = ledger.newest(row.dataset, row.batch_id)
    return place_of(row.row_number, state.files if state else ())


@dataclass(frozen=True)
class Derivation:
    """A derived column that a reason names.

    Attributes:
        observed: its value, as the reason has it: values of derived columns are not stored.
        sql: how it is computed, as the dataset's file has it now.
        sources: the record's own columns that it is computed from.
    """

    column: str
    observed: str
    sql: str
    sources: tuple[str, ...]


def derivations(dataset: Dataset, row: Whole) -> list[Derivation]:
    """Return the derived columns among a record's reasons, the first reason first."""
    return [
        Derivation(name, reason.observed, dataset.derived[name].sql.strip(), tuple(dataset.sources([name])))
        for reason in row.reasons
        if (name := reason.column) in dataset.derived
    ]


@dataclass(frozen=True)
class Neighbour:
    """A record before or after one, or the one itself."""

    batch_id: str
    row_number: int
    record_key: str
    record: dict[str, Any]
    is_this: Annotated[bool, Field(description="the record that was asked about")]
    anomaly_id: Annotated[str | None, Field(description="where it was flagged, too")]
    derived: Annotated[
        dict[str, float | None],
        Field(description="values of the derived columns that the record's reasons name, computed anew"),
    ] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What people know it by, see `name_of`."""
        return name_of(self.record_key, self.batch_id, self.row_number)


@dataclass(frozen=True)
class Neighbours:
    """Records around one, in time."""

    of: Annotated[
        str,
        Field(description="whose they are; empty: the dataset names no entity, so they are its batch's"),
    ]
    rows: Annotated[
        tuple[Neighbour, ...],
        Field(description="in order, the record itself among them"),
    ]
    columns: Annotated[
        tuple[str, ...],
        Field(
            description="of the records, the time and those of the reasons first, derived ones among them, and "
            "those that these are computed from; without those that are the same for all or name a record"
        ),
    ]

    @property
    def before(self) -> Neighbour | None:
        """The one just before it."""
        pairs = zip(self.rows, self.rows[1:], strict=False)
        return next((one for one, following in pairs if following.is_this), None)


def neighbours(here: Installation, dataset: Dataset, row: Whole, *, each_side: int = 3) -> Neighbours:
    """Return the records before and after one, of the same entity; without an entity, those of its batch.

    Raises:
        NotReady: the record is no longer stored as it was scored.
    """
    cells.check_stored(here, dataset, row)
    owner = {name: row.record.get(name) for name in dataset.entity}
    batch_ids = _around(here, dataset, row.batch_id) if owner else [row.batch_id]
    read = cells.read(here, dataset, batch_ids, [*owner, *([dataset.time] if dataset.time else [])])
    pairs = _in_time(read, list(owner.values()), has_time=bool(dataset.time)) if read is not None else []
    this = (row.batch_id, row.row_number)
    if this not in pairs:  # it belongs to another entity by now
        raise cells.not_stored(row)
    at = pairs.index(this)
    chosen = pairs[max(0, at - each_side) : at + each_side + 1]
    of = ", ".join(f"{name} {value}" for name, value in owner.items())
    found = cells.whole(here, dataset, chosen)
    flagged = _flagged(here.ledger, dataset.name, {place: key for place, (key, _) in found.items()})
    derived = _derived(here, dataset, row, list(found))
    rows = tuple(
        Neighbour(*place, key, plain(values), place == this, flagged.get(place), derived.get(place, {}))
        for place, (key, values) in found.items()
    )
    return Neighbours(of, rows, _telling(dataset, row))


def _derived(
    here: Installation, dataset: Dataset, row: Whole, places: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], dict[str, float | None]]:
    """What the derived columns among a record's reasons are of some records: of those of its own batch, and
    of other batches as far as these are not too large to be looked through.
    """
    from pipeline.records.accepted import ROW, AcceptedRecords

    names = [one.column for one in derivations(dataset, row)]
    if not names:
        return {}
    batches, tables, left, found = here.ledger.current(dataset.name), here.tables(dataset), MOST_COMPUTED, {}
    for batch_id in dict.fromkeys([row.batch_id, *(batch_id for batch_id, _ in places)]):
        state = batches.get(batch_id)
        left -= state.n_accepted if state and batch_id != row.batch_id else 0
        if state is None or left < 0:
            break
        wanted = [number for batch, number in places if batch == batch_id]
        with here.scratch(dataset, f"around-{row.anomaly_id}") as scratch:
            source = AcceptedRecords(
                dataset, state, tables, [*batches.values()], names, scratch, here.settings.cores
            )
            for values in source.rows(wanted).to_pylist():
                found[batch_id, values[ROW]] = {name: values[name] for name in names}
    return found


def _flagged(ledger: Ledger, dataset: str, keys: Mapping[tuple[str, int], str]) -> dict[tuple[str, int], str]:
    """Return the anomaly_ids of the flagged ones among these records, by place."""
    names = {anomaly_id(dataset, place[0], key): place for place, key in keys.items()}
    with ledger.transaction() as connection:
        these = queue.c.anomaly_id.in_(names) & (queue.c.kind == "flagged")
        found = connection.execute(sa.select(queue.c.anomaly_id).where(these)).scalars()
        return {names[name]: name for name in found}


def _telling(dataset: Dataset, row: Whole) -> tuple[str, ...]:
    said = {*dataset.key, *dataset.entity}  # shown once, beside the records
    behind = [name for one in row.reasons for name in (one.column, *dataset.sources([one.column]))]
    known = {*row.record, *(one.column for one in derivations(dataset, row))}
    names = dict.fromkeys([dataset.time, *behind, *row.record])
    return tuple(name for name in names if name in known and name not in said)


def _in_time(read: pa.Table, owner: Sequence[Any], *, has_time: bool) -> list[tuple[str, int]]:
    """Return the places of an owner's records, in time.

    Args:
        read: a column for each part of the owner's name, then the time.
    """
    for i, value in enumerate(owner):
        column = read[f"{i}"]
        same = column.is_null() if value is None else pc.equal(pc.cast(column, pa.string()), str(value))
        read = read.filter(same)
    by = [f"{len(owner)}"] if has_time else []
    read = read.take(pc.sort_indices(read, [(name, "ascending") for name in (*by, "batch_id", "row_number")]))
    return list(zip(read["batch_id"].to_pylist(), read["row_number"].to_pylist(), strict=True))


def _around(here: Installation, dataset: Dataset, batch_id: str) -> list[str]:
    known = [state.batch_id for state in here.ledger.current(dataset.name).values() if state.n_accepted]
    if batch_id not in known:
        return [batch_id]
    at = known.index(batch_id)
    return known[max(0, at - NEIGHBOUR_BATCHES) : at + NEIGHBOUR_BATCHES + 1]
