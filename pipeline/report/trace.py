"""From a flagged record back to what led to it: scores, model, training data, contract, files, verdicts.

Belongs here: putting together what ledger, queue, registry and folder know. Does not: any of what they know.
A link that is gone is reported as gone; the others are shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config.contracts import contract_hash
from pipeline.config.dataset import Dataset
from pipeline.errors import ConfigError, ModelUnusable, NotReady, RegistryUnreachable
from pipeline.incoming.batches import landed
from pipeline.installation import Installation
from pipeline.numerals import number
from pipeline.records.verdicts import Verdict, place_of
from pipeline.report import training
from pipeline.report.batch import path_of
from pipeline.report.standing import evidence
from pipeline.results.views import reasons_text
from pipeline.review import record
from pipeline.review.queued import Scoring, Whole
from pipeline.storage.ledger import BatchState

if TYPE_CHECKING:
    from pipeline.registry import ModelVersion

RECORD = ("anomaly_id", "dataset", "batch_id", "record_key", "row_number", "kind", "state", "severity")
SCORES = ("anomaly_score", "threshold", "p_value", "reasons", "scored_at")
NOT_NOTED = "not noted"
VERDICT = ("verdict", "by", "decided_at", "note")


@dataclass(frozen=True)
class Chain:
    """A record of the review queue, and the links behind it; for a link that is gone, why."""

    record: Whole
    model: dict[str, Any]
    contract: dict[str, Any]
    batch: dict[str, Any]
    delivery: dict[str, Any]

    @property
    def other_versions(self) -> list[Scoring]:
        return [said for said in self.record.versions if said.model_version != self.record.model_version]

    def as_dict(self) -> dict[str, Any]:
        """Return the same for a machine."""
        row, links = asdict(self.record), {**vars(self)}
        del links["record"]
        return {
            "record": {key: row[key] for key in RECORD},
            "scores": {key: row[key] for key in SCORES},
            **links,
            "verdicts": [{key: given[key] for key in VERDICT} | {"holds": given["number"] in row["holding"]} for given in row["verdicts"]],
            "other_versions": [asdict(said) for said in self.other_versions],
        }  # fmt: skip


def trace(here: Installation, anomaly_id: str) -> Chain:
    """Return the chain from a record of the review queue to the files of its batch and its model's training.

    Args:
        anomaly_id: or its beginning.

    Raises:
        NotReady: no such record is in the queue, or more than one.
    """
    row = record.one(here.ledger, record.find(here.ledger, anomaly_id))
    try:
        dataset = here.dataset(row.dataset)
    except ConfigError:
        dataset = None
    states = here.ledger.history(row.dataset, row.batch_id)
    scored = next(
        (s for s in reversed(states) if s.model_version is not None), states[-1] if states else None
    )
    return Chain(
        record=row,
        model=_model(here, row.dataset, row.model_version, dataset),
        contract=_contract(dataset, scored),
        batch=_batch(here, dataset, scored, states),
        delivery=_files(here, dataset, scored),
    )


def _model(here: Installation, name: str, number: int, dataset: Dataset | None) -> dict[str, Any]:
    try:
        version = next((v for v in here.registry.versions(name) if v.version == number), None)
    except RegistryUnreachable as fault:
        return {"version": number, "gone": str(fault)}
    if version is None:
        return {"version": number, "gone": "the registry has no such version: it was removed"}
    page = training.path_of(here, dataset, version) if dataset else None
    return {
        "version": number,
        "aliases": list(version.aliases),
        "run_id": version.run_id,
        "trained_at": version.created_at,
        "detector_digest": version.tags.get("detector_digest"),
        "training_key": version.training_key,
        "code_version": version.tags.get("code_version"),
        "seed": version.tags.get("seed"),
        "contract_hash": version.tags.get("contract_hash"),
        "data_fingerprint": version.tags.get("data_fingerprint"),
        "window": version.tags.get("window"),
        "batches": _learned(here, version),
        "page": str(page) if page else None,
        "promoted": dict(evidence(version)),
    }  # fmt: skip


def _learned(here: Installation, version: ModelVersion) -> list[dict[str, Any]] | None:
    """Return the batches a version learned, and whether each is unchanged; None if that was not recorded."""
    try:
        _, note = here.registry.note(version.dataset, version.version)
    except (ModelUnusable, NotReady, RegistryUnreachable):
        return None
    current = here.ledger.current(version.dataset)
    found: list[Mapping[str, Any]] = note["batches"]
    return [
        {
            "batch_id": batch["batch_id"],
            "fingerprint": batch["fingerprint"],
            "unchanged": batch["batch_id"] in current and current[batch["batch_id"]].fingerprint == batch["fingerprint"],
        }
        for batch in found
    ]  # fmt: skip


def _contract(dataset: Dataset | None, scored: BatchState | None) -> dict[str, Any]:
    then = scored.contract_hash if scored else None
    now = contract_hash(dataset) if dataset else None
    return {
        "hash": then,
        "now": now,
        "unchanged": then == now,
        "file": str(dataset.file) if dataset else None,
    }


def _batch(
    here: Installation, dataset: Dataset | None, scored: BatchState | None, states: Sequence[BatchState]
) -> dict[str, Any]:
    if scored is None:
        return {"gone": "the ledger does not know it"}
    return {
        "delivery": _delivery(scored, states),
        "fingerprint": scored.fingerprint,
        "validated_at": scored.validated_at,
        "n_read": scored.n_read,
        "n_accepted": scored.n_accepted,
        "n_flagged": scored.n_flagged,
        "report": str(path_of(here, dataset, scored.batch_id)) if dataset else None,
    }


def _delivery(scored: BatchState, states: Sequence[BatchState]) -> int:
    """Return which delivery of its batch was scored, the first one is 1; checking one again makes none."""
    contents = [state.fingerprint for state in states if state.version <= scored.version]
    return sum(one != before for one, before in zip(contents, ["", *contents], strict=False))


def _files(here: Installation, dataset: Dataset | None, scored: BatchState | None) -> dict[str, Any]:
    """Return the batch's files with their digests now, and whether together they are what was scored."""
    if dataset is None or scored is None:
        return {"unchanged": None, "files": []}
    found: list[dict[str, Any]] = []
    for relative in scored.files:
        file = dataset.incoming_path / relative
        try:
            with file.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            found.append({"file": str(file), "bytes": file.stat().st_size, "sha256": sha256})
        except OSError:
            found.append({"file": str(file), "gone": "it is not there any more"})
    digests = [one["sha256"] for one in found if "sha256" in one]
    there = next((one for one in landed(dataset, here.ledger) if one.batch_id == scored.batch_id), None)
    same = (
        there is not None
        and len(digests) == len(there.files)
        and there.fingerprint(digests) == scored.fingerprint
    )
    return {"unchanged": same, "files": found}


def as_lines(found: Chain) -> list[tuple[str, str]]:
    """Return the chain for a terminal, as names and texts."""
    row, batch, delivery = found.record, found.batch, found.delivery
    said = (_verdict(given, holds=given.number in row.holding) for given in row.verdicts)
    same = {True: "what was scored", False: "not what was scored", None: "not to be found"}
    return [
        (
            "record",
            f"{row.anomaly_id}  {row.dataset}, {row.name}",
        ),
        ("why", reasons_text(row.reasons) or "of no single column"),
        (
            "score",
            f"{number(row.anomaly_score, 5)} nats, threshold {number(row.threshold, 5)}, severity {row.severity:.2f}, "
            f"p-value {row.p_value:.3g}",
        ),
        ("verdicts", "; ".join(said) or "none yet"),
        ("batch", batch.get("gone") or _counts(batch)),
        *(("lies in", f"{where}, counted from 0") for where in [_place(found)] if where),
        *(("file", f"{one['file']}  {_digest(one)}") for one in delivery["files"]),
        ("files are", same[delivery["unchanged"]]),
        ("contract", _promise(found.contract)),
        ("report", batch.get("report") or "none"),
        *_model_lines(found.model),
        *(
            (
                "other version",
                f"{one.model_version}: {number(one.anomaly_score, 5)} nats, severity {one.severity:.2f}",
            )
            for one in found.other_versions
        ),
    ]


def _place(found: Chain) -> str:
    names = [one["file"].rpartition("/")[2] for one in found.delivery["files"]]
    return place_of(found.record.row_number, names)


def _verdict(given: Verdict, *, holds: bool) -> str:
    note = f": {given.note}" if given.note else ""
    stands = "" if holds else " (no longer counts)"
    return f"{given.decided_at:%Y-%m-%d %H:%M UTC} {given.by}: {given.verdict}{note}{stands}"


def _counts(batch: dict[str, Any]) -> str:
    return (
        f"delivery {batch['delivery']}, {batch['n_read']:,} records, {batch['n_accepted']:,} accepted, {batch['n_flagged']:,} flagged; "
        f"fingerprint {batch['fingerprint']}"
    )


def _digest(file: dict[str, Any]) -> str:
    return file.get("gone") or f"sha256 {file['sha256']}"


def _promise(contract: dict[str, Any]) -> str:
    changed = "" if contract["unchanged"] or not contract["now"] else f" (by now {contract['now']})"
    return (
        f"{contract['hash'] or NOT_NOTED}{changed}  {contract['file'] or 'the dataset has no file any more'}"
    )


def _model_lines(model: dict[str, Any]) -> list[tuple[str, str]]:
    if "gone" in model:
        return [("model", f"version {model['version']}: {model['gone']}")]
    aliases = f" ({', '.join(model['aliases'])})" if model["aliases"] else ""
    learned = model["batches"]
    changed = [one["batch_id"] for one in learned or [] if not one["unchanged"]]
    shown = (
        f"changed since: {', '.join(changed[:5])}{' …' * (len(changed) > 5)}"
        if changed
        else "all as they were"
    )
    return [
        ("model", f"version {model['version']}{aliases}, trained {model['trained_at']:%Y-%m-%d %H:%M UTC}, run {model['run_id']}"),
        ("detector", f"sha256 {model['detector_digest'] or NOT_NOTED}"),
        ("made by", f"digest of the code {model['code_version'] or NOT_NOTED}, seed {model['seed'] or NOT_NOTED}, contract {model['contract_hash'] or NOT_NOTED}"),
        ("learned", f"{model['window'] or NOT_NOTED}, fingerprint {model['data_fingerprint'] or NOT_NOTED}"),
        *([("batches learned", f"{len(learned)}, {shown}")] if learned is not None else []),
        *([("training's page", model["page"])] if model["page"] else []),
        *model["promoted"].items(),
    ]  # fmt: skip
