"""One function per step: what a DAG's task and the command line's verb both call.

Belongs here: the order of effects within a step, and the receipt it returns. A step writes tables or the registry
first and the ledger last: killed anywhere and run again, it ends as if it had never been killed. Does not: how any
part works; heavy libraries are imported by the step that needs them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pipeline.batches import LandedBatch, landed, unsettled
from pipeline.config import Dataset
from pipeline.contracts import contract_hash
from pipeline.errors import NotReady, UnreadableFile, VaewatchError
from pipeline.installation import Installation
from pipeline.ledger import BatchState
from pipeline.receipts import BatchReceipt, Receipt, receipt_of, sentence, summary

if TYPE_CHECKING:
    from pipeline.detector import Detector
    from pipeline.guard import FileReport
    from pipeline.registry import ModelVersion

RANGE = ".."
CLAIM = timedelta(minutes=30)
Say = Callable[[str], None]


def discover(
    dataset_name: str, *, group: int = 1, claim: bool = False, installation: Installation | None = None
) -> list[str]:
    """Keys of the batches that are due: landed and not validated as they are now, or accepted and a champion serves.

    Args:
        group: at most this many batches a key; a key is a batch_id, or "first..last" for the due ones in between.
        claim: leave out what an earlier call claimed within half an hour, and claim the rest.
    """
    here = installation or Installation()
    dataset = here.dataset(dataset_name)
    due = [batch.batch_id for batch in _due(here, dataset)]
    if claim:
        due = here.ledger.claim(dataset.dataset, due, CLAIM)
    groups = [due[i : i + group] for i in range(0, len(due), max(1, group))]
    return [ids[0] if len(ids) == 1 else f"{ids[0]}{RANGE}{ids[-1]}" for ids in groups]


def validate(
    dataset_name: str,
    key: str | None = None,
    *,
    force: bool = False,
    say: Say = lambda _: None,
    installation: Installation | None = None,
) -> Receipt:
    """Check batches against the contract and publish their records.

    Args:
        key: a batch_id, a range "first..last", or None for all.
        force: check again what was checked before, with the contract as it is now.

    Raises:
        NotReady: no batch of that name has landed.
        StorageFailed, CheckCrashed: nothing was published for the batch at hand; a retry may help.
    """
    here = installation or Installation()
    dataset = here.dataset(dataset_name)
    chosen = _chosen(key, landed(dataset, here.ledger))
    if not chosen and key is not None and RANGE not in key:
        raise NotReady(
            f"{dataset_name}: no settled batch {key!r} in {dataset.incoming_path}; "
            f"a file touched within {dataset.incoming.settle_seconds:g} s is left for the next look"
        )
    current = here.ledger.current(dataset.dataset)
    receipts = []
    inspected: dict[str, list[FileReport]] = {}
    for batch in chosen:
        state = current.get(batch.batch_id)
        receipts.append(_guarded(batch.batch_id, _validate, here, dataset, batch, state, force, inspected))
        if receipts[-1].outcome != "unchanged":
            say(sentence(receipts[-1]))
    return Receipt("validate", dataset.dataset, summary(receipts), tuple(receipts), details=_left(dataset))


def _left(dataset: Dataset) -> dict[str, Any]:
    n_left, seconds = unsettled(dataset), dataset.incoming.settle_seconds
    reason = f"{n_left} files touched within {seconds:g} s are left for the next look"
    return {"reason": reason} if n_left else {}


def _validate(
    here: Installation,
    dataset: Dataset,
    batch: LandedBatch,
    state: BatchState | None,
    force: bool,
    inspected: dict[str, list[FileReport]],
) -> BatchReceipt:
    from pipeline import validation

    same_contract = state is not None and state.contract_hash == contract_hash(dataset)
    if (
        state
        and not force
        and state.signature == batch.signature
        and (same_contract or state.status != "refused")
    ):
        return receipt_of(state, "unchanged")
    fresh = BatchState(
        dataset=dataset.dataset,
        batch_id=batch.batch_id,
        version=0,
        status="refused",
        reason="",
        fingerprint=batch.signature,
        signature=batch.signature,
        contract_hash=contract_hash(dataset),
        files=[file.relative for file in batch.files],
        notes=[],
        set_aside={},
        n_read=0,
        n_accepted=0,
        newest_record_at=None,
        validated_at=datetime.now(UTC),
    )
    try:
        if batch.delivery not in inspected:
            inspected.clear()  # only the delivery at hand is kept: its periods come one after another
            inspected[batch.delivery] = validation.examine(dataset, batch)
        reports = inspected[batch.delivery]
    except UnreadableFile as fault:
        validation.report_refusal(dataset, batch, [str(fault)], here.page(dataset, batch.batch_id))
        return receipt_of(here.ledger.record_validation(replace(fresh, reason=str(fault))), "refused")
    if (
        state
        and not force
        and state.status != "refused"
        and state.fingerprint == batch.fingerprint(report.digest for report in reports)
    ):
        here.ledger.touch(state, batch.signature)
        return receipt_of(state, "unchanged")
    with here.scratch(dataset, f"validate-{batch.batch_id}") as scratch:
        verdict = validation.validate(
            dataset,
            batch,
            reports,
            here.tables(dataset),
            scratch=scratch,
            page=here.page(dataset, batch.batch_id),
            threads=here.settings.cores,
        )
    written = here.ledger.record_validation(
        replace(
            fresh,
            status="refused" if verdict.refusal else "accepted",
            reason=verdict.refusal,
            fingerprint=verdict.fingerprint,
            notes=list(verdict.notes),
            set_aside=dict(verdict.set_aside),
            n_read=verdict.n_read,
            n_accepted=verdict.n_accepted,
            newest_record_at=verdict.newest_record_at,
        )
    )
    return receipt_of(written, "refused" if verdict.refusal else "accepted")


def score(
    dataset_name: str,
    key: str | None = None,
    *,
    force: bool = False,
    say: Say = lambda _: None,
    installation: Installation | None = None,
) -> Receipt:
    """Score accepted batches with the champion and publish scores and flagged records.

    Args:
        key: a batch_id, a range "first..last", or None for all that wait.
        force: score again what was scored before.

    Raises:
        NotReady: the batch was never validated.
        RegistryUnreachable, StorageFailed: nothing was published for the batch at hand; a retry may help.
    """
    here = installation or Installation()
    dataset = here.dataset(dataset_name)
    current = here.ledger.current(dataset.dataset)
    states = [current[b] for b in sorted(current) if _matches(key, b)]
    if not states and key is not None and RANGE not in key:
        raise NotReady(
            f"{dataset_name}: batch {key!r} was never validated; run `vaewatch validate {dataset_name}`"
        )
    waiting = [s for s in states if s.status == "accepted" or (force and s.status == "scored")]
    receipts = [  # a refused batch is news only to who asks for it: validation told, once
        receipt_of(s, "refused" if key and s.status == "refused" else "unchanged")
        for s in states
        if s not in waiting
    ]
    champion = here.registry.champion(dataset.dataset) if waiting else None
    if champion is None:
        receipts += [replace(receipt_of(s, "waiting"), reason="no champion yet") for s in waiting]
    else:
        detector = _fetch(here, champion)
        for state in waiting:
            receipts.append(
                _guarded(state.batch_id, _score, here, dataset, state, detector, champion.version, current)
            )
            say(sentence(receipts[-1]))
        if here.ledger.serving_version(dataset.dataset) != champion.version:
            here.ledger.set_serving(dataset.dataset, champion.version)
    here.ledger.release_claims(dataset.dataset, [state.batch_id for state in states])
    receipts.sort(key=lambda receipt: receipt.batch_id)
    version = champion.version if champion else None
    return Receipt("score", dataset.dataset, summary(receipts), tuple(receipts), version)


def _score(
    here: Installation,
    dataset: Dataset,
    state: BatchState,
    detector: Detector,
    model_version: int,
    current: Mapping[str, BatchState],
) -> BatchReceipt:
    from pipeline.review.filling import fill
    from pipeline.scoring import score_batch

    if state.n_accepted == 0:
        threshold = detector.calibration.threshold(dataset.flag, detector.records_per_day)
        n_flagged, value, shift = 0, threshold.value, None
    else:
        with here.scratch(dataset, f"score-{state.batch_id}") as scratch:
            tables = here.tables(dataset)
            scored = score_batch(
                dataset,
                state,
                detector,
                model_version,
                tables,
                batches=list(current.values()),
                scratch=scratch,
                threads=here.settings.cores,
            )
        n_flagged, value, shift = scored.n_flagged, scored.threshold.value, scored.shift
    fill(here, dataset, replace(state, model_version=model_version), scored_at=datetime.now(UTC))
    written = here.ledger.record_scores(
        state, model_version=model_version, threshold=value, n_flagged=n_flagged
    )
    receipt = receipt_of(written, "scored")
    return receipt if shift is None else replace(receipt, above_usual=shift.above, is_odd=shift.is_odd)


def train(
    dataset_name: str,
    *,
    say: Say = lambda _: None,
    on_progress: Callable[[Any], None] | None = None,
    installation: Installation | None = None,
) -> Receipt:
    """Train on the accepted window, log and register. The first model becomes champion, a later one challenger.

    Records that people found to be anomalies push the model away, normal ones are kept in. The same records, contract, settings and code give the version that is there already.

    Raises:
        NotReady: too few accepted records.
        RegistryUnreachable, StorageFailed: nothing was registered; a retry goes on from the last checkpoint.
    """
    from pipeline import experiment, training, verdicts

    here = installation or Installation()
    dataset = here.dataset(dataset_name)
    batches = list(here.ledger.current(dataset.dataset).values())
    window = training.choose_window(dataset, batches, *verdicts.judged(here.ledger, dataset.dataset))
    key = training.training_key(dataset, window, experiment.code_version())
    version = here.registry.made_by(dataset.dataset, key)
    found = version is not None
    checkpoints = here.settings.home / "work" / dataset.dataset / "checkpoints" / key
    if version is None:
        say(f"training on {window.n_records} records of {len(window.batches)} batches")
        with here.scratch(dataset, "train") as scratch:
            run = experiment.train(
                dataset,
                window,
                here.tables(dataset),
                key,
                scratch,
                checkpoints,
                here.settings.cores,
                on_progress,
            )
            version = here.registry.register(run)
    here.tidy(dataset)  # also where an earlier try was killed just after it had registered
    shutil.rmtree(checkpoints, ignore_errors=True)
    alias = _introduce(here, dataset, version, found)
    here.ledger.set_trained(dataset.dataset, datetime.now(UTC))
    outcome = "unchanged" if found else "trained"
    return Receipt(
        "train", dataset.dataset, outcome, (), version.version, alias, {"metrics": dict(version.metrics)}
    )


def _introduce(here: Installation, dataset: Dataset, version: ModelVersion, found: bool) -> str:
    """Give a trained version its place: champion where there is none, else challenger."""
    champion = here.registry.champion(dataset.dataset)
    if champion is None:
        here.registry.promote(dataset.dataset, version.version, by="vaewatch", reason="the first model")
        here.ledger.set_serving(dataset.dataset, version.version)
        return "champion"
    if champion.version == version.version:
        return "champion"
    if not found or "challenger" in version.aliases:
        here.registry.set_challenger(dataset.dataset, version.version)
        return "challenger"
    return ""


def promote(
    dataset_name: str,
    version: int | None = None,
    *,
    by: str,
    reason: str,
    installation: Installation | None = None,
) -> Receipt:
    """Make a version champion (default: the challenger); the champion until now becomes `previous`."""
    here = installation or Installation()
    dataset = here.dataset(dataset_name)
    done = here.registry.promote(dataset.dataset, version, by=by, reason=reason)
    here.ledger.set_serving(dataset.dataset, done.champion)
    outcome = "promoted" if done.changed else "unchanged"
    return Receipt(
        "promote", dataset.dataset, outcome, (), done.champion, "champion", {"previous": done.previous}
    )


def rollback(dataset_name: str, *, by: str, reason: str, installation: Installation | None = None) -> Receipt:
    """Make the previous champion champion again."""
    here = installation or Installation()
    dataset = here.dataset(dataset_name)
    done = here.registry.rollback(dataset.dataset, by=by, reason=reason)
    here.ledger.set_serving(dataset.dataset, done.champion)
    return Receipt(
        "rollback", dataset.dataset, "rolled back", (), done.champion, "champion", {"previous": done.previous}
    )


def release(dataset_name: str, batch_id: str, *, installation: Installation | None = None) -> list[Receipt]:
    """Check a batch again with the contract as it is now, and score it again: set-aside records that pass come in."""
    here = installation or Installation()
    checked = validate(dataset_name, batch_id, force=True, installation=here)
    return [checked, score(dataset_name, batch_id, force=True, installation=here)]


def run(
    dataset_name: str, *, say: Say = lambda _: None, installation: Installation | None = None
) -> list[Receipt]:
    """Everything due: validate what landed, train where there is no champion or the schedule says so, score."""
    here = installation or Installation()
    dataset = here.dataset(dataset_name)
    receipts = [validate(dataset_name, say=say, installation=here)]
    if _training_due(here, dataset):
        try:
            receipts.append(train(dataset_name, say=say, installation=here))
        except NotReady as early:
            receipts.append(Receipt("train", dataset.dataset, "waiting", details={"reason": str(early)}))
        else:
            if receipts[-1].alias == "challenger" and dataset.promote.mode == "automatic":
                receipts.append(promote(dataset_name, by="vaewatch", reason="automatic", installation=here))
    receipts.append(score(dataset_name, say=say, installation=here))
    return receipts


def _training_due(here: Installation, dataset: Dataset) -> bool:
    trained_at = here.ledger.trained_at(dataset.dataset)
    return trained_at is None or datetime.now(UTC) - trained_at > timedelta(days=1)


def _due(here: Installation, dataset: Dataset) -> Iterator[LandedBatch]:
    current = here.ledger.current(dataset.dataset)
    serving = here.ledger.serving_version(dataset.dataset) is not None
    promised = contract_hash(dataset)
    for batch in landed(dataset, here.ledger):
        state = current.get(batch.batch_id)
        if state is None or state.signature != batch.signature:
            yield batch
            continue
        mended = state.status == "refused" and state.contract_hash != promised
        if mended or (state.status == "accepted" and serving):
            yield batch


def _chosen(key: str | None, found: Sequence[LandedBatch]) -> list[LandedBatch]:
    return [batch for batch in found if _matches(key, batch.batch_id)]


def _matches(key: str | None, batch_id: str) -> bool:
    if key is None or key == batch_id:
        return True
    first, separator, last = key.partition(RANGE)
    return bool(separator) and first <= batch_id <= last


def _guarded(batch_id: str, work: Callable[..., BatchReceipt], *arguments: Any) -> BatchReceipt:
    """One batch's failure, where a retry cannot help, does not keep the others from being done."""
    try:
        return work(*arguments)
    except VaewatchError as fault:
        if fault.retry_can_help:
            raise
        return BatchReceipt(batch_id, "failed", str(fault))


def _fetch(here: Installation, version: ModelVersion) -> Detector:
    from pipeline.detector import Detector

    return Detector.load(here.registry.fetch(version, here.settings.home / "models"))
