"""Which batches a training or an evaluation reads, and in SQL, which of their records.

Belongs here: the window, the order of batches in time, what a record's day is. Does not: reading the records
(training/training_set.py, holdout.py).
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

from pipeline import sql
from pipeline.config.contracts import AHEAD
from pipeline.config.dataset import Dataset
from pipeline.config.derived import BATCH, KEY
from pipeline.errors import NotReady
from pipeline.incoming.batches import is_undated, named_day
from pipeline.storage.ledger import BatchState

SPAN, WITHOUT = "window", "window_without"  # tags of a version: "first..last", and what of it was left out
DAY = "vaewatch day"  # column of learned or held-out records: a number for the day of each
_EPOCH = date(1970, 1, 1)
_DAY = "floor(epoch({}) / 86400)"


@dataclass(frozen=True)
class Window:
    """Accepted batches to learn from, oldest first.

    Attributes:
        records_per_day: accepted records on the median day that had any.
        fingerprint: of the content: batches, their fingerprints and accepted counts, and verdicts.
        left_out: (batch_id, record_key) of records that people found to be anomalies, in the window or before
            it.
        normal: (batch_id, record_key) of records of the window that people found to be normal.
        without: batches between the first and the last that `train.leave_out` names.
    """

    batches: tuple[BatchState, ...]
    n_records: int
    records_per_day: float
    fingerprint: str
    left_out: tuple[tuple[str, str], ...] = ()
    normal: tuple[tuple[str, str], ...] = ()
    without: tuple[str, ...] = ()

    @property
    def batch_ids(self) -> list[str]:
        return [batch.batch_id for batch in self.batches]

    def newest(self, span: timedelta) -> list[BatchState]:
        """Return the batches of the newest days."""
        since = age(self.batches[-1])[0] - span
        return [batch for batch in self.batches if age(batch)[0] > since]

    def after(self, batch_id: str) -> tuple[list[BatchState], float]:
        """Return the batches later than this one, and how many days later the last of them is.

        All, where it is older than the window.
        """
        first = self.batch_ids.index(batch_id) + 1 if batch_id in self.batch_ids else 0
        since = age(self.batches[max(0, first - 1)])[0]
        return list(self.batches[first:]), (age(self.batches[-1])[0] - since).total_seconds() / 86_400

    def among(self, batch_ids: Collection[str]) -> Window:
        """Return what it holds of these batches alone."""
        batches = tuple(batch for batch in self.batches if batch.batch_id in batch_ids)
        kept = {batch.batch_id for batch in batches}
        odd, normal = (
            tuple(record for record in records if record[0] in kept)
            for records in (self.left_out, self.normal)
        )
        n_records = sum(batch.n_accepted for batch in batches)
        return Window(
            batches, n_records, self.records_per_day, fingerprint(batches, odd, normal), odd, normal
        )

    @property
    def earlier(self) -> list[str]:
        """Batches before the window with known anomalies."""
        return sorted({batch_id for batch_id, _ in self.left_out} - set(self.batch_ids))


class Dated(Protocol):
    """What places a batch in time: the ledger's state of it, or the head of that."""

    @property
    def batch_id(self) -> str: ...
    @property
    def newest_record_at(self) -> datetime | None: ...
    @property
    def validated_at(self) -> datetime: ...


def choose_window(
    dataset: Dataset,
    batches: Sequence[BatchState],
    anomalies: Sequence[tuple[str, str]] = (),
    normals: Sequence[tuple[str, str]] = (),
) -> Window:
    """Return the accepted batches of the newest `window_days`, counted back from the newest of them.

    Those that `train.leave_out` names are not among them.

    An anomaly that people found stays one when its batch has grown old, and goes on pushing models away. It
    does not where columns are derived: an old batch on its own has nothing to look back to.

    Args:
        anomalies, normals: (batch_id, record_key) of records that people judged, in order.

    Raises:
        NotReady: fewer accepted records than `train.min_records`.
    """
    accepted = sorted((b for b in batches if b.n_accepted and b.status != "refused"), key=age)
    usable = [batch for batch in accepted if not dataset.train.leaves_out(batch.batch_id)]
    if usable:
        since = age(usable[-1])[0] - timedelta(days=dataset.train.window_days)
        usable = [batch for batch in usable if age(batch)[0] > since]
    n_records = sum(batch.n_accepted for batch in usable)
    if n_records < dataset.train.min_records:
        n_without = sum(dataset.train.leaves_out(batch.batch_id) for batch in accepted)
        besides = f" ({n_without} more are left out: train.leave_out)" if n_without else ""
        raise NotReady(
            f"{dataset.name}: {n_records:,} accepted records in {len(usable)} batches{besides}, train.min_records is "
            f"{dataset.train.min_records:,}; wait for more batches or lower it"
        )
    days: dict[date, int] = {}
    for batch in usable:
        days[day(batch)] = days.get(day(batch), 0) + batch.n_accepted
    inside = {batch.batch_id for batch in usable}
    remembered = inside if dataset.derived else {batch.batch_id for batch in accepted}
    left_out = tuple(record for record in anomalies if record[0] in remembered)
    normal = tuple(record for record in normals if record[0] in inside)
    per_day = float(statistics.median(days.values()))
    first, last = age(usable[0]), age(usable[-1])
    without = tuple(b.batch_id for b in accepted if first < age(b) < last and b.batch_id not in inside)
    known_as = fingerprint(usable, left_out, normal)
    return Window(tuple(usable), n_records, per_day, known_as, left_out, normal, without)


def fingerprint(
    batches: Sequence[BatchState], left_out: Sequence[tuple[str, str]], normal: Sequence[tuple[str, str]]
) -> str:
    """Return sixty-four hex digits that change with the records that a window teaches."""
    content = "\n".join(f"{b.batch_id}|{b.fingerprint}|{b.n_accepted}" for b in batches)
    content += "".join(f"\nwithout {batch_id}|{key}" for batch_id, key in left_out)
    content += "".join(f"\nnormal {batch_id}|{key}" for batch_id, key in normal)
    return hashlib.sha256(content.encode()).hexdigest()


def age(batch: Dated) -> tuple[datetime, str]:
    """Return when a batch's newest record happened, as well as is known, and its name.

    This is the order of batches in time. It is never later than the batch's validation: a source's clocks may
    be wrong, and one record dated 2099 would make every other batch an old one.
    """
    read = batch.validated_at
    happened = believed(batch) or _named_day(batch.batch_id) or read
    return min(happened, read), batch.batch_id


def order(batch: BatchState | str) -> tuple[bool, datetime, str]:
    """Return what sorts batches for a reader: by age, those without a day of their own before all others.

    A batch that nobody has read yet is given by its name, and placed by the day in it, else as of now.
    """
    if isinstance(batch, BatchState):
        return not is_undated(batch.batch_id), *age(batch)
    now = datetime.now(UTC)
    return not is_undated(batch), min(_named_day(batch) or now, now), batch


def believed(batch: Dated) -> datetime | None:
    """Return when a batch's newest record happened; None if unknown, or too far ahead of its reading."""
    happened = batch.newest_record_at
    return None if happened is None or happened > batch.validated_at + AHEAD else happened


def day(batch: Dated) -> date:
    """Return the day that a batch counts with, in UTC."""
    return age(batch)[0].astimezone(UTC).date()


def is_learned(
    batch: BatchState, tags: Mapping[str, str], trained_at: datetime, known: Mapping[str, BatchState]
) -> bool:
    """Return whether a version learned from a batch.

    The batch is in the version's window and was checked, as it is now, before the training.

    Args:
        tags: the version's, with its window "first..last" and what was left out of it.
        known: every batch as the ledger has it; False where it lacks either end.
    """
    first, last = (known.get(name) for name in tags.get(SPAN, "").partition("..")[::2])
    if not (first and last and batch.n_accepted and batch.validated_at <= trained_at):
        return False
    if batch.batch_id in tags.get(WITHOUT, "").split(", "):
        return False
    return age(first) <= age(batch) <= age(last)


def _named_day(batch_id: str) -> datetime | None:
    day = named_day(batch_id, whole=not is_undated(batch_id))  # that one has no day but its delivery's
    return datetime(day.year, day.month, day.day, tzinfo=UTC) if day else None


def day_of(dataset: Dataset, window: Window) -> str:
    """Return SQL: days since 1970 of a record's own time where that is plausible, else of its batch."""
    of_batch = f"coalesce({_by_batch({b.batch_id: _number(day(b)) for b in window.batches})}, 0)"
    if not dataset.time:
        return of_batch
    return f"coalesce({_own(dataset, window, _DAY.format(sql.name(dataset.time)))}, {of_batch})::BIGINT"


def moment_of(dataset: Dataset, window: Window) -> str:
    """Return SQL for the order of records in time, microseconds since 1970.

    Of a record's own time where that is plausible, else of its batch's newest record.
    """
    ends = {b.batch_id: round(age(b)[0].timestamp() * 1e6) for b in window.batches}
    of_batch = f"coalesce({_by_batch(ends)}, 0)"
    if not dataset.time:
        return of_batch
    return f"coalesce({_own(dataset, window, f'epoch_us({sql.name(dataset.time)})')}, {of_batch})::BIGINT"


def _own(dataset: Dataset, window: Window, value: str) -> str:
    """Return SQL: a value of a record's own time; NULL where its day is too far ahead of its reading."""
    own = _DAY.format(sql.name(dataset.time or ""))
    last = {b.batch_id: _number((b.validated_at + AHEAD).astimezone(UTC).date()) for b in window.batches}
    return f"CASE WHEN {own} > {_by_batch(last)} THEN NULL ELSE {value} END"


def _number(on: date) -> int:
    return (on - _EPOCH).days


def _by_batch(values: Mapping[str, int]) -> str:
    listed = (f"{sql.text(batch_id)}: {value}" for batch_id, value in values.items())
    return f"map {{{', '.join(listed)}}}[{BATCH}]"


def among(records: Sequence[tuple[str, str]]) -> str:
    """Return SQL: whether a record is one of these (batch_id, record_key)."""
    pairs = ", ".join(f"({sql.text(batch_id)}, {sql.text(key)})" for batch_id, key in records)
    return f"(({BATCH}, {KEY}) IN ({pairs}))" if pairs else "false"


def readable(name: str, dataset: Dataset) -> str:
    """Return SQL: a column as the model reads it."""
    value = sql.name(name)
    return f"CAST({value} AS DOUBLE)" if dataset.with_derived[name].type.startswith("decimal") else value
