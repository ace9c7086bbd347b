"""Find what has landed and check it against the contract.

Belongs here: the steps discover and validate. Does not: rules (incoming/validation.py) or listing folders
(incoming/batches.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from pipeline.config.contracts import contract_hash
from pipeline.config.dataset import Dataset
from pipeline.errors import NotReady, UnreadableFile
from pipeline.incoming import batches
from pipeline.incoming.batches import LandedBatch, landed, unsettled
from pipeline.installation import Installation
from pipeline.steps.keys import RANGE, Say, check_key, guarded, matches, say_batch, width_of
from pipeline.steps.receipts import BatchReceipt, Receipt, receipt_of, summary
from pipeline.storage.ledger import BatchState

if TYPE_CHECKING:
    from pipeline.incoming.guard import FileReport

CLAIM = timedelta(minutes=30)
MOST_NAMED = 5


def discover(here: Installation, dataset_name: str, *, group: int = 1, claim: bool = False) -> list[str]:
    """Return keys of the batches that are due.

    Landed and not validated as they are now, or accepted while a champion serves.

    Args:
        group: at most this many batches a key; a key is a batch_id, or "first..last" for the due ones in
            between.
        claim: leave out what an earlier call claimed within half an hour, and claim the rest.
    """
    dataset = here.dataset(dataset_name)
    due = sorted(batch.batch_id for batch in _due(here, dataset))  # as ranges are compared
    if claim:
        due = here.ledger.claim(dataset.name, due, CLAIM)
    groups = [due[i : i + group] for i in range(0, len(due), max(1, group))]
    return [ids[0] if len(ids) == 1 else f"{ids[0]}{RANGE}{ids[-1]}" for ids in groups]


def validate(
    here: Installation,
    dataset_name: str,
    key: str | None = None,
    *,
    force: bool = False,
    say: Say = lambda _: None,
) -> Receipt:
    """Check batches against the contract and publish their records.

    Args:
        key: a batch_id, a range "first..last", or None for all.
        force: check again what was checked before, with the contract as it is now.

    Raises:
        NotReady: no batch of that name has landed.
        ConfigError: the range ends before it begins.
        StorageFailed, CheckCrashed: nothing was published for the batch at hand; a retry may help.
    """
    from pipeline.notify import alerts
    from pipeline.report import metrics

    dataset = here.dataset(dataset_name)
    check_key(dataset.name, key)
    chosen = _chosen(key, landed(dataset, here.ledger))
    if not chosen and key is not None and RANGE not in key:
        raise NotReady(
            f"{dataset_name}: no settled batch {key!r} in {dataset.incoming_path}; "
            f"a file touched within {dataset.incoming.settle_seconds:g} s is left for the next look"
        )
    current = here.ledger.current(dataset.name)
    if what := _to_check(chosen, current):
        say(what)
    receipts, known = [], dict(current)
    inspected: dict[str, list[FileReport]] = {}
    width = width_of(batch.batch_id for batch in chosen)
    for batch in chosen:
        state, lines = current.get(batch.batch_id), list[str]()
        work = partial(_validate, say=lines.append)
        others = [one for name, one in known.items() if name != batch.batch_id]
        receipts.append(guarded(batch.batch_id, work, here, dataset, batch, state, others, force, inspected))
        if receipts[-1].outcome == "accepted" and (
            checked := here.ledger.newest(dataset.name, batch.batch_id)
        ):
            known[batch.batch_id] = checked
        if receipts[-1].outcome != "unchanged":
            say_batch(say, receipts[-1], width, lines)
        is_refused = receipts[-1].outcome == "refused"
        if is_refused and not _is_known(state, here.ledger.newest(dataset.name, batch.batch_id)):
            alerts.tell_refusal(here, dataset, batch.batch_id, receipts[-1].reason, say)
    if any(receipt.outcome != "unchanged" for receipt in receipts):
        metrics.publish(here, say)
    left, notes = _left(dataset), _still_refused(dataset, receipts, current)
    if key is None:
        notes += _gone(dataset, chosen, current)
    return Receipt("validate", dataset.name, summary(receipts), tuple(receipts), reason=left, notes=notes)


def _to_check(chosen: Sequence[LandedBatch], current: Mapping[str, BatchState]) -> str:
    """Say how many batches are new and which came again; empty for a new one alone."""
    known = [(batch, current[batch.batch_id]) for batch in chosen if batch.batch_id in current]
    again = [batch.batch_id for batch, state in known if batch.signature != state.signature]
    n_new = len(chosen) - len(known)
    said = (
        [f"{n_new} new {'batch' if n_new == 1 else 'batches'} to check"]
        if n_new + len(again) > 1 and n_new
        else []
    )
    said += (
        [f"{len(again)} delivered again: {', '.join(again[:MOST_NAMED])}{' …' if again[MOST_NAMED:] else ''}"]
        if again
        else []
    )
    return ", ".join(said)


def _still_refused(
    dataset: Dataset, receipts: Sequence[BatchReceipt], current: Mapping[str, BatchState]
) -> tuple[str, ...]:
    """Remind of batches that were refused before, and are as then: "unchanged" sounds as if all were well."""
    unchanged = [receipt.batch_id for receipt in receipts if receipt.outcome == "unchanged"]
    n = sum(current[batch_id].status == "refused" for batch_id in unchanged)
    if not n:
        return ()
    batches = "1 batch refused before is" if n == 1 else f"{n} batches refused before are"
    return (f"{batches} still refused: vaewatch quarantine list {dataset.name}",)


def _gone(
    dataset: Dataset, there: Sequence[LandedBatch], current: Mapping[str, BatchState]
) -> tuple[str, ...]:
    """Say which batches' files were taken away, but for those before all others: a folder may be cleared."""
    from pipeline.records.window import age

    kept = [age(current[batch.batch_id]) for batch in there if batch.batch_id in current]
    if not kept:
        return ()
    gone = [one.batch_id for one in batches.gone(dataset, current.values()) if age(one) > min(kept)]
    if not gone:
        return ()
    files = "the file of 1 batch is" if len(gone) == 1 else f"the files of {len(gone)} batches are"
    return (
        f"{files} gone from {dataset.incoming_path}: {', '.join(gone[:3])}{', …' if len(gone) > 3 else ''}; what they held stays "
        "published and is learned; how to withdraw it: docs/reference/operations.md",
    )


def _left(dataset: Dataset) -> str:
    left = unsettled(dataset)
    return left.words if left else ""


def _validate(
    here: Installation,
    dataset: Dataset,
    batch: LandedBatch,
    state: BatchState | None,
    others: Sequence[BatchState],
    force: bool,
    inspected: dict[str, list[FileReport]],
    say: Say,
) -> BatchReceipt:
    from pipeline.incoming import validation

    promised, known = contract_hash(dataset), state if not force else None
    mended = known is not None and known.status == "refused" and known.contract_hash != promised
    if known and known.signature == batch.signature and not mended:
        return receipt_of(known, "unchanged")
    page, fresh = here.page(dataset, batch.batch_id), _unchecked(dataset, batch, promised)
    try:
        reports = _inspected(here, dataset, batch, inspected)
    except UnreadableFile as fault:
        validation.report_refusal(dataset, batch, [str(fault)], page, unreadable=True)
        return _recorded(here, dataset, replace(fresh, reason=str(fault)), known, say)
    digests = (report.digest for report in reports)
    if known and known.status != "refused" and known.fingerprint == batch.fingerprint(digests):
        here.ledger.touch(known, batch.signature)
        return receipt_of(known, "unchanged")
    tables, threads = here.tables(dataset), here.settings.cores
    with here.scratch(dataset, f"validate-{batch.batch_id}") as scratch:
        found = validation.validate(
            dataset, batch, reports, tables, others, state, scratch=scratch, page=page, threads=threads
        )
    if found.set_aside and not found.refusal:
        aside = ", ".join(f"{rule} {n:,}" for rule, n in found.set_aside.items())
        look = f"vaewatch quarantine show {dataset.name} {batch.batch_id}"
        say(f"set aside: {aside}, not scored; check that the rule is right: {look}")
    for note in () if found.refusal else found.urgent:
        say(f"noted: {note}")
    checked = replace(
        fresh,
        status="refused" if found.refusal else "accepted",
        reason=found.refusal,
        fingerprint=found.fingerprint,
        notes=list(found.notes),
        set_aside=dict(found.set_aside),
        n_read=found.n_read,
        n_accepted=found.n_accepted,
        newest_record_at=found.newest_record_at,
    )
    return _recorded(here, dataset, checked, known, say)


def _inspected(
    here: Installation, dataset: Dataset, batch: LandedBatch, inspected: dict[str, list[FileReport]]
) -> list[FileReport]:
    """Inspect the batch's files, once for a delivery of several batches."""
    from pipeline.incoming import validation

    if batch.delivery not in inspected:
        inspected.clear()  # only the current delivery is kept: its periods come one after another
        inspected[batch.delivery] = validation.examine(dataset, batch, threads=here.settings.cores)
    return inspected[batch.delivery]


def _unchecked(dataset: Dataset, batch: LandedBatch, promised: str) -> BatchState:
    return BatchState(
        dataset=dataset.name,
        batch_id=batch.batch_id,
        version=0,
        status="refused",
        reason="",
        fingerprint=batch.signature,
        signature=batch.signature,
        contract_hash=promised,
        files=[file.relative for file in batch.files],
        notes=[],
        set_aside={},
        n_read=0,
        n_accepted=0,
        newest_record_at=None,
        validated_at=datetime.now(UTC),
    )


def _recorded(
    here: Installation, dataset: Dataset, checked: BatchState, known: BatchState | None, say: Say
) -> BatchReceipt:
    """Write what was found into the ledger; the same refusal of the same delivery is no news.

    known: the batch as it was before; None where somebody asks for it to be checked again.
    """
    from pipeline.report import batch as report

    if checked.status == "refused":
        page = report.write(here, dataset, checked, None)
        say(f"next: {page.trust.next_step}; its page: {page.path}")
    written = here.ledger.record_validation(checked)
    return receipt_of(written, "unchanged" if _is_known(known, written) else checked.status)


def _is_known(before: BatchState | None, now: BatchState | None) -> bool:
    """Return whether a refusal was told before: of the same content, for the same reason."""
    if before is None or now is None:
        return False
    refused = before.status == now.status == "refused"
    return refused and (before.fingerprint, before.reason) == (now.fingerprint, now.reason)


def _due(here: Installation, dataset: Dataset) -> Iterator[LandedBatch]:
    current = here.ledger.current(dataset.name)
    serving = here.ledger.serving_version(dataset.name) is not None
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
    return [batch for batch in found if matches(key, batch.batch_id)]
