"""What looks like a delivery under a wrong name: records of another day than it says, or of another batch.

Belongs here: notes on one batch, held against the others. Pure but for the comparison of keys, which is asked
for batches of equal size and end alone. Does not: refusing anything; a name proves nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from pipeline import sql
from pipeline.config.dataset import Dataset
from pipeline.incoming.batches import LandedBatch, named_day, unlike_the_others
from pipeline.incoming.relations import DATABASE, Tally, record_key
from pipeline.storage.ledger import BatchState
from pipeline.storage.tables import Tables

FEWEST = 3  # other batches, to tell what names usually say
NEAR = 1  # days: names may be of the delivery's day, and times of another zone
MOST_COMPARED = 3  # batches, by their keys
SHARE = 0.5  # of the records


def notes(
    dataset: Dataset,
    batch: LandedBatch,
    tally: Tally,
    others: Sequence[BatchState],
    tables: Tables,
    *,
    scratch: Path,
    threads: int,
) -> Iterator[str]:
    """Yield what is remarkable about a batch beside the others, a sentence each.

    Args:
        others: the dataset's other batches as the ledger has them.
        scratch: the folder with the batch's DATABASE.
    """
    accepted = [other for other in others if other.status != "refused" and other.n_accepted]
    if batch.period is None:
        unlike = unlike_the_others([*(other.batch_id for other in accepted), batch.batch_id])
        yield from (said for one, said in unlike.items() if one == batch.batch_id)
        yield from _other_day(batch.batch_id, tally, accepted)
    alike = [
        other
        for other in accepted
        if (other.n_read, other.n_accepted, other.newest_record_at)
        == (tally.n_read, tally.n_accepted, tally.newest)
    ]
    yield from _same_records(dataset, tally, alike[-MOST_COMPARED:], tables, scratch, threads)


def _other_day(batch_id: str, tally: Tally, others: Sequence[BatchState]) -> Iterator[str]:
    """Say that a batch's records are of another day than its name says, where those of the others are not."""
    named = named_day(batch_id)
    if named is None or tally.newest is None or tally.middle is None:
        return
    apart = [
        _apart(other.batch_id, other.newest_record_at)
        for other in others
        if other.newest_record_at is not None
    ]
    known = [one for one in apart if one is not None]
    ends, middle = _apart(batch_id, tally.newest), _apart(batch_id, tally.middle)
    if len(known) < FEWEST or ends is None or middle is None:
        return
    usual = statistics.median(known)
    if abs(usual) <= NEAR and abs(ends - usual) > NEAR and abs(middle) > NEAR:
        yield (
            f"its records are mostly of {tally.middle:%Y-%m-%d}, its name says {named}: they count with their own times; "
            "was another day's file delivered under this name?"
        )


def _apart(batch_id: str, moment: datetime | None) -> int | None:
    """Return how many days after the day in a batch's name a moment is; None where either is unknown."""
    named = named_day(batch_id)
    return None if named is None or moment is None else (moment.date() - named).days


def _same_records(
    dataset: Dataset,
    tally: Tally,
    alike: Sequence[BatchState],
    tables: Tables,
    scratch: Path,
    threads: int,
) -> Iterator[str]:
    """Say whose record keys most of a batch's records have."""
    for other in alike:
        files = tables.files("records", [other.batch_id], flag=False)
        if not files:
            continue
        listed = ", ".join(map(sql.text, files))
        with sql.database(scratch, threads=threads, file=scratch / DATABASE) as connection:
            found = connection.execute(
                f"""SELECT count(*) FROM (SELECT {record_key(dataset)} AS record_key FROM batch WHERE NOT vaewatch_set_aside)
                SEMI JOIN read_parquet([{listed}], hive_partitioning = false) USING (record_key)"""
            ).fetchone()
        n = found[0] if found else 0
        if n > SHARE * tally.n_accepted:
            yield (
                f"{n:,} of its {tally.n_accepted:,} accepted records have the keys of batch {other.batch_id}: was one delivery "
                f"made under two names? Both are learned and scored; how to withdraw one: docs/reference/operations.md"
            )
            return
