"""What a person or a program asks of the results: plain dictionaries, read from ledger and tables.

Belongs here: status, flagged records, quarantine. Does not: how it looks in a terminal (display/), or files
(export.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import pyarrow.compute as pc

from pipeline.errors import NotReady
from pipeline.installation import Installation
from pipeline.misread import meant
from pipeline.records import verdicts
from pipeline.records.looking_back import outdated
from pipeline.records.standing import Standing, standing, standings
from pipeline.records.window import age
from pipeline.review.queued import Reason
from pipeline.storage.ledger import BatchState

ORDER = [("severity", "descending"), ("anomaly_score", "descending"), ("anomaly_id", "descending")]
LISTED = ["anomaly_id", "batch_id", "record_key", "severity", "anomaly_score", "p_value", "reasons"]


def status(here: Installation, dataset_name: str | None = None) -> list[dict[str, Any]]:
    """Return each dataset with its champion and batches, newest last."""
    datasets = [here.dataset(dataset_name)] if dataset_name else list(here.datasets().values())
    found = []
    for dataset in datasets:
        batches = sorted(here.ledger.current(dataset.name).values(), key=age)
        stale = outdated(batches)
        stands = standings(here.ledger, {one.batch_id: one for one in batches})
        rows = [_row(one, stands.get(one.batch_id), stale.get(one.batch_id)) for one in batches]
        found.append({
            "dataset": dataset.name,
            "champion": here.ledger.serving_version(dataset.name),
            "last_trained_at": here.ledger.trained_at(dataset.name),
            "tables": str(here.tables(dataset).root),
            "counts": dict(Counter(batch.status for batch in batches)),
            "n_read": sum(batch.n_read for batch in batches),
            "n_accepted": sum(batch.n_accepted for batch in batches),
            "n_flagged": sum(row["n_flagged"] or 0 for row in rows),
            "batches": rows,
        })
    return found


def _row(batch: BatchState, stands: Standing | None, outdated_by: Any) -> dict[str, Any]:
    """Return a batch; of one that is not scored, the flags are those of before, where they stand."""
    found = asdict(batch) | {"n_set_aside": batch.n_set_aside, "outdated_by": outdated_by, "stands": None}
    if stands is None:
        return found
    told = stands.as_dict()
    flags = {name: told[name] for name in ("n_flagged", "model_version", "threshold", "scored_at")}
    return found | flags | {"stands": told}


def flagged(
    here: Installation, dataset_name: str, *, batch_id: str | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """Return flagged records, the most severe first, with what their verdicts come to."""
    tables = here.tables(here.dataset(dataset_name))
    if not tables.exists("scores"):
        return []
    found = tables.read("scores", batch_id=batch_id, flag=True, columns=LISTED)
    n = found.num_rows if limit is None else min(limit, found.num_rows)
    rows: list[dict[str, Any]] = found.take(pc.select_k_unstable(found, n, ORDER)).to_pylist() if n else []
    given = verdicts.history(here.ledger, dataset_name)
    return [row | {"verdict": stands(given, row["anomaly_id"])} for row in rows]


def stands(given: dict[str, list[verdicts.Verdict]], anomaly_id: str) -> str | None:
    """Return what a record's verdicts come to; None while it is open."""
    state = verdicts.standing(given.get(anomaly_id, [])).state
    return None if state == "open" else state


def n_flagged(here: Installation, dataset_name: str, *, batch_id: str | None = None) -> int:
    """Return how many records are flagged, by the ledger."""
    states = here.ledger.current(dataset_name)
    stands = standings(here.ledger, states).values()
    counted = [*states.values(), *(one.scored for one in stands if one.scored)]
    return sum(state.n_flagged or 0 for state in counted if batch_id in {None, state.batch_id})


def quarantined(here: Installation, dataset_name: str) -> list[dict[str, Any]]:
    """Return batches that were refused or have records set aside."""
    batches = sorted(here.ledger.current(here.dataset(dataset_name).name).values(), key=age)
    return [
        {
            "batch_id": batch.batch_id,
            "status": batch.status,
            "n_read": batch.n_read,
            "n_set_aside": batch.n_set_aside,
            "reason": batch.reason,
            "set_aside": batch.set_aside,
            "files": batch.files,
        }
        for batch in batches
        if batch.n_set_aside or batch.status == "refused"
    ]


def set_aside(here: Installation, dataset_name: str, batch_id: str, *, limit: int) -> dict[str, Any]:
    """Return why a batch's records were set aside, and the first of them.

    Raises:
        NotReady: the batch was never validated.
    """
    dataset = here.dataset(dataset_name)
    state = here.ledger.newest(dataset.name, batch_id)
    if state is None:
        raise NotReady(
            f"{dataset_name}: batch {batch_id!r} was never validated; "
            f"{meant(batch_id, here.ledger.current(dataset.name))} (see `vaewatch status {dataset_name}`)"
        )
    stands = standing(here.ledger.history(dataset.name, batch_id)[:-1], state)
    rows: list[dict[str, Any]] = []
    if state.status != "refused" and state.n_set_aside:
        found = here.tables(dataset).read("records", batch_id=batch_id, flag=True)
        rows = (
            found
            .sort_by("row_number")
            .slice(0, limit)
            .select(["row_number", "record_key", "reasons", "record"])
            .to_pylist()
        )
    return {
        "batch_id": batch_id,
        "status": state.status,
        "reason": state.reason,
        "n_read": state.n_read,
        "n_set_aside": state.n_set_aside,
        "set_aside": state.set_aside,
        "files": state.files,
        "stands": stands.words if stands else "",
        "report": str(here.page(dataset, batch_id) / "index.html"),
        "records": rows,
    }


def reasons_text(reasons: Iterable[Reason]) -> str:
    """Return reasons as one line: amount 900 (expected 12.5, 81 %)."""
    return "; ".join(
        f"{one.column} {one.observed_text} (expected {one.expected_text}, {one.share:.0%})" for one in reasons
    )
