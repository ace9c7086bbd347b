"""What a dataset's DAGs have in common: the assets that tie them together, retries, and how a task ends.

Belongs here: what scoring.py and models.py both need. Does not: when and in which order (there), or the work
(pipeline/steps/).
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowSkipException

from dags.watcher import SettledFiles
from pipeline.config.dataset import Dataset
from pipeline.errors import CheckCrashed, RegistryUnreachable, StorageFailed, VaewatchError

log = logging.getLogger("vaewatch")

RETRIES = 3
POOL = "gpu"  # each training takes one of its slots
POLICY = ExceptionRetryPolicy(
    rules=[  # the first match counts, subclasses included
        RetryRule([StorageFailed, RegistryUnreachable, CheckCrashed], RetryAction.RETRY),
        RetryRule(
            VaewatchError, RetryAction.FAIL, reason="the same input fails the same way: a person must look"
        ),
        RetryRule(OSError, RetryAction.RETRY),
    ]
)
DEFAULTS = {
    "owner": "vaewatch",
    "retries": RETRIES,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": POLICY,
}

WHAT = {
    "discover": "find landed batches that are due and start score for them",
    "score": "check batches against the contract and score them with the champion",
    "train": "learn the newest window of accepted records, register the model, judge whether it may serve",
    "promote": "make a challenger the champion",
    "approve": "ask a person whether a challenger becomes champion",
    "rescore": "score chosen batches again",
    "prune": "remove model versions that nothing refers to any more",
}


class DatasetDags:
    """One dataset and its assets: batch_landed → score, model_trained → promote."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.name = dataset, dataset.name
        self.landed = Asset(f"{self.name}.batch_landed")
        self.scored = Asset(f"{self.name}.batch_scored")
        self.trained = Asset(f"{self.name}.model_trained")
        self.champion = Asset(f"{self.name}.champion")
        bell = SettledFiles(str(dataset.incoming_path), dataset.incoming.settle_seconds)
        self.inbox = Asset(f"{self.name}.inbox", watchers=[AssetWatcher(f"{self.name}.inbox", trigger=bell)])

    def dag(self, verb: str, note: str, schedule: Any, **settings: Any) -> DAG:
        """Return a DAG of this dataset; leaving its `with` hands it to Airflow."""
        return DAG(
            f"{self.name}.{verb}",
            description=WHAT[verb],
            doc_md=note,
            tags={"vaewatch", self.name, verb},
            schedule=schedule,
            default_args=DEFAULTS,
            **settings,
        )


def skipped(why: str) -> AirflowSkipException:
    """Log why a task is skipped, and return the exception: Airflow does not show its reason."""
    log.info("%s", why)
    return AirflowSkipException(why)


def brief(receipt: Any) -> dict[str, Any]:
    """Return counts, and the batches that stopped with their reasons, small enough to pass between tasks."""
    outcomes = [batch.outcome for batch in receipt.batches]
    stopped = {
        outcome: {batch.batch_id: batch.reason[:500] for batch in receipt.with_outcome(outcome)}
        for outcome in ("refused", "failed")
    }
    return {
        "outcome": receipt.outcome,
        "batches": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        "n_flagged": sum(batch.n_flagged or 0 for batch in receipt.with_outcome("scored")),
        "model_version": receipt.model_version,
        **stopped,
    }


def complain(name: str, stopped: dict[str, str], kind: type[VaewatchError]) -> None:
    """Raise, naming every batch that stopped and why; do nothing where none did."""
    if stopped:
        raise kind("\n".join(f"{name} {batch_id}: {reason}" for batch_id, reason in sorted(stopped.items())))
