"""From verdicts back to the models: what people found goes on record with the version that flagged it.

Belongs here: what is written to the registry, and when it is news. Does not: the numbers (statistics.py), or
learning from verdicts (training/training_set.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.review import statistics

if TYPE_CHECKING:
    from pipeline.config.dataset import Dataset
    from pipeline.installation import Installation
    from pipeline.review.estimates import Missed, Recall, Share


def log_review(here: Installation, dataset: Dataset) -> list[int]:
    """Log each version's precision, of what it flagged and people judged, with its interval, on that version.

    The version that serves also gets the estimated recall and what it leaves, the false-negative rate. An
    estimate whose interval is too wide is logged without its value.

    Returns:
        The versions that there was news of.

    Raises:
        RegistryUnreachable: MLflow does not answer; a retry may help.
    """
    found = statistics.review(here.ledger, dataset.name)
    serving = here.ledger.serving_version(dataset.name)
    known = (
        {version.version for version in here.registry.versions(dataset.name)} if found.precision else set()
    )
    told = []
    for share in found.precision:
        version = share.model_version
        if version not in known or share.value is None:
            continue
        metrics = _estimate("precision", share) | {"review_judged": float(share.n)}
        if version == serving and found.recall.value is not None:
            metrics |= _estimate("recall", found.recall)
            metrics |= _estimate("false_negative_rate", found.false_negative_rate)
            metrics["review_sampled"] = float(found.recall.sampled.n)
        if here.registry.log_review(dataset.name, version, metrics):
            told.append(version)
    return told


def _estimate(name: str, found: Share | Recall | Missed) -> dict[str, float]:
    """Return what is logged of an estimate; of a wide one no value, as MLflow charts and compares values."""
    ends = {f"review_{name}_low": found.low, f"review_{name}_high": found.high}
    return ends if found.value is None or found.is_wide else {f"review_{name}": found.value} | ends
