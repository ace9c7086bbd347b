"""How the model versions that are still registered score one record: computed when asked, not kept.

Belongs here: one record, several versions. Does not: what each version said when it scored the batch
(record.py).

A score depends on the record and the model alone: asking a version again gives what it published, to the bit,
so an answer can be used twice. The record is read as its batch's accepted records are stored; derived
columns, which are not stored, are computed anew from it and the records before it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pipeline.config import derived
from pipeline.config.dataset import Dataset
from pipeline.errors import ModelUnusable, NotReady, VaewatchError
from pipeline.installation import Installation
from pipeline.review import cells
from pipeline.review.answers import known
from pipeline.review.queued import Whole

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.detection.detector import Detector
    from pipeline.registry import ModelVersion

MOST = 8  # versions asked, the newest ones


@dataclass(frozen=True)
class Scored:
    """What one registered model version says of a record now, by the dataset's file as it is now."""

    model_version: int
    aliases: tuple[str, ...]
    trained_at: datetime
    anomaly_score: float | None = None
    severity: float | None = None
    threshold: Annotated[float | None, Field(description="null where it depends on the whole batch")] = None
    would_flag: bool | None = None
    why_not: Annotated[str, Field(description="where the version cannot say")] = ""


def scored_by(here: Installation, dataset: Dataset, row: Whole, *, most: int = MOST) -> list[Scored]:
    """Return what the newest versions say of a record, the newest first.

    Raises:
        NotReady: the record is no longer stored as it was scored.
        RegistryUnreachable, StorageFailed: a retry may help.
    """
    versions = here.registry.versions(dataset.name)[::-1][:most]
    runs = tuple(version.run_id for version in versions)
    settings = f"{dataset.flag!r} {derived.definitions(dataset)!r}"
    found = known(here, "versions", row, runs, settings, answer=lambda: _ask(here, dataset, row, versions))
    pairs = zip(found, versions, strict=True)
    return [replace(one, aliases=version.aliases) for one, version in pairs]  # aliases move


def warm(here: Installation, dataset: str) -> None:
    """Load torch, MLflow and its database, so that the first to ask for a record's scores does not wait."""
    import pipeline.detection.detector  # noqa: F401  # torch comes with it

    with contextlib.suppress(VaewatchError):  # reported to whoever asks
        here.registry.versions(dataset)


def _ask(
    here: Installation, dataset: Dataset, row: Whole, versions: list[ModelVersion]
) -> tuple[Scored, ...]:
    record = stored(here, dataset, row)
    return tuple(_score(here, dataset, record, version) for version in versions)


def stored(here: Installation, dataset: Dataset, row: Whole) -> pa.Table:
    """Return a record of the queue as models read it: one row, derived columns beside the others.

    Raises:
        NotReady: its batch was delivered again since, or its tables are gone.
    """
    from pipeline.records.accepted import KEY, read_record

    state, tables = here.ledger.newest(dataset.name, row.batch_id), here.tables(dataset)
    if state is not None and tables.exists("records"):
        with here.scratch(dataset, f"show-{row.anomaly_id}") as scratch:
            found = read_record(
                dataset,
                state,
                tables,
                row.row_number,
                batches=[*here.ledger.current(dataset.name).values()] if dataset.derived else [],
                scratch=scratch,
                threads=here.settings.cores,
            )
        if cells.is_stored(row, found[KEY].to_pylist()):
            return found
    raise cells.not_stored(row)


def derived_values(here: Installation, dataset: Dataset, row: Whole) -> dict[str, float | None]:
    """Return a record's derived columns, by the dataset's file as it is now.

    Empty where the record is no longer stored as it was scored.
    """
    if not dataset.derived:
        return {}
    with contextlib.suppress(NotReady):
        (values,) = stored(here, dataset, row).select(list(dataset.derived)).to_pylist()
        return dict(values)
    return {}


@lru_cache(maxsize=2 * MOST)
def loaded(folder: Path) -> Detector:
    """Load a fetched version's detector; the files of a version never change.

    Raises:
        ModelUnusable: it cannot be read.
    """
    from pipeline.detection.detector import Detector

    return Detector.load(folder)


def _score(here: Installation, dataset: Dataset, record: pa.Table, version: ModelVersion) -> Scored:
    said = Scored(version.version, version.aliases, version.created_at)
    try:
        detector = loaded(here.model(version))
        if detector.other_derived(dataset):
            return replace(said, why_not="its derived columns are defined differently")
        scores = detector.score_table(record).to_pylist()[0]
    except ModelUnusable as fault:
        return replace(said, why_not=str(fault))
    flag = dataset.flag
    alone = flag.false_discovery_rate is None and flag.cap is None
    threshold = detector.threshold(flag).value if alone else None
    score = scores["anomaly_score"]
    flags = None if threshold is None else score > threshold
    return replace(
        said, anomaly_score=score, severity=scores["severity"], threshold=threshold, would_flag=flags
    )
