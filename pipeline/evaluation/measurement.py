"""Two versions on the same records, none of which either has learned from.

Belongs here: what is measured, in which units, and how far chance alone would move it. Does not: bounds
(judging.py).

Recall is that of injected anomalies (injection.py), each version at its own threshold, since that is what
reviewers will get: records of a contaminated holdout cannot raise it. Baselines have no threshold: with them,
recall is compared at equal ranks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.dataset import Dataset
from pipeline.detection.calibration import usual_hits, without_excess
from pipeline.detection.detector import Detector
from pipeline.detection.scoring import check_derived
from pipeline.errors import ModelUnusable
from pipeline.evaluation import baselines
from pipeline.evaluation.evidence import TAIL, Churn, Difference, Evidence, Measured, Share
from pipeline.evaluation.injection import MOST as MOST_INJECTED
from pipeline.evaluation.injection import falsifiable, gross, injected
from pipeline.records.holdout import BATCH_ID, RECORD_KEY, HeldOut
from pipeline.records.verdicts import anomaly_id
from pipeline.records.window import DAY

FEWEST = 100  # holdout records for any comparison
TRIM = 0.05  # of the records on either side, for means of nats: one absurd value would decide them
FEWEST_ABOVE = 10  # records above a threshold by rank
N_BOOTSTRAPS = 200
CLEARLY = 3.0  # a confirmed anomaly is lost where its p-value is so many times the rate of flags
N_TIMED, N_TIMINGS, N_GROSS, N_EXAMPLES = 2_000, 3, 1_000, 100

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Contender:
    """A version to be measured. n_learned: records that it learned from."""

    detector: Detector
    version: int | None
    n_learned: int


def measure(
    dataset: Dataset,
    held: HeldOut,
    challenger: Contender,
    champion: Contender | None,
    *,
    batches: tuple[str, str],
    at: datetime,
    learned: pa.Table | None = None,
    other_seed: Detector | None = None,
    shadow_days: float = 0.0,
    changed: Mapping[str, tuple[str, str]] | None = None,
    serves: bool = True,
) -> Evidence:
    """Measure a challenger, and a champion beside it, or another version in the champion's place.

    Args:
        batches: first and last of the window.
        learned: training records, to fit the baselines to; None leaves them out.
        other_seed: the challenger's training under another seed.
        shadow_days: of batches that landed since the challenger was trained.
        changed: settings that are not the champion's, with its value and the challenger's.
        serves: whether what stands in the champion's place is the champion.

    Raises:
        ModelUnusable: the challenger cannot score the records.
    """
    asked = _Asked.of(dataset, held)
    one = _Scored(dataset, asked, challenger)
    other, why = _scored_or_not(dataset, asked, champion)
    rivals = _rivals(challenger.detector, asked, learned)
    again = _Scored(dataset, asked, Contender(other_seed, None, 0)) if other_seed else None
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
        baselines={name: _mean(rival.found(one.budget)) for name, rival in rivals.items()},
        differences=_differences(one, other, rivals, again),
        churn=_churn(asked.newest, one, other) if other else None,
        lost=_lost(dataset, held.anomalies, one, other) if other else (),
        changed=changed or {},
        serves=serves,
    )


@dataclass(frozen=True)
class _Asked:
    """What every version is asked about. injected: falsified copies of the holdout's records `based`, which
    are row numbers.
    """

    held: HeldOut
    records: pa.Table
    based: Array
    injected: Mapping[str, pa.Table]
    newest: pa.Table
    ordinary: pa.Table
    gross: pa.Table

    @classmethod
    def of(cls, dataset: Dataset, held: HeldOut) -> _Asked:
        records, newest = held.records, held.newest
        based = _every(records, MOST_INJECTED, dataset)
        kinds = injected(dataset, records.take(pa.array(based))) if records.num_rows >= FEWEST else {}
        ordinary = newest.take(pa.array(_every(newest, N_GROSS, dataset)))
        return cls(held, records, based, kinds, newest, ordinary, gross(dataset, ordinary))


def _every(records: pa.Table, most: int, dataset: Dataset) -> Array:
    """So many of the records that can be falsified, evenly from all of the days; of all where none can."""
    rows = np.flatnonzero(falsifiable(dataset, records))
    rows = rows if len(rows) else np.arange(records.num_rows)
    return rows[:: max(1, -(-len(rows) // most))]


class _Scored:
    """One version's scores of all that was asked."""

    def __init__(self, dataset: Dataset, asked: _Asked, contender: Contender) -> None:
        self.dataset, self.asked, self.contender = dataset, asked, contender
        self.detector = contender.detector
        calibration, per_day = self.detector.calibration, self.detector.records_per_day
        self.threshold = calibration.threshold(dataset.flag, per_day)
        self.records = self.detector.score_table(asked.records)
        self.normal = _values(self.records)
        self.injected = {kind: self.values(table) for kind, table in asked.injected.items()}
        self.newest = self.detector.score_table(asked.newest)

    def values(self, table: pa.Table) -> Array:
        return _values(self.detector.score_table(table))

    def flags(self, values: Array) -> Array:
        return values > self.threshold.value

    @property
    def budget(self) -> float:
        """The share that is flagged, or as much of it as these few records can tell."""
        return min(0.5, max(self.threshold.error_rate, FEWEST_ABOVE / max(1, len(self.normal))))

    @property
    def found(self) -> dict[str, Array]:
        """Which injected anomalies are above the version's own threshold, by kind."""
        return {kind: self.flags(values) for kind, values in self.injected.items()}

    @cached_property
    def ranks(self) -> _Ranks:
        return _Ranks.of(self.asked, self.normal, self.injected)

    @cached_property
    def nats(self) -> Array | None:
        """(n_records,) negative ELBO in the columns' own units: NaN where a category is new to the version.

        Each version standardises by its own features: ln |dz/dx| makes densities of z comparable as densities
        of x.
        """
        bound = self.detector.negative_elbo(self.asked.records)
        if bound is None:
            return None
        features = self.detector.features
        in_units = bound.astype(np.float64) - features.log_slope(self.asked.records)
        return np.where(features.knows(features.records(self.asked.records)), in_units, np.nan)

    def measured(self) -> Measured:
        detector, flag, held = self.detector, self.dataset.flag, self.asked.held
        grossly = self.values(self.asked.gross)
        ordinary = self.values(self.asked.ordinary)
        odd, normal = (
            self.flags(self.values(table)) if table.num_rows else np.zeros(0, bool)
            for table in (held.anomalies_held, held.normals_held)
        )
        found = self.found
        return Measured(
            version=self.contender.version,
            n_learned=self.contender.n_learned,
            recall=_mean(found) if found else None,
            recall_of={kind: float(hits.mean()) for kind, hits in found.items()},
            ranked_recall=_mean(self.ranks.found(self.budget)) if found else None,
            negative_elbo=None if self.nats is None else _trimmed(self.nats).value,
            kl_divergence=float(self.records["kl_divergence"].to_numpy().mean()) if len(self.normal) else 0.0,
            flagged=self._recent(self.flags(self.normal)),
            promised_rate=None if flag.false_discovery_rate else self.threshold.error_rate,
            in_tail=self._recent(self.records["p_value"].to_numpy() <= TAIL),
            gross=_above(grossly, ordinary),
            distinct=self._distinct(ordinary),
            cpu_us=_cpu_us(detector, self.asked.newest.slice(0, N_TIMED)),
            precision=Share(int(odd.sum()), int(odd.sum() + normal.sum())),
            confirmed=Share(int(odd.sum()), len(odd)),
        )

    def _distinct(self, ordinary: Array) -> float:
        """Different scores for each different record: a table of few categories has few of either."""
        if not np.isfinite(ordinary).all():
            return 0.0
        records = self.asked.ordinary.select(self.detector.features.columns)
        n_different: int = records.group_by(records.column_names).aggregate([]).num_rows
        return len(np.unique(ordinary)) / n_different

    def _recent(self, hits: Array) -> Share:
        """Of the newest days' holdout; a day of an event counts as it does where thresholds are set."""
        recent = self.asked.held.recent.to_numpy()
        days = self.asked.held.records[DAY].to_numpy()[recent]
        return Share(usual_hits(hits[recent], days), int(recent.sum()))


@dataclass(frozen=True)
class _Ranks:
    """Scores that are compared by their order alone, whoever gave them.

    usual: which of the holdout's records say what is normal: as where thresholds are set, a day of an event
        has no more of the highest than others.
    """

    normal: Array
    usual: Array
    injected: Mapping[str, Array]

    @classmethod
    def of(cls, asked: _Asked, normal: Array, injected: Mapping[str, Array]) -> _Ranks:
        return cls(normal, without_excess(normal, asked.records[DAY].to_numpy()), injected)

    def found(
        self, budget: float, records: Array | slice = slice(None), based: Array | slice = slice(None)
    ) -> dict[str, Array]:
        """Which injected anomalies are above this share of the usual records, by kind; of the chosen ones."""
        usual = self.normal[records][self.usual[records]]
        threshold = np.quantile(usual, 1 - budget) if len(usual) else np.inf
        return {kind: values[based] > threshold for kind, values in self.injected.items()}


def _scored_or_not(
    dataset: Dataset, asked: _Asked, contender: Contender | None
) -> tuple[_Scored | None, str]:
    if contender is None:
        return None, ""
    try:
        check_derived(dataset, contender.detector)
        return _Scored(dataset, asked, contender), ""
    except ModelUnusable as fault:
        return None, str(fault)


def _rivals(detector: Detector, asked: _Asked, learned: pa.Table | None) -> dict[str, _Ranks]:
    if learned is None or learned.num_rows < FEWEST or not asked.injected:
        return {}
    scores = baselines.fitted(
        detector.features, learned, detector.vae.recipe.latents_for(detector.features.layout)
    )
    return {
        name: _Ranks.of(asked, of(asked.records), {kind: of(table) for kind, table in asked.injected.items()})
        for name, of in scores.items()
    }


def _differences(
    one: _Scored, other: _Scored | None, rivals: Mapping[str, _Ranks], again: _Scored | None
) -> dict[str, Difference]:
    found = {}
    if one.injected:
        before = one.flags(one.normal[one.asked.based])
        found["unaltered"] = _paired([hits * 1.0 - before for hits in one.found.values()])
    if other and one.injected:
        mine, theirs = one.found, other.found
        found["recall"] = _paired([mine[k] * 1.0 - theirs[k] for k in mine])
        found |= {f"recall of {kind}": _paired([mine[kind] * 1.0 - theirs[kind]]) for kind in mine}
    if other and one.nats is not None and other.nats is not None:
        found["negative_elbo"] = _trimmed(one.nats - other.nats)
    if again and one.injected:
        found["another seed"] = _paired([one.found[k] * 1.0 - again.found[k] for k in one.found])
    for name, rival in rivals.items():
        found[name] = _bootstrapped(one, rival)
    return found


def _paired(differences: Sequence[Array]) -> Difference:
    """A record's kinds belong together: its mean is one observation."""
    each = np.mean(differences, axis=0)
    return Difference(float(each.mean()), float(each.std() / np.sqrt(max(1, len(each)))), len(each))


def _bootstrapped(one: _Scored, rival: _Ranks) -> Difference:
    """At equal ranks the thresholds are chance's, too: both are drawn anew with the records (Efron 1979)."""
    random = np.random.default_rng(0)

    def difference(records: Array, based: Array) -> float:
        mine, theirs = (ranks.found(one.budget, records, based) for ranks in (one.ranks, rival))
        return _mean(mine) - _mean(theirs)

    n, n_based = len(one.normal), len(one.asked.based)
    drawn = [
        difference(random.integers(n, size=n), random.integers(n_based, size=n_based))
        for _ in range(N_BOOTSTRAPS)
    ]
    return Difference(difference(np.arange(n), np.arange(n_based)), float(np.std(drawn)), n_based)


def _trimmed(values: Array) -> Difference:
    """Mean without the lowest and highest 5 %, and its standard error from the winsorised deviation (Tukey &
    McLaughlin 1963).
    """
    values = np.sort(values[np.isfinite(values)])
    cut = int(TRIM * len(values))
    kept = values[cut : len(values) - cut]
    if not len(kept):
        return Difference(0.0, float("inf"), 0)
    winsorised = values.clip(kept[0], kept[-1])
    error = winsorised.std() / ((1 - 2 * TRIM) * np.sqrt(len(values)))
    return Difference(float(kept.mean()), float(error), len(values))


def _churn(newest: pa.Table, one: _Scored, other: _Scored) -> Churn:
    score_mine, score_theirs = _values(one.newest), _values(other.newest)
    mine, theirs = one.flags(score_mine), other.flags(score_theirs)
    p_mine, p_theirs = (x.newest["p_value"].to_numpy() for x in (one, other))
    differing = np.flatnonzero(mine != theirs)
    severe = differing[np.argsort(np.minimum(p_mine, p_theirs)[differing], kind="stable")][:N_EXAMPLES]
    examples = tuple(
        {
            "batch_id": newest[BATCH_ID][i].as_py(),
            "record_key": newest[RECORD_KEY][i].as_py(),
            "by": "challenger" if mine[i] else "champion",
            "score": float(score_mine[i]),
            "score_champion": float(score_theirs[i]),
            "p_value": float(p_mine[i]),
            "p_value_champion": float(p_theirs[i]),
        }
        for i in severe.tolist()
    )
    thresholds = float(one.threshold.value), float(other.threshold.value)
    return Churn(int((mine | theirs).sum()), len(differing), examples, *thresholds)


def _lost(dataset: Dataset, anomalies: pa.Table, one: _Scored, other: _Scored) -> tuple[str, ...]:
    """Not those that merely slipped below the threshold: two equal trainings do not agree on these."""
    if not anomalies.num_rows:
        return ()
    ordinary = one.detector.score_table(anomalies)["p_value"].to_numpy() > CLEARLY * one.threshold.error_rate
    flagged = other.flags(other.values(anomalies))
    lost = anomalies.filter(pa.array(ordinary & flagged)).select([BATCH_ID, RECORD_KEY]).to_pylist()
    return tuple(anomaly_id(dataset.name, row[BATCH_ID], row[RECORD_KEY]) for row in lost)


def _values(scores: pa.Table) -> Array:
    return np.asarray(scores["anomaly_score"].to_numpy())


def _mean(found: Mapping[str, Array]) -> float:
    return float(np.mean([hits.mean() for hits in found.values()]))


def _above(high: Array, low: Array) -> float:
    """Chance that one of the first is above one of the second, ties by half (Mann & Whitney 1947)."""
    low = np.sort(low)
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(np.mean(below)) / 2 / max(1, len(low))


def _cpu_us(detector: Detector, table: pa.Table) -> float:
    detector.score_table(table, threads=1)
    taken = []
    for _ in range(N_TIMINGS):
        started = time.thread_time()
        detector.score_table(table, threads=1)
        taken.append(time.thread_time() - started)
    return 1e6 * min(taken) / max(1, int(table.num_rows))
