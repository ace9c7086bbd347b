"""Results as files for other programs: Parquet, CSV, JSON Lines.

Belongs here: flagged records, the history of verdicts, and how a value is written. Does not: what is shown
(views.py).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, NotReady
from pipeline.installation import Installation
from pipeline.records import verdicts
from pipeline.results.views import ORDER, reasons_text, stands
from pipeline.review.queued import Reason, oddness

_WHEN = pa.timestamp("us", "UTC")
HISTORY = pa.schema([
    ("number", pa.int64()),
    ("dataset", pa.string()),
    ("batch_id", pa.string()),
    ("record_key", pa.string()),
    ("anomaly_id", pa.string()),
    ("verdict", pa.string()),
    ("by", pa.string()),
    ("decided_at", _WHEN),
    ("note", pa.string()),
    ("settles", pa.bool_()),
    ("act", pa.string()),
    ("withdraws", pa.int64()),
    ("undone", pa.bool_()),
    ("undone_by", pa.string()),
    ("undone_at", _WHEN),
])


def flagged(here: Installation, dataset_name: str, out: Path, *, batch_id: str | None = None) -> int:
    """Write flagged records to .parquet, .csv (reasons as text) or .jsonl; return how many.

    They come with how they are odd and what their verdicts come to.

    Raises:
        ConfigError: another suffix.
        NotReady: nothing was scored yet.
    """
    _check(out)
    tables = here.tables(here.dataset(dataset_name))
    if not tables.exists("scores"):
        raise NotReady(f"{dataset_name}: nothing was scored yet; run `vaewatch run {dataset_name}`")
    table = tables.read("scores", batch_id=batch_id, flag=True).sort_by(ORDER)
    given = verdicts.history(here.ledger, dataset_name)
    stand = [stands(given, i) for i in table["anomaly_id"].to_pylist()]
    how = [oddness([Reason(**one) for one in reasons or []]) for reasons in table["reasons"].to_pylist()]
    table = table.append_column("oddness", pa.array(how, pa.string()))
    return _write(table.append_column("verdict", pa.array(stand, pa.string())), out)


def history(here: Installation, dataset_name: str, out: Path, *, batch_id: str | None = None) -> int:
    """Write the history of verdicts, oldest first, with the columns of HISTORY; return how many entries.

    An entry that was taken back is `undone`, by whom and when; taking it back is itself an entry, which
    `withdraws` it.

    Raises:
        ConfigError: another suffix.
    """
    _check(out)
    dataset = here.dataset(dataset_name).name
    given = verdicts.history(here.ledger, dataset).values()
    entries = sorted((entry for record in given for entry in record), key=lambda entry: entry.number)
    back = {entry.withdraws: entry for entry in entries if entry.withdraws is not None}
    rows = []
    for entry in entries:
        if batch_id in {None, entry.batch_id}:
            undoing = back.get(entry.number)
            undone = (True, undoing.by, undoing.decided_at) if undoing else (False, None, None)
            said = dict(zip(("undone", "undone_by", "undone_at"), undone, strict=True))
            rows.append(asdict(entry) | {"dataset": dataset} | said)
    return _write(pa.Table.from_pylist(rows, HISTORY), out)


def _check(out: Path) -> None:
    if out.suffix not in {".parquet", ".csv", ".jsonl"}:
        raise ConfigError(f"{out}: write to .parquet, .csv or .jsonl")


def _write(table: pa.Table, out: Path) -> int:
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".parquet":
        pq.write_table(table, out)
    elif out.suffix == ".jsonl":
        with out.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(_in_json(row), default=str) + "\n" for row in _rows(table))
    else:
        with out.open("w", encoding="utf-8", newline="") as stream:
            _write_csv(stream, table)
    return int(table.num_rows)


def _write_csv(stream: Any, table: pa.Table) -> None:
    """Write a record's columns beside the others, its reasons and terms as text."""
    nested = {"record", "reasons"} & {*table.column_names}
    record = [field.name for field in table.schema.field("record").type] if "record" in nested else []
    plain = [name for name in table.column_names if name not in {*nested, "flagged"}]
    writer = csv.writer(stream)
    writer.writerow([*plain, *(["reasons"] if nested else []), *(f"record.{name}" for name in record)])
    for row in _rows(table):
        if "terms" in row:
            row["terms"] = "; ".join(f"{term['column']} {term['nats']:.6g}" for term in row["terms"] or [])
        why = reasons_text(Reason(**reason) for reason in row.get("reasons") or [])
        values = [row[name] for name in plain] + ([why] if nested else [])
        values += [(row["record"] or {}).get(name) for name in record]
        writer.writerow([_harmless(value) for value in values])


def _harmless(value: Any) -> Any:
    """Quote text that a spreadsheet would run as a formula."""
    return (
        f"'{value}"
        if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        else value
    )


def _in_json(value: Any) -> Any:
    """Turn numbers that JSON cannot express into text, as the queue does: strict readers refuse them."""
    if isinstance(value, dict):
        return {name: _in_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_in_json(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()
