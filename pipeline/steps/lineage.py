"""What a step read and wrote: places by namespace and name, as in OpenLineage, and which part of each.

Belongs here: the facts, from ledger and registry. Does not: whom they are sent to (dags/lineage.py). They
describe how batches and versions stand now, not what one call changed, so a step that is tried again reports
the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ModelUnusable
from pipeline.installation import Installation
from pipeline.steps.keys import matches
from pipeline.storage.ledger import BatchState
from pipeline.storage.tables import TableName

OF_A_MODEL = ("data_fingerprint", "contract_hash", "code_version", "seed", "window")


@dataclass(frozen=True)
class Place:
    """Something that is read or written.

    Attributes:
        batches: fingerprint by batch_id, of the part used; empty for all of it.
        files: absolute paths, of the part used.
        n_records: written there.
        version: of the place as a whole.
        tags: what else is known of it.
    """

    namespace: str
    name: str
    batches: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[str] = ()
    n_records: int | None = None
    version: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Lineage:
    inputs: tuple[Place, ...]
    outputs: tuple[Place, ...]


def validated(here: Installation, dataset_name: str, key: str) -> Lineage:
    """Batch files → the table `records`."""
    dataset = here.dataset(dataset_name)
    found = _batches(here, dataset_name, key)
    files = [str(dataset.incoming_path / name) for batch in found for name in batch.files]
    kept = [batch for batch in found if batch.status != "refused"]
    incoming = Place("file", str(dataset.incoming_path), files=files)
    n_records = sum(batch.n_read for batch in kept)
    written = (_table(here, dataset_name, "records", kept, n_records),) if kept else ()
    return Lineage((incoming,) if files else (), written)


def scored(here: Installation, dataset_name: str, key: str) -> Lineage:
    """The table `records` and model versions → the table `scores`."""
    found = [batch for batch in _batches(here, dataset_name, key) if batch.status == "scored"]
    if not found:
        return Lineage((), ())
    versions = sorted({batch.model_version for batch in found if batch.model_version is not None})
    n_records = sum(batch.n_accepted for batch in found)
    return Lineage(
        (
            _table(here, dataset_name, "records", found),
            *(_model(here, dataset_name, number) for number in versions),
        ),
        (_table(here, dataset_name, "scores", found, n_records),),
    )


def trained(here: Installation, dataset_name: str, version: int) -> Lineage:
    """The window of the table `records` → a model version.

    Raises:
        NotReady: there is no such version.
        RegistryUnreachable: MLflow does not answer.
    """
    tables = here.tables(here.dataset(dataset_name))
    try:
        _, note = here.registry.note(dataset_name, version)
    except ModelUnusable:
        note = {"batches": [], "records_version": ""}
    learned = {batch["batch_id"]: batch["fingerprint"] for batch in note["batches"]}
    window = Place("file", tables.uri("records"), learned, version=str(note["records_version"]))
    return Lineage((window,), (_model(here, dataset_name, version),))


def _batches(here: Installation, dataset_name: str, key: str) -> list[BatchState]:
    current = here.ledger.current(dataset_name)
    return [state for batch_id, state in sorted(current.items()) if matches(key, batch_id)]


def _table(
    here: Installation, dataset_name: str, table: TableName, of: Sequence[BatchState], n: int | None = None
) -> Place:
    uri = here.tables(here.dataset(dataset_name)).uri(table)
    return Place("file", uri, {batch.batch_id: batch.fingerprint for batch in of}, n_records=n)


def _model(here: Installation, dataset_name: str, number: int) -> Place:
    """Return a version as a place of its own, so that its training and its scores meet there alone."""
    registry = here.registry
    version = registry.version(dataset_name, number)
    known: dict[str, Any] = {name: version.tags.get(name) for name in OF_A_MODEL}
    known |= {"training_key": version.training_key, "run_id": version.run_id}
    tags = {name: text for name, text in known.items() if text}
    return Place(registry.address, f"{registry.name(dataset_name)}/{number}", version=str(number), tags=tags)
