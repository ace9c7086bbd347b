"""Score what was accepted with the champion.

Belongs here: the step score, and what follows from a scored batch: queue, measures, page, messages. Does not:
the scores themselves (pipeline/detection/scoring.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from pipeline.config.dataset import Dataset
from pipeline.errors import NotReady
from pipeline.installation import Installation
from pipeline.misread import meant
from pipeline.steps.keys import RANGE, Say, check_key, guarded, matches, say_batch, width_of
from pipeline.steps.receipts import BatchReceipt, Receipt, receipt_of, summary
from pipeline.storage.ledger import BatchState

if TYPE_CHECKING:
    from pipeline.detection.detector import Detector
    from pipeline.detection.scoring import ScoredBatch
    from pipeline.registry import ModelVersion
    from pipeline.report.gates import Judgement

NEXT = 14  # batches after those scored just now that are judged again; for others: vaewatch report


def score(
    here: Installation,
    dataset_name: str,
    key: str | None = None,
    *,
    force: bool = False,
    say: Say = lambda _: None,
) -> Receipt:
    """Score accepted batches with the champion and publish scores and flagged records.

    Args:
        key: a batch_id, a range "first..last", or None for all that wait.
        force: score again what was scored before.

    Raises:
        NotReady: the batch was never validated.
        ConfigError: the range ends before it begins.
        RegistryUnreachable, StorageFailed: nothing was published for the batch at hand; a retry may help.
    """
    from pipeline.notify import alerts, digest
    from pipeline.report import glance, metrics, newest

    dataset = here.dataset(dataset_name)
    check_key(dataset.name, key)
    current = here.ledger.current(dataset.name)
    states = [current[b] for b in sorted(current) if matches(key, b)]
    if not states and key is not None and RANGE not in key:
        raise NotReady(
            f"{dataset_name}: batch {key!r} was never validated; {meant(key, current)} (`vaewatch validate {dataset_name}` takes in what has landed)"
        )
    waiting = [s for s in states if s.status == "accepted" or (force and s.status == "scored")]
    receipts = [  # a refused batch is news only to who asks for it: validation has reported it
        receipt_of(s, "refused" if key and s.status == "refused" else "unchanged")
        for s in states
        if s not in waiting
    ]
    champion = here.registry.champion(dataset.name) if waiting else None
    if champion is None:
        receipts += [replace(receipt_of(s, "waiting"), reason="no champion yet") for s in waiting]
    else:
        receipts += _scored_by(champion, here, dataset, waiting, current, say)
    done = {receipt.batch_id for receipt in receipts if receipt.outcome == "scored"}
    current = here.ledger.current(dataset.name) if done else current
    rewritten = _in_order(here, dataset, done, current)
    here.ledger.release_claims(dataset.name, [state.batch_id for state in states])
    outdated, marked = _outdated(here, dataset, done, current)
    if champion and done:
        newest.keep(here, dataset, champion, current.values(), say)
        of_others = {one for one in rewritten | marked if current[one].model_version != champion.version}
        newest.follow(here, dataset, of_others, current.values(), say)
    digest.tell(here, dataset, say, failed=[one.batch_id for one in receipts if one.outcome == "failed"])
    alerts.tell(here, dataset, say)
    if waiting:
        metrics.publish(here, say)
    receipts.sort(key=lambda receipt: receipt.batch_id)
    version = champion.version if champion else None
    n_flagged = {one.batch_id: one.n_flagged or 0 for one in receipts if one.outcome == "scored"}
    follows = glance.next_step(here, dataset, n_flagged)
    return Receipt(
        "score", dataset.name, summary(receipts), tuple(receipts), version, notes=outdated, next=follows
    )


def _in_order(
    here: Installation, dataset: Dataset, scored_now: Set[str], current: Mapping[str, BatchState]
) -> set[str]:
    """Judge batches again that were measured before earlier ones arrived; return those that were judged anew.

    Looked at are the ones scored just now, and the next ones after them.
    """
    from pipeline.monitoring import store, watch
    from pipeline.records.window import age, day
    from pipeline.report import batch as report

    if not scored_now:
        return set()
    rewritten = set()
    *others, last = sorted((current[one] for one in scored_now), key=age)
    after = store.ids_after(here.ledger, dataset.name, day(last), last.batch_id, NEXT)
    for batch_id in [*(state.batch_id for state in others), last.batch_id, *after]:
        if watch.judge_again(here, dataset, batch_id, current):
            report.rewrite(here, dataset, batch_id)
            rewritten.add(batch_id)
    return rewritten


def _outdated(
    here: Installation, dataset: Dataset, scored_now: Set[str], current: Mapping[str, BatchState]
) -> tuple[tuple[str, ...], set[str]]:
    """Return notes on scored batches that looked back on records that changed since.

    And the batches outdated by what was scored now: their pages are rewritten.
    """
    from pipeline.records import looking_back
    from pipeline.report import batch as report

    if not dataset.derived:
        return (), set()
    found = looking_back.outdated(current.values())
    marked = {batch_id for batch_id, behind in found.items() if scored_now & set(behind)}
    for batch_id in marked:
        report.rewrite(here, dataset, batch_id)
    return tuple(looking_back.notes(dataset.name, found, list(current))), marked


def _scored_by(
    champion: ModelVersion,
    here: Installation,
    dataset: Dataset,
    waiting: Sequence[BatchState],
    current: Mapping[str, BatchState],
    say: Say,
) -> list[BatchReceipt]:
    from pipeline.notify import digest
    from pipeline.report.gates import judgement
    from pipeline.results import flagging

    if len(waiting) > 1:
        say(f"{len(waiting)} batches to score with version {champion.version}")
    detector, judged = here.detector(champion), judgement(here, dataset, champion)
    flagging.takes_effect(here, dataset, champion, detector.threshold(dataset.flag).value)
    width, receipts = width_of(state.batch_id for state in waiting), list[BatchReceipt]()
    for state in waiting:
        lines = list[str]()
        work = partial(_score, alone=not width, say=lines.append)
        of = here, dataset, state, detector, champion, judged, current
        receipts.append(guarded(state.batch_id, work, *of))
        say_batch(say, receipts[-1], width, lines)
        alone = receipts[-1].outcome == "scored" and not width
        if alone and (text := digest.digest(here, dataset, state.batch_id)):
            say(text)
    if here.ledger.serving_version(dataset.name) != champion.version:
        here.ledger.set_serving(dataset.name, champion.version)
    return receipts


def _score(
    here: Installation,
    dataset: Dataset,
    state: BatchState,
    detector: Detector,
    champion: ModelVersion,
    judged: Judgement | None,
    current: Mapping[str, BatchState],
    *,
    alone: bool,
    say: Say,
) -> BatchReceipt:
    """Score one batch, and say what needs attention; for a batch alone, also where its page is."""
    from pipeline.monitoring.findings import gathered
    from pipeline.monitoring.watch import is_odd, watch
    from pipeline.report import batch as report
    from pipeline.review.filling import fill

    scored = _scores(here, dataset, state, detector, champion, current)
    threshold = scored.threshold if scored else detector.threshold(dataset.flag)
    scored_at = datetime.now(UTC)
    fill(here, dataset, replace(state, model_version=champion.version), scored_at=scored_at, told=False)
    backlog = _backlog(here, dataset, scored_at)
    watched = watch(
        here, dataset, state, detector, champion, scored, current, backlog=backlog, scored_at=scored_at
    )
    for finding in (f for f in gathered(watched.findings, dataset) if f.severity != "notice"):
        say(f"{finding.severity}: {finding.what}; {finding.next_step}")
    done = replace(
        state, status="scored", model_version=champion.version, threshold=threshold.value, scored_at=scored_at
    )
    page = report.write(here, dataset, done, champion, judged)
    if alone or page.trust.tone not in {"good", "notice"}:
        say(f"{page.trust.headline}: {page.path}")
    written = here.ledger.record_scores(
        state,
        model_version=champion.version,
        threshold=threshold.value,
        n_flagged=scored.n_flagged if scored else 0,
        above_usual=scored.above if scored else None,
        is_odd=is_odd(watched.findings) if scored else None,
        looks_since=scored.looks_since if scored else None,
        looked_back=scored.looked_back if scored else None,
        tone=page.trust.tone,
        headline=page.trust.headline,
    )
    return receipt_of(written, "scored")


def _scores(
    here: Installation,
    dataset: Dataset,
    state: BatchState,
    detector: Detector,
    champion: ModelVersion,
    current: Mapping[str, BatchState],
) -> ScoredBatch | None:
    """Score and publish; None where no record was accepted."""
    from pipeline.detection.scoring import score_batch

    if state.n_accepted == 0:
        return None
    with here.scratch(dataset, f"score-{state.batch_id}") as scratch:
        return score_batch(
            dataset,
            state,
            detector,
            champion.version,
            here.tables(dataset),
            batches=list(current.values()),
            scratch=scratch,
            threads=here.settings.cores,
        )


def _backlog(here: Installation, dataset: Dataset, at: datetime) -> int:
    """Count flagged records that have waited for a person for longer than a day."""
    from pipeline.review import intake, queue
    from pipeline.review.filters import Filters

    n_open = queue.total(here.ledger, Filters(dataset=dataset.name, kind="flagged", state="open"))
    return max(0, n_open - intake.flagged_since(here.ledger, dataset.name, at - timedelta(days=1)))
