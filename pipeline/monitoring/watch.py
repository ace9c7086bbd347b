"""Measure a batch that has just been scored, compare it with earlier ones, and keep both.

Belongs here: where each number comes from. Does not: how it is computed (detection/measures.py), or what it
means (judgement.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config.dataset import Dataset
from pipeline.detection.measures import TAIL, Measures, column_drift
from pipeline.incoming.batches import is_undated
from pipeline.installation import Installation
from pipeline.monitoring import store
from pipeline.monitoring.findings import STRAYS, Finding, news
from pipeline.monitoring.judgement import judge
from pipeline.monitoring.store import Watched
from pipeline.records import window
from pipeline.storage.ledger import BatchState

if TYPE_CHECKING:
    from pipeline.detection.detector import Detector
    from pipeline.detection.scoring import ScoredBatch
    from pipeline.registry import ModelVersion


def watch(
    here: Installation,
    dataset: Dataset,
    state: BatchState,
    detector: Detector,
    champion: ModelVersion,
    scored: ScoredBatch | None,
    current: Mapping[str, BatchState],
    *,
    backlog: int,
    scored_at: datetime,
) -> Watched:
    """Measure, judge and keep. Idempotent: the batch has one row.

    Args:
        scored: None for a batch without an accepted record.
        backlog: flagged records of the dataset that have waited for a person for longer than a day.
        current: every batch as the ledger has it; one that was refused since it was measured is no history.
    """
    name, day = dataset.name, window.day(state)
    past = [
        one for one in store.before(here.ledger, name, day, state.batch_id) if _counts(one.batch_id, current)
    ]
    champion_days = (scored_at - champion.created_at).total_seconds() / 86_400
    learned = window.is_learned(state, champion.tags, champion.created_at, current)
    measured = _measured(state, detector, scored, champion_days, backlog)
    newest = _is_newest(state, current)
    now = replace(measured, n_earlier=len(past), learned=learned, is_newest=newest)
    former = store.one(here.ledger, name, state.batch_id)
    told = [finding for finding in former.findings if finding.told] if former else []
    strays = scored is None and is_undated(state.batch_id)
    findings = (
        [_of_strays(dataset, state)]
        if strays
        else judge(now, past, day, dataset=dataset, batch_id=state.batch_id)
    )
    watched = Watched(
        batch_id=state.batch_id,
        day=day,
        measures=now,
        findings=_known(findings, told),
        model_version=champion.version,
        measured_at=scored_at,
    )
    store.replace(here.ledger, name, watched)
    return watched


def judge_again(
    here: Installation, dataset: Dataset, batch_id: str, current: Mapping[str, BatchState]
) -> bool:
    """Judge a batch again if it was measured before some that come before it in time.

    A backlog's batches are scored in parallel and finish in any order. Returns whether anything was written.
    """
    name, watched = dataset.name, store.one(here.ledger, dataset.name, batch_id)
    if watched is None or is_undated(batch_id):
        return False
    earlier = store.ids_before(here.ledger, name, watched.day, batch_id)
    if sum(_counts(one, current) for one in earlier) == watched.measures.n_earlier:
        return False
    before = store.before(here.ledger, name, watched.day, batch_id)
    past = [one for one in before if _counts(one.batch_id, current)]
    now = replace(watched.measures, n_earlier=len(past))
    told = [finding for finding in watched.findings if finding.told]
    findings = _known(judge(now, past, watched.day, dataset=dataset, batch_id=batch_id), told)
    written = store.judge_again(here.ledger, name, replace(watched, measures=now, findings=findings))
    if written and (state := current.get(batch_id)):
        here.ledger.mark_odd(state, is_odd=is_odd(findings))
    return written


def is_odd(findings: Iterable[Finding]) -> bool:
    """Return whether a batch as a whole scores higher than usual."""
    return any(finding.key == "scores" for finding in findings)


def _counts(batch_id: str, current: Mapping[str, BatchState]) -> bool:
    """Return whether a measured batch is history for later ones."""
    known = current.get(batch_id)
    return known is not None and known.status != "refused" and not is_undated(batch_id)


def _is_newest(state: BatchState, current: Mapping[str, BatchState]) -> bool:
    """Return whether no batch that counts comes after this one in time."""
    here = window.day(state), state.batch_id
    others = (one for one in current.values() if _counts(one.batch_id, current))
    return all((window.day(one), one.batch_id) <= here for one in others)


def _known(findings: Sequence[Finding], told: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the findings, with those marked that people know of."""
    new = news(findings, told)
    return tuple(replace(finding, told=finding not in new) for finding in findings)


def _of_strays(dataset: Dataset, state: BatchState) -> Finding:
    """Return the finding on a cut delivery's records of another time, instead of one on too small a day."""
    one = state.n_read == 1
    others = "1 record is set aside: its" if one else f"{state.n_read:,} records are set aside: their"
    what = f"{others} time is not the one in the delivery's name"
    next_step = f"look at them: vaewatch quarantine show {dataset.name} {state.batch_id}"
    return Finding(STRAYS, "warning", what, next_step, value=float(state.n_read))


def _measured(
    state: BatchState, detector: Detector, scored: ScoredBatch | None, champion_days: float, backlog: int
) -> Measures:
    columns = {}
    if scored is not None and detector.reference is not None:
        columns = column_drift(detector.reference, detector.features, scored.sample)
    n = scored.n_records if scored else 0
    return Measures(
        n_records=n,
        n_sampled=scored.sample.num_rows if scored else 0,
        n_flagged=scored.n_flagged if scored else 0,
        expected_flagged=scored.threshold.error_rate * n if scored else 0.0,
        above=scored.above if scored else None,
        tail=float(np.mean(scored.sample["p_value"].to_numpy() <= TAIL)) if scored else None,
        n_read=state.n_read,
        n_set_aside=state.n_set_aside,
        highest=tuple(score for score, _ in scored.highest) if scored else (),
        highest_by=tuple(column for _, column in scored.highest) if scored else (),
        normal=detector.calibration.spread if scored else None,
        champion_days=max(0.0, champion_days),
        backlog=backlog,
        columns=columns,
    )
