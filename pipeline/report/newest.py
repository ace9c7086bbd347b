"""The newest batches' pages of a version: written anew, and one kept with the version's run in MLflow.

Belongs here: which batches these are, and that MLflow gets one page per version. Does not: the page
(batch.py). Whoever looks at a model in MLflow sees how its last night went; every night's page there would be
a second archive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pipeline.config.dataset import Dataset
from pipeline.errors import VaewatchError
from pipeline.incoming.batches import is_undated
from pipeline.installation import Installation
from pipeline.records.window import age
from pipeline.report import batch

if TYPE_CHECKING:
    from pipeline.registry import ModelVersion
    from pipeline.storage.ledger import BatchState

MOST = 30  # pages written anew in one go


def keep(
    here: Installation,
    dataset: Dataset,
    version: ModelVersion,
    batches: Iterable[BatchState],
    say: Callable[[str], None],
) -> None:
    """Log the newest batch's page to the version's run, in place of the last one.

    A fault of MLflow is only reported: the scores are published, and the next batch that is scored tries
    again.

    Args:
        batches: all that there are, as the ledger has them.
    """
    mine = _scored_by(version, batches)
    if not mine or not version.run_id:
        return
    newest = mine[-1]
    try:
        here.registry.log_newest_batch(version, batch.away(here, dataset, newest, version))
    except VaewatchError as fault:
        say(f"the page of {newest.batch_id} is here, but not in MLflow: {fault}")


def rewrite(
    here: Installation,
    dataset: Dataset,
    version: ModelVersion,
    batches: Iterable[BatchState],
    say: Callable[[str], None],
) -> None:
    """Write the pages of the newest MOST batches that a version scored anew, from what is known now.

    A page that cannot be written is only reported: what it would tell has happened.
    """
    for state in _scored_by(version, batches)[-MOST:]:
        try:
            batch.rewrite(here, dataset, state.batch_id)
        except VaewatchError as fault:
            say(
                f"the page of {state.batch_id} does not tell yet what became of version {version.version}: {fault}"
            )


def _scored_by(version: ModelVersion, batches: Iterable[BatchState]) -> list[BatchState]:
    """Return the batches that a version scored, newest last."""
    mine = [b for b in batches if b.status == "scored" and b.model_version == version.version]
    return sorted(mine, key=lambda b: (not is_undated(b.batch_id), age(b)))
