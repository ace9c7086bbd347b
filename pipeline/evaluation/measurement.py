"""Two versions on the same records, which neither has learned from.

Belongs here: how they differ, and how far chance alone would move that. Does not: what each scores
(contenders.py), or bounds (judging.py).

Recall is that of injected anomalies (injection.py), each version at its own threshold, since that is what
reviewers will get: records of a contaminated holdout cannot raise it. Baselines have no threshold, so recall
is compared with theirs at equal ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.dataset import Dataset
from pipeline.detection.detector import Detector
from pipeline.detection.features import Features
from pipeline.detection.values import floats
from pipeline.errors import ModelUnusable
from pipeline.evaluation import baselines
from pipeline.evaluation.cause import named
from pipeline.evaluation.contenders import (
    FEWEST,
    Asked,
    Contender,
    Offered,
    Ranks,
    Scored,
    anomaly_scores,
    mean_recall,
)
from pipeline.evaluation.differences import Array, excess, paired, trimmed_mean
from pipeline.evaluation.evidence import Churn, Difference, Evidence, Excess
from pipeline.records.holdout import BATCH_ID, RECORD_KEY, ROW_NUMBER, HeldOut
from pipeline.records.verdicts import anomaly_id

N_BOOTSTRAPS = 200
FAR = 10.0  # widths of what was learned
CLEARLY = 3.0  # a confirmed anomaly is lost where its p-value exceeds this many times the rate of flags
N_EXAMPLES = 100


def measure(
    dataset: Dataset,
    held: HeldOut,
    challenger: Contender,
    champion: Contender | None,
    *,
    batches: tuple[str, str],
    at: datetime,
    learned: pa.Table | None = None,
    offered: Offered | None = None,
    other_seed: Detector | None = None,
    shadow_days: float = 0.0,
    changed: Mapping[str, tuple[str, str]] | None = None,
    serves: bool = True,
) -> Evidence:
    """Measure a challenger beside a champion, or beside another version in the champion's place.

    Args:
        batches: first and last of the window.
        learned: training records, to fit the baselines to; None leaves them out.
        offered: what the challenger's training read, to compare with the holdout; None leaves that out.
        other_seed: the challenger's training under another seed.
        shadow_days: of batches that landed since the challenger was trained.
        changed: settings that differ from the champion's, with its value and the challenger's.
        serves: whether what stands in the champion's place is the champion.

    Raises:
        ModelUnusable: the challenger cannot score the records.
    """
    asked = Asked.of(dataset, held)
    one = Scored(dataset, asked, challenger)
    other, why = _scored_or_not(dataset, asked, champion)
    rivals = _rivals(challenger.detector, asked, learned)
    again = Scored(dataset, asked, Contender(other_seed, None, 0)) if other_seed else None
    return Evidence(
        dataset=dataset.name,
        measured_at=at.isoformat(timespec="milliseconds"),
        first_batch=batches[0],
        last_batch=batches[1],
        holdout=held.share,
        n_holdout=held.records.num_rows,
        n_recent=int(pc.sum(held.recent).as_py() or 0),
        n_newest=held.newest.num_rows,
        budget=one.budget,
        challenger=one.measured(),
        champion=other.measured() if other else None,
        shadow_days=shadow_days,
        incomparable=why,
        learned=_unlike_held(other, offered) if other and offered else None,
        baselines={name: mean_recall(rival.found(one.budget)) for name, rival in rivals.items()},
        differences=_differences(one, other, rivals, again),
        churn=_churn(asked.newest, one, other) if other else None,
        lost=_lost(dataset, held.anomalies, one, other) if other else (),
        changed=changed or {},
        serves=serves,
        constant=constant(challenger.detector.features, champion.detector.features if champion else None),
        unshared=unshared(challenger.detector.features, champion.detector.features) if champion else (),
        far=far(held.newest, champion.detector.features) if champion else (),
    )


def constant(one: Features, other: Features | None) -> tuple[str, ...]:
    """Columns of one value in all that a version learned: those that had several when another one learned;
    without another one all of them, where they are half of its columns or more.
    """
    found = _of_one_value(one)
    if other is None:
        return found if 2 * len(found) >= len(one.numeric) + len(one.categorical) else ()
    theirs = _of_one_value(other)
    return tuple(name for name in found if name in other.columns and name not in theirs)


def unshared(one: Features, other: Features) -> tuple[str, ...]:
    """Return the columns that only one of two versions models, of either in its order."""
    mine, theirs = ((*features.numeric, *features.categorical) for features in (one, other))
    return tuple(name for name in dict.fromkeys((*mine, *theirs)) if (name in mine) != (name in theirs))


def _of_one_value(features: Features) -> tuple[str, ...]:
    found = [name for name, number in features.numeric.items() if number.is_constant]
    return (*found, *(name for name, values in features.categorical.items() if len(values) <= 1))


def far(newest: pa.Table, champion: Features) -> tuple[str, ...]:
    """Columns of which half of the newest values lie FAR times as far from the champion's range as that is
    wide.
    """
    found = []
    for name, number in champion.numeric.items():
        values = floats(newest[name]) if name in newest.column_names else np.empty(0)
        values = values[~np.isnan(values)]
        off = FAR * ((number.highest - number.lowest) or abs(number.highest) or 1.0)
        beyond = (values < number.lowest - off) | (values > number.highest + off)
        if len(values) and beyond.mean() >= 0.5:
            found.append(name)
    return tuple(found)


def _scored_or_not(dataset: Dataset, asked: Asked, contender: Contender | None) -> tuple[Scored | None, str]:
    if contender is None:
        return None, ""
    try:
        if changed := contender.detector.other_derived(dataset):
            return (
                None,
                f"{_whose(contender)} learned other derived columns than the dataset's file has now ({named(changed)})",
            )
        lacking = [c for c in contender.detector.features.columns if c not in asked.records.column_names]
        if lacking:
            return (
                None,
                f"{_whose(contender)} also reads {named(lacking)}, which the dataset's file leaves out now",
            )
        return Scored(dataset, asked, contender), ""
    except ModelUnusable as fault:
        return None, f"{_whose(contender)}: {fault}"


def _whose(contender: Contender) -> str:
    return f"version {contender.version}"


def _unlike_held(other: Scored, offered: Offered) -> Excess | None:
    """Return how much of what a training read is odder, to another version, than what was held out beside it.

    Keys alone decide which record of a batch is held out: an event or a new regime is in both alike.
    """
    held = other.asked.records[BATCH_ID]
    beside = pc.is_in(held, value_set=pa.array(offered.batch_ids, held.type)).to_numpy()
    read = other.detector.score_table(offered.records)["reconstruction"].to_numpy()
    return excess(read, other.records["reconstruction"].to_numpy()[beside])


def _rivals(detector: Detector, asked: Asked, learned: pa.Table | None) -> dict[str, Ranks]:
    if learned is None or learned.num_rows < FEWEST or not asked.injected:
        return {}
    scores = baselines.fitted(
        detector.features, learned, detector.vae.recipe.latents_for(detector.features.layout)
    )
    return {
        name: Ranks.of(asked, of(asked.records), {kind: of(table) for kind, table in asked.injected.items()})
        for name, of in scores.items()
    }


def _differences(
    one: Scored, other: Scored | None, rivals: Mapping[str, Ranks], again: Scored | None
) -> dict[str, Difference]:
    found = {}
    if one.injected:
        before = one.flags(one.normal[one.asked.based])
        found["unaltered"] = paired([hits * 1.0 - before for hits in one.found.values()])
    if other and one.injected:
        mine, theirs = one.found, other.found
        found["recall"] = paired([mine[k] * 1.0 - theirs[k] for k in mine])
        found |= {f"recall of {kind}": paired([mine[kind] * 1.0 - theirs[kind]]) for kind in mine}
    if other and one.nats is not None and other.nats is not None:
        found["negative_elbo"] = trimmed_mean(one.nats - other.nats)
    if again and one.injected:
        found["another seed"] = paired([one.found[k] * 1.0 - again.found[k] for k in one.found])
    for name, rival in rivals.items():
        found[name] = _bootstrapped(one, rival)
    return found


def _bootstrapped(one: Scored, rival: Ranks) -> Difference:
    """Return the difference from a baseline at equal ranks.

    Its thresholds are chance's, too: both are drawn anew with the records (Efron 1979).
    """
    random = np.random.default_rng(0)

    def difference(records: Array, based: Array) -> float:
        mine, theirs = (ranks.found(one.budget, records, based) for ranks in (one.ranks, rival))
        return mean_recall(mine) - mean_recall(theirs)

    n, n_based = len(one.normal), len(one.asked.based)
    drawn = [
        difference(random.integers(n, size=n), random.integers(n_based, size=n_based))
        for _ in range(N_BOOTSTRAPS)
    ]
    return Difference(difference(np.arange(n), np.arange(n_based)), float(np.std(drawn)), n_based)


def _churn(newest: pa.Table, one: Scored, other: Scored) -> Churn:
    score_mine, score_theirs = anomaly_scores(one.newest), anomaly_scores(other.newest)
    mine, theirs = one.flags(score_mine), other.flags(score_theirs)
    p_mine, p_theirs = (x.newest["p_value"].to_numpy() for x in (one, other))
    differing = np.flatnonzero(mine != theirs)
    severe = differing[np.argsort(np.minimum(p_mine, p_theirs)[differing], kind="stable")][:N_EXAMPLES]
    reasons = _reasons(newest, severe[mine[severe]], one) | _reasons(newest, severe[theirs[severe]], other)
    examples = tuple(
        {
            "batch_id": newest[BATCH_ID][i].as_py(),
            "record_key": newest[RECORD_KEY][i].as_py(),
            "row_number": newest[ROW_NUMBER][i].as_py(),
            "by": "challenger" if mine[i] else "champion",
            "score": float(score_mine[i]),
            "score_champion": float(score_theirs[i]),
            "p_value": float(p_mine[i]),
            "p_value_champion": float(p_theirs[i]),
            "reasons": reasons[i],
        }
        for i in severe.tolist()
    )
    thresholds = float(one.threshold.value), float(other.threshold.value)
    return Churn(int((mine | theirs).sum()), len(differing), examples, *thresholds)


def _reasons(newest: pa.Table, places: Array, flagging: Scored) -> dict[int, list[dict[str, Any]]]:
    """Return why the version that flags these records does, by place."""
    if not len(places):
        return {}
    found = flagging.detector.explain(newest.take(pa.array(places)), flagging.dataset)
    return {place: why.reasons for place, why in zip(places.tolist(), found, strict=True)}


def _lost(dataset: Dataset, anomalies: pa.Table, one: Scored, other: Scored) -> tuple[str, ...]:
    """Return the anomalies that became ordinary.

    Slipping below the threshold is not enough: two equal trainings do not agree on that.
    """
    if not anomalies.num_rows:
        return ()
    ordinary = one.detector.score_table(anomalies)["p_value"].to_numpy() > CLEARLY * one.threshold.error_rate
    flagged = other.flags(other.values(anomalies))
    lost = anomalies.filter(pa.array(ordinary & flagged)).select([BATCH_ID, RECORD_KEY]).to_pylist()
    return tuple(anomaly_id(dataset.name, row[BATCH_ID], row[RECORD_KEY]) for row in lost)
