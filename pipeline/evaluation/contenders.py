"""The records that versions are measured on, and each version's scores of them.

Belongs here: the records, real and falsified, and one version's scores of all of them. Does not: comparing
two versions (measurement.py), or how anomalies are injected (injection.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from pipeline.config.dataset import Dataset
from pipeline.detection.calibration import usual_hits, without_excess
from pipeline.detection.detector import Detector
from pipeline.evaluation.differences import Array, chance_above, trimmed_mean
from pipeline.evaluation.evidence import TAIL, Measured, Share
from pipeline.evaluation.injection import MOST as MOST_INJECTED
from pipeline.evaluation.injection import falsifiable, gross, injected
from pipeline.records.holdout import HeldOut
from pipeline.records.window import DAY

FEWEST = 100  # holdout records for any comparison
FEWEST_ABOVE = 10  # records above a threshold by rank
N_TIMED, N_TIMINGS, N_GROSS = 2_000, 3, 1_000


@dataclass(frozen=True)
class Contender:
    """A version to be measured. n_learned: records that it learned from."""

    detector: Detector
    version: int | None
    n_learned: int


@dataclass(frozen=True)
class Offered:
    """Records that a challenger's training read, before it left any out: a sample drawn by their keys.

    batch_ids: of the batches that they are from.
    """

    records: pa.Table
    batch_ids: Sequence[str]


@dataclass(frozen=True)
class Asked:
    """The records that every version scores.

    injected: falsified copies of the holdout's records `based`, which are row numbers.
    """

    held: HeldOut
    records: pa.Table
    based: Array
    injected: Mapping[str, pa.Table]
    newest: pa.Table
    ordinary: pa.Table
    gross: pa.Table

    @classmethod
    def of(cls, dataset: Dataset, held: HeldOut) -> Asked:
        records, newest = held.records, held.newest
        based = _every(records, MOST_INJECTED, dataset)
        kinds = injected(dataset, records.take(pa.array(based))) if records.num_rows >= FEWEST else {}
        ordinary = newest.take(pa.array(_every(newest, N_GROSS, dataset)))
        return cls(held, records, based, kinds, newest, ordinary, gross(dataset, ordinary))


def _every(records: pa.Table, most: int, dataset: Dataset) -> Array:
    """Return at most ``most`` falsifiable records, evenly from all days; from all records where none are."""
    rows = np.flatnonzero(falsifiable(dataset, records))
    rows = rows if len(rows) else np.arange(records.num_rows)
    return rows[:: max(1, -(-len(rows) // most))]


class Scored:
    """One version's scores of all these records."""

    def __init__(self, dataset: Dataset, asked: Asked, contender: Contender) -> None:
        self.dataset, self.asked, self.contender = dataset, asked, contender
        self.detector = contender.detector
        calibration, per_day = self.detector.calibration, self.detector.records_per_day
        self.threshold = calibration.threshold(dataset.flag, per_day)
        self.records = self.detector.score_table(asked.records)
        self.normal = anomaly_scores(self.records)
        self.injected = {kind: self.values(table) for kind, table in asked.injected.items()}
        self.newest = self.detector.score_table(asked.newest)

    def values(self, table: pa.Table) -> Array:
        return anomaly_scores(self.detector.score_table(table))

    def flags(self, values: Array) -> Array:
        return values > self.threshold.value

    @property
    def budget(self) -> float:
        """The share that is flagged, or the least that so few records can resolve."""
        return min(0.5, max(self.threshold.error_rate, FEWEST_ABOVE / max(1, len(self.normal))))

    @property
    def found(self) -> dict[str, Array]:
        """Which injected anomalies are above the version's own threshold, by kind."""
        return {kind: self.flags(values) for kind, values in self.injected.items()}

    @cached_property
    def ranks(self) -> Ranks:
        return Ranks.of(self.asked, self.normal, self.injected)

    @cached_property
    def nats(self) -> Array | None:
        """(n_records,) negative ELBO in the columns' own units; NaN where a category is new to the version.

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
            recall=mean_recall(found) if found else None,
            recall_of={kind: float(hits.mean()) for kind, hits in found.items()},
            ranked_recall=mean_recall(self.ranks.found(self.budget)) if found else None,
            negative_elbo=None if self.nats is None else trimmed_mean(self.nats).value,
            kl_divergence=float(self.records["kl_divergence"].to_numpy().mean()) if len(self.normal) else 0.0,
            flagged=self._recent(self.flags(self.normal)),
            promised_rate=None if flag.false_discovery_rate else self.threshold.error_rate,
            in_tail=self._recent(self.records["p_value"].to_numpy() <= TAIL),
            gross=chance_above(grossly, ordinary),
            distinct=self._distinct(ordinary),
            cpu_us=_cpu_us(detector, self.asked.newest.slice(0, N_TIMED)),
            precision=Share(int(odd.sum()), int(odd.sum() + normal.sum())),
            confirmed=Share(int(odd.sum()), len(odd)),
        )

    def _distinct(self, ordinary: Array) -> float:
        """Return different scores over different records: a table of few categories has few of either."""
        if not np.isfinite(ordinary).all():
            return 0.0
        records = self.asked.ordinary.select(self.detector.features.columns)
        n_different: int = records.group_by(records.column_names).aggregate([]).num_rows
        return len(np.unique(ordinary)) / n_different

    def _recent(self, hits: Array) -> Share:
        """Return the share of hits in the newest days' holdout, limited on a day of an event as for
        thresholds.
        """
        recent = self.asked.held.recent.to_numpy()
        days = self.asked.held.records[DAY].to_numpy()[recent]
        return Share(usual_hits(hits[recent], days), int(recent.sum()))


@dataclass(frozen=True)
class Ranks:
    """Scores that are compared by their order alone, whoever gave them.

    usual: which of the holdout's records represent normal ones: as for thresholds, a day of an event has no
        more of the highest than others.
    """

    normal: Array
    usual: Array
    injected: Mapping[str, Array]

    @classmethod
    def of(cls, asked: Asked, normal: Array, injected: Mapping[str, Array]) -> Ranks:
        return cls(normal, without_excess(normal, asked.records[DAY].to_numpy()), injected)

    def found(
        self, budget: float, records: Array | slice = slice(None), based: Array | slice = slice(None)
    ) -> dict[str, Array]:
        """Return which of the chosen injected anomalies are above this share of usual records, by kind."""
        usual = self.normal[records][self.usual[records]]
        threshold = np.quantile(usual, 1 - budget) if len(usual) else np.inf
        return {kind: values[based] > threshold for kind, values in self.injected.items()}


def anomaly_scores(scores: pa.Table) -> Array:
    return np.asarray(scores["anomaly_score"].to_numpy())


def mean_recall(found: Mapping[str, Array]) -> float:
    return float(np.mean([hits.mean() for hits in found.values()]))


def _cpu_us(detector: Detector, table: pa.Table) -> float:
    detector.score_table(table, threads=1)
    taken = []
    for _ in range(N_TIMINGS):
        started = time.thread_time()
        detector.score_table(table, threads=1)
        taken.append(time.thread_time() - started)
    return 1e6 * min(taken) / max(1, int(table.num_rows))
