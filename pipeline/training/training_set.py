"""What to learn from: a window's accepted records in time order, sampled the same way every time.

Belongs here: reading them, the part that calibrates, and what identifies a training. Does not: which batches
(records/window.py), the model (detection/detector.py), where the result goes (registry/), or which records
are held out of all this (records/holdout.py).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import sql
from pipeline.config import derived
from pipeline.config.contracts import contract_hash
from pipeline.config.dataset import Dataset
from pipeline.config.derived import BATCH, KEY, ROW
from pipeline.records import holdout
from pipeline.records.verdicts import JUDGED_NORMAL, PLACE
from pipeline.records.window import DAY, Window, among, day_of, moment_of, readable
from pipeline.storage.tables import Tables

_ODD, _USUAL = "vaewatch judged odd", "vaewatch in the window"
# settings of `train` that say when, or which batches, which the window knows
NOT_OF_THE_MODEL = ("schedule", "deadline_hours", "when", "leave_out")


def training_key(dataset: Dataset, window: Window, code_version: str) -> str:
    """Return what identifies a training: same key, same data, contract, settings and code."""
    settings = dataset.train.model_dump(mode="json", exclude=set(NOT_OF_THE_MODEL))
    settings |= derived.definitions(dataset) | {"holdout": dataset.promote.holdout}
    parts = [window.fingerprint, contract_hash(dataset), json.dumps(settings, sort_keys=True), code_version]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class WindowRecords:
    """The window's records, with a column for each that the model reads.

    Attributes:
        table: in time order, without the anomalies, and the columns DAY and JUDGED_NORMAL.
        anomalies: those that people found, with DAY and a column PLACE: how many rows of the table come
            before; −1 where the record would not be in the table even unjudged.
    """

    table: pa.Table
    anomalies: pa.Table


def amount(dataset: Dataset, window: Window) -> str:
    """Say how much of a window is learned, before it is read.

    It is approximate: what is held out depends on each record's key.
    """
    n_held = round(window.n_records * dataset.promote.holdout)
    n_learned = min(window.n_records - n_held, dataset.train.max_records)
    n, days = len(window.batches), f"the newest {dataset.train.window_days:g} days (train.window_days)"
    reach = "batch that reaches" if n == 1 else "batches that reach"
    said = f"training on about {n_learned:,} of {window.n_records:,} records in {n} {reach} into {days}"
    if window.without:
        said += f", without {', '.join(window.without)} (train.leave_out)"
    return f"{said}; about {n_held:,} are kept for comparing versions" if n_held else said


def read_window(
    dataset: Dataset, window: Window, tables: Tables, *, scratch: Path, threads: int
) -> WindowRecords:
    """Read the window's records without the holdout, sampled down to `train.max_records`.

    A record's key alone decides whether it is sampled. Confirmed anomalies always stay; records judged normal
    are sampled like any other, or false alarms would crowd the calibration.
    """
    files = tables.files("records", [*window.batch_ids, *window.earlier], flag=False)
    learned = window.n_records * (1 - dataset.promote.holdout)
    share = min(1.0, dataset.train.max_records / learned)
    chosen = f"('0x' || left(md5({KEY} || '{dataset.train.seed}'), 8))::BIGINT < {round(share * 2**32)}"
    columns = ", ".join(f"{readable(n, dataset)} AS {sql.name(n)}" for n in holdout.modelled(dataset))
    order = {batch.batch_id: i for i, batch in enumerate(window.batches)}
    position = f"map {{{', '.join(f'{sql.text(b)}: {i}' for b, i in order.items())}}}"
    odd, normal = among(window.left_out), among(window.normal)
    inside = f"{BATCH} IN ({', '.join(map(sql.text, window.batch_ids))})"
    query = f"""SELECT {columns}, {day_of(dataset, window)} AS {sql.name(DAY)},
            {normal} AS {sql.name(JUDGED_NORMAL)}, {odd} AS {sql.name(_ODD)},
            {chosen} AND {inside} AS {sql.name(_USUAL)}
        FROM ({derived.accepted(dataset, files)})
        WHERE NOT ({holdout.below(dataset.promote.holdout)}) AND (({chosen} AND {inside}) OR {odd}) ORDER BY {moment_of(dataset, window)}, {position}[{BATCH}], {ROW}"""
    scratch.mkdir(parents=True, exist_ok=True)
    with sql.database(scratch, threads=threads, memory_gb=1.2) as connection:
        found = connection.sql(query).to_arrow_table()
    is_odd, is_usual = found[_ODD].to_numpy(), found[_USUAL].to_numpy()
    place = np.where(is_usual, np.cumsum(~is_odd), -1)[is_odd]
    table = found.drop_columns([_ODD, _USUAL])
    anomalies = table.filter(pa.array(is_odd)).drop_columns([JUDGED_NORMAL])
    return WindowRecords(table.filter(pa.array(~is_odd)), anomalies.append_column(PLACE, pa.array(place)))


def split_calibration(dataset: Dataset, table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the training records and, after them in time, those to calibrate on."""
    n_training = table.num_rows - round(table.num_rows * dataset.train.calibration)
    return table.slice(0, n_training), table.slice(n_training)
