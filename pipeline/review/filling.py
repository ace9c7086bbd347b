"""From a published batch to the queue: its flagged records, and a few unflagged ones for an honest recall.

Belongs here: reading the table `scores` and making rows of the queue. Does not: the queue itself (queue.py).

A batch is filled in after its scores are published and before the ledger says so. A fill that was missed or
killed is made up for later: the ledger knows what was scored, the queue what it holds.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from pipeline.config.dataset import Dataset
from pipeline.installation import Installation
from pipeline.records import window
from pipeline.records.verdicts import anomaly_id
from pipeline.review import suppression
from pipeline.review.filters import BANDS, without_nul
from pipeline.review.intake import QueueBatch, held, judged_keys, replace_batch
from pipeline.review.queued import Reason, oddness
from pipeline.storage.ledger import BatchState
from pipeline.storage.review_schema import NO_COLUMN
from pipeline.storage.tables import Tables

if TYPE_CHECKING:
    import pyarrow.dataset as pads

LEAST_SHARE = 0.15  # share of the score that a column must explain to be part of a signature
LONGEST_VALUE = 300  # characters of a reason's text that the queue keeps; the record has all of them
LONGEST_LABEL = 600  # bytes of a driver or a signature
SCORES = (
    "severity",
    "anomaly_score",
    "reconstruction",
    "kl_divergence",
    "p_value",
    "threshold",
    "model_version",
    "kl_weight",
)


def fill(
    here: Installation, dataset: Dataset, state: BatchState, *, scored_at: datetime, told: bool = True
) -> QueueBatch:
    """Put a scored batch into the queue, in place of what was there of it. A repeat changes nothing.

    Args:
        state: as it was scored: n_accepted counts the records of the batch.
        told: whether people were told of it, or need not be; else its digest is due.
    """
    tables = here.tables(dataset)
    day = window.day(state).isoformat()
    suppression.release(here.ledger, dataset.name)
    batch = _Batch(dataset, state.batch_id, day, scored_at, tables)
    flagged = list(batch.flagged()) if state.n_accepted else []
    sampled = list(batch.sampled(len(flagged))) if state.n_accepted else []
    found = QueueBatch(
        dataset=dataset.name,
        batch_id=state.batch_id,
        day=day,
        model_version=next((row["model_version"] for row in [*flagged, *sampled]), state.model_version or 0),
        scored_at=scored_at,
        n_flagged=len(flagged),
        n_unflagged=state.n_accepted - len(flagged),
        n_sampled=len(sampled),
        n_suppressed=0,
        told=told,
    )
    judged = judged_keys(here.ledger, dataset.name, state.batch_id)
    for row in [*flagged, *sampled]:
        judged.pop(row["anomaly_id"], None)
    cleared = list(batch.cleared(judged)) if judged and state.n_accepted else []
    # a rule saved before this transaction is read here, one saved after it finds the rows
    with here.ledger.transaction(write=True) as connection:
        hidden = suppression.marked(connection, dataset.name, flagged)
        found = replace(found, n_suppressed=sum(row["suppressed"] != 0 for row in hidden))
        replace_batch(connection, found, [*hidden, *sampled], cleared)
    return found


def catch_up(
    here: Installation, dataset: Dataset, *, force: bool = False, say: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Fill in the scored batches that the queue does not hold as scored now; return their batch_ids."""
    suppression.release(here.ledger, dataset.name)
    known = held(here.ledger, dataset.name)
    filled = []
    for state in here.ledger.current(dataset.name).values():
        if state.status != "scored" or state.scored_at is None:
            continue
        batch = known.get(state.batch_id)
        as_scored = batch and (batch.model_version, batch.n_flagged) == (state.model_version, state.n_flagged)
        if force or batch is None or not as_scored:
            done = fill(here, dataset, state, scored_at=state.scored_at, told=batch.told if batch else True)
            say(
                f"{state.batch_id}: {done.n_flagged} flagged and {done.n_sampled} sampled records are in the queue"
            )
            filled.append(state.batch_id)
    return filled


@dataclass(frozen=True)
class _Batch:
    """One batch's published scores, as rows of the queue."""

    dataset: Dataset
    batch_id: str
    day: str
    scored_at: datetime
    tables: Tables

    @cached_property
    def published(self) -> pads.Dataset:
        """The batch's scores, opened once: that takes longer the more batches there are."""
        return self.tables.dataset("scores", [self.batch_id])

    def flagged(self) -> Iterator[dict[str, Any]]:
        found = self.published.to_table(filter=pc.field("flagged"))
        for part in found.to_batches(max_chunksize=1024):
            for row in part.to_pylist():
                yield self._row(row, "flagged")

    def sampled(self, n_flagged: int) -> Iterator[dict[str, Any]]:
        """Yield unflagged records, chosen by a hash of their key: the same ones whichever model scored."""
        share = self.dataset.review.sample_share
        n = math.ceil(share * max(1, n_flagged))
        if not n:
            return
        unflagged = ~pc.field("flagged")
        keys = self.published.to_table(columns=["row_number", "record_key"], filter=unflagged)
        numbered = zip(keys["record_key"].to_pylist(), keys["row_number"].to_pylist(), strict=True)
        chosen = heapq.nsmallest(n, (self._lot(key, number) for key, number in numbered))
        numbers = [number for _, number in chosen]
        these = pc.field("row_number").isin(numbers)
        known = self.published.schema.names
        columns = ["row_number", "record_key", *(name for name in SCORES if name in known)]
        scores = self.published.to_table(columns=columns, filter=unflagged & these)
        accepted = self.tables.dataset("records", [self.batch_id], flag=False)
        wanted = accepted.to_table(columns=["row_number", "record"], filter=these)
        records = {row["row_number"]: row["record"] for row in wanted.to_pylist()}
        for row in scores.sort_by("row_number").to_pylist():
            name = anomaly_id(self.dataset.name, self.batch_id, row["record_key"])
            more: dict[str, Any] = {
                "anomaly_id": name,
                "reasons": [],
                "record": records.get(row["row_number"]),
                "kl_share": None,
            }
            yield self._row(row | more, "sampled")

    def cleared(self, judged: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Yield what the model says of judged records that it does not flag.

        Args:
            judged: record_key by anomaly_id.
        """
        these = pc.field("record_key").isin([*judged.values()])
        columns = ["record_key", "severity", "anomaly_score", "threshold", "model_version"]
        for row in self.published.to_table(columns=columns, filter=these).to_pylist():
            name = anomaly_id(self.dataset.name, self.batch_id, row.pop("record_key"))
            named = {"dataset": self.dataset.name, "batch_id": self.batch_id, "anomaly_id": name}
            yield {**row, **named, "kind": "cleared", "scored_at": self.scored_at}

    def _lot(self, key: str, number: int) -> tuple[bytes, int]:
        seed = f"sample\x1f{self.dataset.review.seed}\x1f{self.batch_id}\x1f{key}"
        return hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()[:8], number

    def _row(self, row: dict[str, Any], kind: str) -> dict[str, Any]:
        reasons = [_short(reason) for reason in row["reasons"] or []]
        record = plain(row["record"] or {})
        signature = label(signature_of(reasons)) if kind == "flagged" else ""
        key = without_nul(row["record_key"])
        return {
            "anomaly_id": row["anomaly_id"],
            "dataset": self.dataset.name,
            "batch_id": self.batch_id,
            "day": self.day,
            "kind": kind,
            "driver": label(reasons[0]["column"] if reasons else ""),
            "oddness": oddness([Reason(**reason) for reason in reasons[:1]]) if kind == "flagged" else "",
            "signature": signature,
            "band": max(band for band in BANDS if band <= max(0.0, row["severity"])),
            "suppressed": 0,
            "row_number": row["row_number"],
            "scored_at": self.scored_at,
            "kl_share": row["kl_share"],
            "key_start": key[:120],
            "record_key": key,
            "reasons": json.dumps(plain(reasons)),
            "terms": json.dumps(plain(row.get("terms") or [])),
            "record": json.dumps(record),
        } | {name: row.get(name) for name in SCORES}  # older tables have no kl_weight


def signature_of(reasons: Sequence[Mapping[str, Any]]) -> str:
    """Return what is odd, without by how much: the columns that explain the score, each with its direction.

    Records with one signature are likely to have one cause: `amount↑ fee↓`. Without reasons it is NO_COLUMN.
    """
    named = [reason for i, reason in enumerate(reasons) if i == 0 or reason["share"] >= LEAST_SHARE]
    return " ".join(sorted(f"{reason['column']}{direction(reason)}" for reason in named)) or NO_COLUMN


def label(text: str) -> str:
    """Return a driver or a signature as the queue keeps it.

    It is short enough for an index of PostgreSQL, whose rows have 2,704 bytes; long ones get a hash, so that
    they stay distinct.
    """
    raw = without_nul(text).encode("utf-8", "replace")
    if len(raw) <= LONGEST_LABEL:
        return raw.decode()
    return f"{raw[: LONGEST_LABEL - 20].decode(errors='ignore')}… {hashlib.sha256(raw).hexdigest()[:12]}"


def direction(reason: Mapping[str, Any]) -> str:
    """Return ↑ for above the expected value, ↓ for below, ∅ for missing, ≠ for another category."""
    if reason["observed"] == "missing":
        return "∅"
    try:
        observed, expected = float(reason["observed"]), float(reason["expected"])
    except ValueError:
        return "≠"
    return "↑" if observed >= expected else "↓"


def _short(reason: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: str(reason[name])[:LONGEST_VALUE] for name in ("observed", "expected")}
    return {**reason, **texts}


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it; infinity, NaN, decimals, times and bytes become text."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, Decimal) or not _is_json(value) else value


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
