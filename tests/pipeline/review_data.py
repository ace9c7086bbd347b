"""Rows of the review queue, as the score step would put them there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pipeline.installation import Installation
from pipeline.records.verdicts import anomaly_id
from pipeline.review.filters import BANDS
from pipeline.review.intake import QueueBatch, replace_batch
from pipeline.review.queued import Oddness, Reason, Whole, oddness
from pipeline.storage.ledger import BatchState, Ledger

DATASET = (
    "dataset: payments\nincoming: {path: ../incoming}\ncolumns:\n  amount: {type: float, role: numeric}\n"
    "  country: {type: string}\n  at: {type: string}\n"
)
TOKEN = "a token that only the terminal knows"  # noqa: S105  # made up
SITE = "http://localhost"
SCORED_AT = datetime(2026, 1, 31, 3, tzinfo=UTC)
BATCH = QueueBatch("payments", "2026-01-30", "2026-01-30", 3, SCORED_AT, 0, 0, 0, 0)
WHOLE = Whole(
    anomaly_id="0123456789abcdef", dataset="payments", batch_id="2026-01-30", day="2026-01-30", kind="flagged",
    driver="amount", oddness="above", signature="amount↑", state="open", reviewer="", decided_at=None, band=3, suppressed=0,
    model_version=3, severity=3.5, anomaly_score=350.0, reconstruction=315.0, kl_divergence=35.0, kl_share=0.1,
    p_value=0.0003, threshold=20.0, scored_at=SCORED_AT, reasons=(), record_key="k", claim=None, row_number=0,
    kl_weight=1.0, terms=(), record={}, verdicts=(), holding=(), versions=(),
)  # fmt: skip


def refused(batch_id: str) -> BatchState:
    """A batch of payments that the ledger knows, and nothing else does."""
    return BatchState(
        dataset="payments", batch_id=batch_id, version=0, status="refused", reason="", fingerprint="f", signature="",
        contract_hash="", files=["payments_2026-01.parquet"], notes=[], set_aside={}, n_read=9, n_accepted=0, newest_record_at=None,
        validated_at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def score(here: Installation, rows: Sequence[dict[str, Any]]) -> None:
    """As the score step leaves the batches of these rows: in queue and ledger, and nobody was told."""
    put(here.ledger, rows, told=False)
    for batch_id in dict.fromkeys(one["batch_id"] for one in rows):
        state = here.ledger.record_validation(replace(refused(batch_id), status="accepted", n_accepted=9))
        here.ledger.record_scores(
            state, model_version=3, threshold=20.0, n_flagged=1, above_usual=0.5, is_odd=False
        )


def reason(column: str = "amount", share: float = 0.8, **given: Any) -> dict[str, Any]:
    plain = {
        "column": column,
        "observed": "900",
        "expected": "12.5",
        "low": 10.0,
        "high": 15.0,
        "share": share,
    }
    return plain | given


ODD: list[tuple[dict[str, Any], Oddness]] = [  # a reason, and how a record is odd by it
    (reason(), "above"),
    (reason(observed="3.5"), "below"),
    (reason(observed="inf"), "above"),
    (reason(observed="-inf"), "below"),
    (reason(observed="15.0"), "together"),
    (reason(observed="10"), "together"),
    (reason(observed="16", low="nan", high="nan"), "above"),
    (reason(observed="missing"), "missing"),
    (reason("country", observed="missing", expected="DE (93%)", low=None, high=None), "missing"),
    (reason("country", observed="FR", expected="DE (93%)", low=None, high=None), "other_category"),
    (reason("country", observed="DE", expected="DE (51%)", low=None, high=None), "together"),
    (reason("code", observed="9", expected="7 (93%)", low=None, high=None), "other_category"),
    (reason("code", observed="9", expected="7", low=None, high=None), "other_category"),
    (
        reason("country", observed="XX", expected="DE (93%)", low=None, high=None, unknown=True),
        "unknown_category",
    ),
    (
        reason("country", observed="FR", expected="DE (9%)", low=None, high=None, unknown=False),
        "other_category",
    ),
]


def row(key: str, batch_id: str = "2026-01-30", **given: Any) -> dict[str, Any]:
    """A row of the queue. Given values replace those of a plain one; `reasons` and `record` as objects."""
    severity = given.get("severity", 3.5)
    reasons = given.pop("reasons", [reason(given.get("driver", "amount"))])
    is_flagged = given.get("kind", "flagged") == "flagged"
    plain = {
        "anomaly_id": anomaly_id(given.get("dataset", "payments"), batch_id, key),
        "dataset": "payments",
        "batch_id": batch_id,
        "day": batch_id,
        "kind": "flagged",
        "driver": "amount",
        "oddness": oddness([Reason(**one) for one in reasons]) if is_flagged else "",
        "signature": "amount↑",
        "band": max(band for band in BANDS if band <= severity),
        "suppressed": 0,
        "model_version": 3,
        "row_number": 0,
        "severity": severity,
        "anomaly_score": severity * 100,
        "reconstruction": severity * 90,
        "kl_divergence": severity * 10,
        "kl_weight": 1.0,
        "kl_share": 0.1,
        "p_value": 10**-severity,
        "threshold": 20.0,
        "scored_at": SCORED_AT,
        "key_start": key[:120],
        "record_key": key,
        "reasons": json.dumps(reasons),
        "terms": json.dumps(given.pop("terms", [{"column": "amount", "nats": severity * 80}])),
        "record": json.dumps(given.pop("record", {"amount": 900.0, "country": "DE"})),
    }
    return plain | given


def put(ledger: Ledger, rows: Sequence[dict[str, Any]], **batch: Any) -> None:
    """Put rows of one or more batches into the queue."""
    for dataset, batch_id in dict.fromkeys((one["dataset"], one["batch_id"]) for one in rows):
        mine = [one for one in rows if (one["dataset"], one["batch_id"]) == (dataset, batch_id)]
        n_flagged = sum(one["kind"] == "flagged" for one in mine)
        held = replace(
            BATCH, dataset=dataset, batch_id=batch_id, day=mine[0]["day"], model_version=mine[0]["model_version"],
            n_flagged=n_flagged, n_unflagged=1000 - n_flagged, n_sampled=len(mine) - n_flagged,
        )  # fmt: skip
        with ledger.transaction(write=True) as connection:
            replace_batch(connection, replace(held, **batch), mine)
