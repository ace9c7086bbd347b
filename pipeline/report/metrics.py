"""How every dataset stands, as metrics for Prometheus: read from the ledger's database when somebody asks.

Belongs here: names, meanings and labels of the metrics; the file for node_exporter's textfile collector. Does
not: rules and dashboards (infra/), or Airflow's own metrics. Nothing is counted in a process: steps are
short-lived, and what happened is in the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.files import read_datasets
from pipeline.errors import StorageFailed
from pipeline.installation import Installation
from pipeline.monitoring import store
from pipeline.monitoring.findings import SEVERITIES
from pipeline.monitoring.store import Watched
from pipeline.records.window import order
from pipeline.report import sheet
from pipeline.review import queue
from pipeline.review.filters import Filters

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

FILE = "vaewatch.prom"
GAUGES = {
    "vaewatch_batches": ("batches by their newest status", "status"),
    "vaewatch_last_delivery_timestamp_seconds": ("when a delivery was last checked against its contract", ""),
    "vaewatch_last_delivery_refused": ("1 where the newest batch was refused", ""),
    "vaewatch_last_scored_timestamp_seconds": ("when a batch was last scored", ""),
    "vaewatch_last_trained_timestamp_seconds": ("when a training last ended well", ""),
    "vaewatch_last_train_ended_timestamp_seconds": (
        "when the step train last ended well, trained or without an occasion to (train.when)",
        "",
    ),
    "vaewatch_champion_version": ("the model version that serves", ""),
    "vaewatch_champion_trained_timestamp_seconds": (
        "when the model that scored the newest batch was made",
        "",
    ),
    "vaewatch_batch_records": (
        "records of the newest scored batch: read, set_aside, scored, flagged, expected_flagged",
        "kind",
    ),
    "vaewatch_batch_above_usual_ratio": (
        "chance that a record of the newest scored batch scores above a normal one; one half is usual",
        "",
    ),
    "vaewatch_batch_tail_ratio": ("share of p-values of 0.01 or less in the newest scored batch", ""),
    "vaewatch_findings": ("findings on the newest scored batch, by severity", "severity"),
    "vaewatch_column_divergence_bits": (
        "Jensen-Shannon divergence from training, newest scored batch",
        "column",
    ),
    "vaewatch_column_missing_ratio": ("share of missing values, newest scored batch", "column"),
    "vaewatch_review_backlog": ("flagged records that wait for a person", ""),
    "vaewatch_review_sample": ("records of the random sample that wait for a person", ""),
}


class _Collector:
    """Reads the ledger when it is scraped."""

    def __init__(self, here: Installation, only: Collection[str] | None) -> None:
        self.here, self.only = here, only

    def collect(self) -> Iterator[GaugeMetricFamily]:
        from prometheus_client.core import GaugeMetricFamily

        families = {
            name: GaugeMetricFamily(name, meaning, labels=["dataset", *filter(None, [label])])
            for name, (meaning, label) in GAUGES.items()
        }
        for dataset in self._kept():
            for name, label, value in self._of(dataset):
                if value is not None:
                    families[name].add_metric([dataset, *([label] if GAUGES[name][1] else [])], value)
        yield from families.values()

    def _kept(self) -> list[str]:
        """Return the datasets that are told of: not those whose file was deleted, or alerts would never end.

        Which those are is not known where a file has a fault, or where none can be seen from here.
        """
        described, faults = read_datasets(self.here.settings.datasets)
        known = self.here.ledger.datasets()
        if described and not faults:
            known = [dataset for dataset in known if dataset in described]
        return [dataset for dataset in known if self.only is None or dataset in self.only]

    def _of(self, dataset: str) -> Iterator[tuple[str, str, float | None]]:
        ledger = self.here.ledger
        states = list(ledger.current(dataset).values())
        by_status = Counter(state.status for state in states)
        for status in ("accepted", "refused", "scored"):
            yield "vaewatch_batches", status, by_status[status]
        if states:
            last = max(states, key=lambda state: state.validated_at)
            yield "vaewatch_last_delivery_timestamp_seconds", "", _seconds(last.validated_at)
            newest = max(states, key=order)
            yield "vaewatch_last_delivery_refused", "", float(newest.status == "refused")
        scored = [state.scored_at for state in states if state.scored_at]
        yield "vaewatch_last_scored_timestamp_seconds", "", _seconds(max(scored, default=None))
        yield "vaewatch_last_trained_timestamp_seconds", "", _seconds(ledger.trained_at(dataset))
        yield "vaewatch_last_train_ended_timestamp_seconds", "", _seconds(ledger.train_ended_at(dataset))
        yield "vaewatch_champion_version", "", ledger.serving_version(dataset)
        for name, kind in (("backlog", "flagged"), ("sample", "sampled")):
            waiting = Filters(dataset=dataset, kind=kind, state="open")
            yield f"vaewatch_review_{name}", "", queue.total(ledger, waiting)
        for watched in store.newest(ledger, dataset, strays=False):
            yield from _measured(watched)


def _measured(watched: Watched) -> Iterator[tuple[str, str, float | None]]:
    now = watched.measures
    counts: dict[str, Any] = {
        "read": now.n_read,
        "set_aside": now.n_set_aside,
        "scored": now.n_records,
        "flagged": now.n_flagged,
        "expected_flagged": now.expected_flagged,
    }
    for kind, n in counts.items():
        yield "vaewatch_batch_records", kind, n
    if watched.measured_at and now.champion_days is not None:
        made = watched.measured_at - timedelta(days=now.champion_days)
        yield "vaewatch_champion_trained_timestamp_seconds", "", _seconds(made)
    yield "vaewatch_batch_above_usual_ratio", "", now.above
    yield "vaewatch_batch_tail_ratio", "", now.tail
    by_severity = Counter(finding.severity for finding in watched.findings)
    for severity in SEVERITIES:
        yield "vaewatch_findings", severity, by_severity[severity]
    for column, drift in now.columns.items():
        yield "vaewatch_column_divergence_bits", column, drift.divergence
        yield "vaewatch_column_missing_ratio", column, drift.missing


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None


def exposition(here: Installation, only: Collection[str] | None = None) -> str:
    """Return every metric in Prometheus' text format.

    Args:
        only: these datasets; None for all.
    """
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(here, only))
    return generate_latest(registry).decode()


def write(here: Installation, path: Path) -> Path:
    """Write the metrics to a file, whole or not at all, as node_exporter's textfile collector wants it.

    Raises:
        StorageFailed: it could not be written; the earlier file is still there.
    """
    return sheet.write(path, exposition(here))


def publish(here: Installation, say: Callable[[str], None]) -> None:
    """Write the metrics to <home>/metrics/vaewatch.prom; a fault is reported, and does not fail the step."""
    try:
        write(here, here.settings.home / "metrics" / FILE)
    except StorageFailed as fault:
        say(str(fault))
