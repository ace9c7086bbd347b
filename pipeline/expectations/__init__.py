"""A batch's contract as a Great Expectations suite, run over every record with DuckDB as the engine.

Belongs here: the only use of Great Expectations in vaewatch: rules into expectations (suite.py), running them
(checkpoint.py), the results (outcome.py), the engine's dialect (dialect.py), and the report (wording.py,
page.py). Does not: what the rules are (config/contracts.py), or which records are set aside and what becomes
of the batch (incoming/validation.py).

Importing this package costs nothing; the first `check` of a process imports Great Expectations (about 3
CPU-seconds), unless `load` did.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pipeline.errors import StorageFailed
from pipeline.expectations.outcome import CheckpointResult, Outcome

if TYPE_CHECKING:
    from pipeline.config.contracts import BatchRule, RowRule

__all__ = ["CheckpointResult", "Outcome", "check", "load", "report_refusal"]


def load() -> None:
    """Import Great Expectations now, for a caller that has to wait for something else anyway."""
    from pipeline.expectations import checkpoint

    checkpoint.load()


def check(
    database: Path,
    *,
    dataset: str,
    batch_id: str,
    rules: Sequence[RowRule | BatchRule],
    mostly: float,
    report: Path,
    landed_at: datetime | None = None,
    notes: Sequence[str] = (),
    memory_gb: float = 1.0,
    threads: int | None = None,
) -> CheckpointResult:
    """Run the rules over the relation `batch` of a DuckDB file, and report.

    Writes `checkpoint.json` (Great Expectations' result) and `index.html` (the same to read, offline) into
    `report`, each whole or not at all. Great Expectations keeps one context per process, so this must not run
    in several threads at once.

    Args:
        database: a closed DuckDB file whose relation `batch` has typed columns, `vaewatch_row` (position) and
            `vaewatch_set_aside` (bool). It is opened for reading only and spills to a folder beside it.
        mostly: share of a column's values that must keep a row rule before the rule itself counts as broken.
        landed_at: when the batch landed, with a time zone; a freshness rule counts from it.
        notes: what was accepted and is worth knowing, for the page.
        memory_gb: what DuckDB may take before it spills.
        threads: DuckDB's; None for one per core.

    Raises:
        CheckCrashed: a check could not be carried out; nothing was written.
        StorageFailed: the report could not be written.
    """
    from pipeline.expectations import checkpoint, page

    result, found = checkpoint.run(
        database,
        dataset=dataset,
        batch_id=batch_id,
        rules=rules,
        mostly=mostly,
        landed_at=landed_at,
        memory_gb=memory_gb,
        threads=threads,
    )
    html = page.render(
        result,
        dataset=dataset,
        batch_id=batch_id,
        mostly=mostly,
        checked_at=datetime.fromisoformat(found["meta"]["validation_time"]),
        version=found["meta"]["great_expectations_version"],
        notes=notes,
    )
    document = {"dataset": dataset, "batch_id": batch_id, **asdict(result), "great_expectations": found}
    _publish(report, document, html)
    return result


def report_refusal(
    report: Path, *, dataset: str, batch_id: str, reasons: Sequence[str], contract: str
) -> None:
    """Write the same two files for a delivery that was refused before its records could be checked.

    Args:
        contract: the file to mend where the data is right; empty where no contract would let the files in.

    Raises:
        StorageFailed: the report could not be written.
    """
    from pipeline.expectations import page

    html = page.render_refusal(
        reasons, dataset=dataset, batch_id=batch_id, contract=contract, checked_at=datetime.now(UTC)
    )
    document = {"dataset": dataset, "batch_id": batch_id, "success": False, "reasons": list(reasons)}
    _publish(report, document, html)


def _publish(report: Path, document: dict[str, Any], html: str) -> None:
    try:
        report.mkdir(parents=True, exist_ok=True)
        _write(report / "checkpoint.json", json.dumps(document, indent=1))
        _write(report / "index.html", html)
    except OSError as fault:
        raise StorageFailed(
            f"{document['dataset']}/{document['batch_id']}: the report was not written to {report}: {fault}"
        ) from fault


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{uuid4().hex}.draft")
    try:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
