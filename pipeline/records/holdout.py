"""Which records no training run ever sees, so that versions of any night can be compared on them.

Belongs here: the choice, by a record's key alone, and the records that an evaluation reads. Does not: what is
learned from (training/training_set.py), or what is measured (evaluation/).

A record is held out where a hash of its key falls below `promote.holdout`: on every night, in every delivery,
whatever else is there. A larger share holds out the same records and more, so that versions trained under two
shares have the smaller one in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import sql
from pipeline.config import derived
from pipeline.config.derived import BATCH, KEY, ROW
from pipeline.records.window import DAY, Window, among, day_of, readable

if TYPE_CHECKING:
    from pipeline.config.dataset import Dataset
    from pipeline.storage.ledger import BatchState
    from pipeline.storage.tables import Tables

MOST, MOST_NEWEST = 20_000, 10_000  # records of the holdout, and of the newest days, that an evaluation reads
NEWEST_DAYS = 7
BATCH_ID, RECORD_KEY, ROW_NUMBER = (name.strip('"') for name in (BATCH, KEY, ROW))
_MARKS = _HELD, _KEPT, _NEW, _NEWEST, _ODD, _NORMAL = tuple(
    f"vaewatch {mark}" for mark in ("held", "kept", "new", "newest", "odd", "normal")
)


@dataclass(frozen=True)
class HeldOut:
    """What an evaluation reads: the model's columns, and BATCH_ID, RECORD_KEY, ROW_NUMBER and DAY.

    Attributes:
        share: of all records that is held out.
        records: held out, a sample of them where they are many, without those that people found to be
            anomalies.
        recent: which of them are of the newest days.
        newest: records of the newest days, held out or not: a sample of what was there to be flagged.
        anomalies: what people found to be anomalous, held out or not.
        anomalies_held, normals_held: held-out records that they found to be one or the other: no version has
            learned these verdicts.
    """

    share: float
    records: pa.Table
    recent: pa.ChunkedArray
    newest: pa.Table
    anomalies: pa.Table
    anomalies_held: pa.Table
    normals_held: pa.Table


def below(share: float, purpose: str = "holdout") -> str:
    """Return SQL: whether a record is in this share of all, chosen by its key.

    Choices for two purposes are independent.
    """
    return f"('0x' || left(md5('{purpose} ' || {KEY}), 8))::BIGINT < {round(share * 2**32)}"


def read(
    dataset: Dataset,
    window: Window,
    share: float,
    tables: Tables,
    *,
    newest: Sequence[BatchState] = (),
    scratch: Path,
    threads: int,
) -> HeldOut:
    """Read the window's records for an evaluation.

    Args:
        share: held out from every version that is to be compared.
        newest: batches of the newest days; by default those of the newest seven.
    """
    newest = newest or window.newest(timedelta(days=NEWEST_DAYS))
    new = f"{BATCH} IN ({', '.join(sql.text(batch.batch_id) for batch in newest)})"
    few = below(MOST_NEWEST / max(1, sum(batch.n_accepted for batch in newest)), "newest")
    marks = {
        _HELD: below(share),
        _KEPT: below(min(share, MOST / max(1, window.n_records))),
        _NEW: new,
        _NEWEST: f"({new} AND {few})",
        _ODD: among(window.left_out),
        _NORMAL: among(window.normal),
    }
    columns = [
        *(f"{readable(name, dataset)} AS {sql.name(name)}" for name in modelled(dataset)),
        BATCH,
        KEY,
        ROW,
    ]
    columns += [f"{day_of(dataset, window)} AS {sql.name(DAY)}"]
    columns += [f"{test} AS {sql.name(name)}" for name, test in marks.items()]
    inside = f"{BATCH} IN ({', '.join(map(sql.text, window.batch_ids))})"
    files = tables.files("records", window.batch_ids, flag=False)
    query = f"""SELECT * FROM (SELECT {", ".join(columns)} FROM ({derived.accepted(dataset, files)}) WHERE {inside})
        WHERE {" OR ".join(map(sql.name, (_KEPT, _NEWEST, _ODD, _NORMAL)))} ORDER BY {BATCH}, {KEY}"""
    scratch.mkdir(parents=True, exist_ok=True)
    with sql.database(scratch, threads=threads, memory_gb=1.2) as connection:
        found = connection.sql(query).to_arrow_table()
    return _parts(found, share, [*modelled(dataset), BATCH_ID, RECORD_KEY, ROW_NUMBER, DAY])


def _parts(found: pa.Table, share: float, columns: list[str]) -> HeldOut:
    held, kept, new, newest, odd, normal = (found[mark] for mark in _MARKS)

    def where(mask: pa.ChunkedArray) -> pa.Table:
        return found.filter(mask).select(columns)

    ordinary = pc.and_(kept, pc.invert(odd))
    return HeldOut(
        share,
        records=where(ordinary),
        recent=new.filter(ordinary),
        newest=where(newest),
        anomalies=where(odd),
        anomalies_held=where(pc.and_(odd, held)),
        normals_held=where(pc.and_(normal, held)),
    )


def modelled(dataset: Dataset) -> list[str]:
    """Return the columns that a model reads."""
    return dataset.columns_with("numeric", "categorical", "context")
