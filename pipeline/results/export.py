"""Results as files for other programs: Parquet, CSV, JSON Lines.

Belongs here: flagged and judged records, the history of verdicts, and how a value is written. Does not: what
is shown (views.py).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, NotReady
from pipeline.installation import Installation
from pipeline.records import verdicts
from pipeline.results.views import ORDER, reasons_text, stands
from pipeline.review import queue
from pipeline.review.queued import Reason, oddness
from pipeline.storage.tables import Tables

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


def records(
    here: Installation, dataset_name: str, out: Path, *, batch_id: str | None = None
) -> tuple[int, int]:
    """Write flagged records, and every other one that a verdict stands on, with their values, how they came
    into the queue (`kind`), how they are odd and what their verdicts come to, to .parquet, .csv (reasons as
    text) or .jsonl; returns how many of either.

    A judged record that is not stored any more, as another delivery took its place, has no values.

    Raises:
        ConfigError: another suffix.
        NotReady: nothing was scored yet.
    """
    _check(out)
    dataset = here.dataset(dataset_name)
    tables = here.tables(dataset)
    if not tables.exists("scores"):
        raise NotReady(f"{dataset_name}: nothing was scored yet; run `vaewatch run {dataset_name}`")
    flagged = tables.read("scores", batch_id=batch_id, flag=True)
    given = verdicts.history(here.ledger, dataset.name)
    names = {*flagged["anomaly_id"].to_pylist()}
    more = [
        entries[-1]
        for name, entries in given.items()
        if name not in names and stands(given, name) and batch_id in {None, entries[-1].batch_id}
    ]
    rows = pa.Table.from_pylist(list(_unflagged(tables, more)), flagged.schema)
    kinds = queue.kinds(here.ledger, [entry.anomaly_id for entry in more]) | dict.fromkeys(names, "flagged")
    _write(_with_words(pa.concat_tables([flagged, rows]).sort_by(ORDER), kinds, given), out)
    return len(names), len(more)


def _with_words(
    table: pa.Table, kinds: Mapping[str, str], given: dict[str, list[verdicts.Verdict]]
) -> pa.Table:
    """Rows of `scores` with what the queue says of them."""
    ids, why = table["anomaly_id"].to_pylist(), table["reasons"].to_pylist()
    of_flagged = [kinds.get(name) == "flagged" for name in ids]
    said = {
        "kind": [kinds.get(name) for name in ids],
        "oddness": [
            oddness([Reason(**one) for one in reasons or []]) if is_flagged else None
            for reasons, is_flagged in zip(why, of_flagged, strict=True)
        ],
        "verdict": [stands(given, name) for name in ids],
    }
    for name, texts in said.items():
        table = table.append_column(name, pa.array(texts, pa.string()))
    return table


def _unflagged(tables: Tables, judged: Sequence[verdicts.Verdict]) -> Iterator[dict[str, Any]]:
    """Rows of `scores`, as flagged records have them, of others that somebody judged; the table `records` has
    their values.
    """
    by_batch: dict[str, dict[str, str]] = {}
    for entry in judged:
        by_batch.setdefault(entry.batch_id, {})[entry.record_key] = entry.anomaly_id
    for batch_id, names in by_batch.items():
        these = pc.field("record_key").isin([*names])
        scores = tables.dataset("scores", [batch_id], flag=False).to_table(filter=these).to_pylist()
        stored = tables.dataset("records", [batch_id], flag=False)
        kept = stored.to_table(columns=["record_key", "record"], filter=these).to_pylist()
        scored = {row["record_key"]: row for row in scores}
        values = {row["record_key"]: row["record"] for row in kept}
        for key, name in names.items():
            known = {"batch_id": batch_id, "record_key": key, "flagged": False, "anomaly_id": name}
            yield scored.get(key, {}) | known | {"record": values.get(key)}


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
    """Write all of a file or leave what is there; return how many rows."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{uuid4().hex}.draft")
    try:
        if out.suffix == ".parquet":
            pq.write_table(table, draft)
        elif out.suffix == ".jsonl":
            with draft.open("w", encoding="utf-8") as stream:
                stream.writelines(json.dumps(_in_json(row), default=str) + "\n" for row in _rows(table))
        else:
            with draft.open("w", encoding="utf-8", newline="") as stream:
                _write_csv(stream, table)
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
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
