"""Does a batch keep its contract? Accepted records, records set aside with reasons, or the whole batch
refused.

Belongs here: one batch from files to the `records` table. Does not: what the rules are (config/contracts.py),
how Great Expectations runs them (expectations/), or what was done before (storage/ledger.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipeline import sql
from pipeline.config.contracts import RowRule, batch_rules, fit_schema, kept_columns, row_rules
from pipeline.config.dataset import Dataset
from pipeline.errors import CheckCrashed
from pipeline.incoming import guard, misplaced, redelivered, relations
from pipeline.incoming.batches import LandedBatch
from pipeline.incoming.relations import DATABASE, Tally
from pipeline.storage.ledger import BatchState
from pipeline.storage.tables import Tables

SLICE = 16_384  # rows that go to the table's writer together; some sixteen slices wait there


@dataclass(frozen=True)
class Checked:
    """What validation found. Every record read is either accepted or set aside.

    Attributes:
        refusal: why the whole batch was refused; "" where it was accepted.
        set_aside: records per reason, e.g. {"out_of_range:amount": 3}; a record may have several reasons.
        notes: what was accepted but is worth knowing (widened types, new columns, dates in the future).
        urgent: those of the notes that need attention at once: dates in the future, a delivery that looks
            like another's.
        newest_record_at: of the accepted records; one dated in the future only where all are.
    """

    fingerprint: str
    n_read: int
    n_accepted: int = 0
    refusal: str = ""
    set_aside: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    urgent: tuple[str, ...] = ()
    newest_record_at: datetime | None = None


def examine(dataset: Dataset, batch: LandedBatch, *, threads: int = 1) -> list[guard.FileReport]:
    """Read a batch's files once, safely, and meanwhile import what `validate` needs.

    Raises:
        UnreadableFile: a file is not sound Parquet.
    """
    from pipeline import expectations

    return guard.inspect(
        [f.path for f in batch.files],
        columns=list(kept_columns(dataset)),
        time=dataset.time,
        split=dataset.incoming.split,
        processes=threads,
        meanwhile=expectations.load,
    )


def validate(
    dataset: Dataset,
    batch: LandedBatch,
    reports: Sequence[guard.FileReport],
    tables: Tables,
    others: Sequence[BatchState],
    before: BatchState | None,
    *,
    scratch: Path,
    page: Path,
    threads: int,
) -> Checked:
    """Check a batch against its contract and, where it is accepted, publish its records.

    Args:
        reports: what `examine` found, one per file.
        others: the dataset's other batches as the ledger has them. before: this one.
        scratch: a folder of our own, removed on return.
        page: folder for the Checkpoint result and its Data Docs page.

    Raises:
        CheckCrashed: a check could not be carried out; nothing was published.
        StorageFailed: nothing was published.
    """
    fingerprint = batch.fingerprint(report.digest for report in reports)
    n_read = count_records(batch, reports)
    named = {file.relative: report.schema for file, report in zip(batch.files, reports, strict=True)}
    fit = fit_schema(dataset, named)
    notes = (
        *fit.widenings,
        *(f"column {name!r} is not in the contract: left out" for name in fit.new_columns),
    )
    if fit.refusals:
        report_refusal(dataset, batch, fit.refusals, page)
        return Checked(fingerprint, n_read, refusal="; ".join(fit.refusals), notes=notes)
    rules = [RowRule("outside_period", dataset.time, "true")] if batch.period == "" else row_rules(dataset)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        tally = relations.lay(dataset, batch, reports, rules, scratch, threads)
        if tally.n_read != n_read:
            raise CheckCrashed(
                f"batch {batch.batch_id}: {n_read} records were counted in its files and {tally.n_read} read"
            )
        beside = misplaced.notes(dataset, batch, tally, others, tables, scratch=scratch, threads=threads)
        urgent = tuple(filter(None, [_ahead(tally, dataset), *beside]))
        again = redelivered.note(dataset, before, fingerprint, tables, scratch, threads)
        notes += (*filter(None, [again]), *urgent)
        refusal = _check(dataset, batch, rules, tally, notes, scratch, page, threads)
        if not refusal:
            _publish(dataset, batch, tally, fingerprint, tables, scratch, threads)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    n_accepted = 0 if refusal else tally.n_accepted
    return Checked(fingerprint, n_read, n_accepted, refusal, tally.reasons, notes, urgent, tally.newest)


def report_refusal(
    dataset: Dataset, batch: LandedBatch, reasons: Sequence[str], page: Path, *, unreadable: bool = False
) -> None:
    """Write the page of a batch whose files cannot be checked, in place of an earlier delivery's.

    Args:
        unreadable: the files cannot be read, so no contract would let them in.
    """
    from pipeline import expectations

    expectations.report_refusal(
        page,
        dataset=dataset.name,
        batch_id=batch.batch_id,
        reasons=reasons,
        contract="" if unreadable else dataset.named_file,
    )


def count_records(batch: LandedBatch, reports: Sequence[guard.FileReport]) -> int:
    """Count a batch's records: all in its files, or those of its period where a delivery is split."""
    if batch.period is None:
        return sum(report.n_records for report in reports)
    if batch.period:
        return sum(report.periods.get(batch.period, 0) for report in reports)
    return sum(n for report in reports for period, n in report.periods.items() if period not in batch.inside)


def _ahead(tally: Tally, dataset: Dataset) -> str:
    """Return the note about accepted records dated in the future, or ""; no contract bounds that itself."""
    if not tally.n_ahead:
        return ""
    are = "1 record is" if tally.n_ahead == 1 else f"{tally.n_ahead:,} records are"
    latest = f"{tally.latest:%Y-%m-%d %H:%M}" if tally.latest else "beyond the year 9999"
    split = (
        ""
        if dataset.incoming.split
        else "; if deliveries are named by their day, incoming.split: day sets such records aside"
    )
    return (
        f"{are} dated more than a day after being read, the latest {latest}: such a date moves no "
        f"day or window; have the source correct {dataset.time!r} and deliver the batch again{split}"
    )


def _check(
    dataset: Dataset,
    batch: LandedBatch,
    rules: Sequence[RowRule],
    tally: Tally,
    notes: Sequence[str],
    scratch: Path,
    page: Path,
    threads: int,
) -> str:
    """Run the contract as a Great Expectations suite; return why the batch is refused, or ""."""
    from pipeline import expectations
    from pipeline.expectations.wording import NAMES

    whole = [] if batch.period == "" else batch_rules(dataset)
    result = expectations.check(
        scratch / DATABASE,
        dataset=dataset.name,
        batch_id=batch.batch_id,
        rules=[*rules, *whole],
        mostly=0.0 if batch.period == "" else 1 - dataset.batch.max_set_aside,
        report=page,
        notes=notes,
        landed_at=datetime.fromtimestamp(max(file.mtime_ns for file in batch.files) / 1e9, UTC),
        threads=threads,
    )
    for rule, outcome in zip(rules, result.outcomes, strict=False):
        ours = tally.reasons.get(rule.reason, 0)
        if outcome.n_unexpected != ours:
            raise CheckCrashed(
                f"batch {batch.batch_id}, {rule.reason}: Great Expectations counts {outcome.n_unexpected} records, "
                f"the rule that sets records aside {ours}; this is a fault of vaewatch, please report it"
            )
    failed = [o for o in result.outcomes[len(rules) :] if not o.success]
    most = sorted(tally.reasons.items(), key=lambda item: -item[1])[:3]
    because = f" ({', '.join(f'{reason} {n:,}' for reason, n in most)})" if most else ""
    return "; ".join(
        f"{NAMES[o.code].capitalize()}: {o.observed}, promised: {o.promise}{because if o.code == 'share_set_aside' else ''}"
        for o in failed
    )


def _publish(
    dataset: Dataset,
    batch: LandedBatch,
    tally: Tally,
    fingerprint: str,
    tables: Tables,
    scratch: Path,
    threads: int,
) -> None:
    query = relations.published(dataset, batch)
    note = {"fingerprint": fingerprint, "n_read": str(tally.n_read), "n_accepted": str(tally.n_accepted)}
    with sql.database(scratch, threads=threads, file=scratch / DATABASE) as connection:
        rows = connection.sql(query).to_arrow_reader(SLICE)
        tables.replace("records", batch.batch_id, rows, note=note)
