"""What to learn from: the accepted records of the newest days, in time order, sampled the same way every
time.

Belongs here: the window, the part that calibrates, and what identifies a training. Does not: the model
(detector.py), where the result goes (registry/), or which records are held out from all of it (holdout.py).
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import derived, holdout, sql
from pipeline.batches import DATE, is_undated
from pipeline.calibration import DAY
from pipeline.config import Dataset
from pipeline.contracts import contract_hash
from pipeline.derived import BATCH, KEY, ROW
from pipeline.errors import NotReady
from pipeline.ledger import BatchState
from pipeline.tables import Tables
from pipeline.verdicts import JUDGED_NORMAL, PLACE

_EPOCH = date(1970, 1, 1)
_ODD, _USUAL = "vaewatch judged odd", "vaewatch in the window"
NOT_OF_THE_MODEL = ("schedule", "deadline_hours", "when")  # settings of `train` that say when, not what


@dataclass(frozen=True)
class Window:
    """Accepted batches to learn from, oldest first.

    Attributes:
        records_per_day: accepted records on the median day that had any.
        fingerprint: of the content: batches, their fingerprints and accepted counts, and what is left out.
        left_out: (batch_id, record_key) of records that people found to be anomalies, in the window or before
            it.
        normal: (batch_id, record_key) of records of the window that people found to be normal.
    """

    batches: tuple[BatchState, ...]
    n_records: int
    records_per_day: float
    fingerprint: str
    left_out: tuple[tuple[str, str], ...] = ()
    normal: tuple[tuple[str, str], ...] = ()

    @property
    def batch_ids(self) -> list[str]:
        return [batch.batch_id for batch in self.batches]

    def newest(self, span: timedelta) -> list[BatchState]:
        """Batches of the newest days."""
        since = age(self.batches[-1])[0] - span
        return [batch for batch in self.batches if age(batch)[0] > since]

    def after(self, batch_id: str) -> tuple[list[BatchState], float]:
        """Batches later than this one, and how many days later the last of them is; all, where it is older
        than the window.
        """
        first = self.batch_ids.index(batch_id) + 1 if batch_id in self.batch_ids else 0
        since = age(self.batches[max(0, first - 1)])[0]
        return list(self.batches[first:]), (age(self.batches[-1])[0] - since).total_seconds() / 86_400

    @property
    def earlier(self) -> list[str]:
        """Batches before the window that anomalies are known of."""
        return sorted({batch_id for batch_id, _ in self.left_out} - set(self.batch_ids))


def choose_window(
    dataset: Dataset,
    batches: Sequence[BatchState],
    anomalies: Sequence[tuple[str, str]] = (),
    normals: Sequence[tuple[str, str]] = (),
) -> Window:
    """The accepted batches of the newest `window_days`, counted back from the newest of them.

    An anomaly that people found stays one when its batch has grown old: it goes on pushing models away. Not
    where columns are
    derived: a batch on its own has nothing to look back to.

    Args:
        anomalies, normals: (batch_id, record_key) of records that people judged, in order.

    Raises:
        NotReady: fewer accepted records than `train.min_records`.
    """
    accepted = sorted((b for b in batches if b.n_accepted and b.status != "refused"), key=age)
    usable = accepted
    if usable:
        since = age(usable[-1])[0] - timedelta(days=dataset.train.window_days)
        usable = [batch for batch in usable if age(batch)[0] > since]
    n_records = sum(batch.n_accepted for batch in usable)
    if n_records < dataset.train.min_records:
        raise NotReady(
            f"{dataset.dataset}: {n_records} accepted records in {len(usable)} batches, train.min_records is "
            f"{dataset.train.min_records}; wait for more batches or lower it"
        )
    days: dict[object, int] = {}
    for batch in usable:
        day = age(batch)[0].date()
        days[day] = days.get(day, 0) + batch.n_accepted
    inside = {batch.batch_id for batch in usable}
    remembered = inside if dataset.derived else {batch.batch_id for batch in accepted}
    left_out = tuple(record for record in anomalies if record[0] in remembered)
    normal = tuple(record for record in normals if record[0] in inside)
    per_day = float(statistics.median(days.values()))
    return Window(tuple(usable), n_records, per_day, fingerprint(usable, left_out, normal), left_out, normal)


def fingerprint(
    batches: Sequence[BatchState], left_out: Sequence[tuple[str, str]], normal: Sequence[tuple[str, str]]
) -> str:
    """Sixty-four hex digits that change with the records that a window teaches."""
    content = "\n".join(f"{b.batch_id}|{b.fingerprint}|{b.n_accepted}" for b in batches)
    content += "".join(f"\nwithout {batch_id}|{key}" for batch_id, key in left_out)
    content += "".join(f"\nnormal {batch_id}|{key}" for batch_id, key in normal)
    return hashlib.sha256(content.encode()).hexdigest()


def training_key(dataset: Dataset, window: Window, code_version: str) -> str:
    """Identifies a training: same key, same data, contract, settings and code."""
    settings = dataset.train.model_dump(mode="json", exclude=set(NOT_OF_THE_MODEL))
    settings |= derived.definitions(dataset) | {"holdout": dataset.promote.holdout}
    parts = [window.fingerprint, contract_hash(dataset), json.dumps(settings, sort_keys=True), code_version]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class WindowRecords:
    """The window's records, one column for each that the model reads.

    Attributes:
        table: in time order, without the anomalies, and the columns DAY and JUDGED_NORMAL.
        anomalies: those that people found to be, with DAY and a column PLACE: how many rows of the table come
            before; −1 where the record would not be among them had nobody judged it.
    """

    table: pa.Table
    anomalies: pa.Table


def amount(dataset: Dataset, window: Window) -> str:
    """How much of a window is learned, in words, before it is read: who is held out depends on each record's
    key.
    """
    n_held = round(window.n_records * dataset.promote.holdout)
    n_learned = min(window.n_records - n_held, dataset.train.max_records)
    said = f"training on about {n_learned} of {window.n_records} records of {len(window.batches)} batches"
    return f"{said}; about {n_held} are kept for comparing versions" if n_held else said


def read_window(
    dataset: Dataset, window: Window, tables: Tables, *, scratch: Path, threads: int
) -> WindowRecords:
    """The window's records without the holdout, sampled down to `train.max_records`.

    A record's key alone decides whether it is sampled. Confirmed anomalies always stay; records judged normal
    are sampled like any other, or false alarms would crowd the calibration.
    """
    files = tables.files("records", [*window.batch_ids, *window.earlier], flag=False)
    learned = window.n_records * (1 - dataset.promote.holdout)
    share = min(1.0, dataset.train.max_records / learned)
    chosen = f"('0x' || left(md5({KEY} || '{dataset.train.seed}'), 8))::BIGINT < {round(share * 2**32)}"
    time = f"{sql.name(dataset.time)}, " if dataset.time else ""
    columns = ", ".join(f"{readable(n, dataset)} AS {sql.name(n)}" for n in holdout.modelled(dataset))
    order = {batch.batch_id: i for i, batch in enumerate(window.batches)}
    position = f"map {{{', '.join(f'{sql.text(b)}: {i}' for b, i in order.items())}}}"
    odd, normal = among(window.left_out), among(window.normal)
    inside = f"{BATCH} IN ({', '.join(map(sql.text, window.batch_ids))})"
    query = f"""SELECT {columns}, {day_of(dataset, window)} AS {sql.name(DAY)},
            {normal} AS {sql.name(JUDGED_NORMAL)}, {odd} AS {sql.name(_ODD)},
            {chosen} AND {inside} AS {sql.name(_USUAL)}
        FROM ({derived.accepted(dataset, files)})
        WHERE NOT ({holdout.below(dataset.promote.holdout)}) AND (({chosen} AND {inside}) OR {odd}) ORDER BY {time}{position}[{BATCH}], {ROW}"""
    scratch.mkdir(parents=True, exist_ok=True)
    with sql.database(scratch, threads=threads, memory_gb=1.2) as connection:
        found = connection.sql(query).to_arrow_table()
    is_odd, is_usual = found[_ODD].to_numpy(), found[_USUAL].to_numpy()
    place = np.where(is_usual, np.cumsum(~is_odd), -1)[is_odd]
    table = found.drop_columns([_ODD, _USUAL])
    anomalies = table.filter(pa.array(is_odd)).drop_columns([JUDGED_NORMAL])
    return WindowRecords(table.filter(pa.array(~is_odd)), anomalies.append_column(PLACE, pa.array(place)))


def day_of(dataset: Dataset, window: Window) -> str:
    """SQL: days since 1970 of a record's own time, else of its batch."""
    days = (f"{sql.text(b.batch_id)}: {(age(b)[0].date() - _EPOCH).days}" for b in window.batches)
    of_batch = f"coalesce(map {{{', '.join(days)}}}[{BATCH}], 0)"
    if not dataset.time:
        return of_batch
    return f"coalesce(floor(epoch({sql.name(dataset.time)}) / 86400), {of_batch})::BIGINT"


def among(records: Sequence[tuple[str, str]]) -> str:
    """SQL: whether a record is one of these (batch_id, record_key)."""
    pairs = ", ".join(f"({sql.text(batch_id)}, {sql.text(key)})" for batch_id, key in records)
    return f"(({BATCH}, {KEY}) IN ({pairs}))" if pairs else "false"


def readable(name: str, dataset: Dataset) -> str:
    """SQL: a column as the model reads it."""
    value = sql.name(name)
    return f"CAST({value} AS DOUBLE)" if dataset.with_derived[name].type.startswith("decimal") else value


def split_calibration(dataset: Dataset, table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Training records and, after them in time, those to calibrate on."""
    n_training = table.num_rows - round(table.num_rows * dataset.train.calibration)
    return table.slice(0, n_training), table.slice(n_training)


def age(batch: BatchState) -> tuple[datetime, str]:
    """When a batch's newest record happened, as well as is known, and its name: the order of batches in
    time.
    """
    return batch.newest_record_at or _named_day(batch.batch_id) or batch.validated_at, batch.batch_id


def _named_day(batch_id: str) -> datetime | None:
    named = DATE.search(batch_id) if is_undated(batch_id) else None  # which has no day, but its delivery's
    day = "-".join(part or "01" for part in named.groups()) if named else batch_id[:10]
    try:
        return datetime.fromisoformat(day).replace(tzinfo=UTC)
    except ValueError:
        return None
