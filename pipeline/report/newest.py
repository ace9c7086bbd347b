"""The newest batches' pages of a version: written anew, and one kept with the version's run in MLflow.

Belongs here: which batches these are, and that MLflow gets one page per version. Does not: the page
(batch.py). Whoever looks at a model in MLflow sees how its last night went; every night's page there would be
a second archive.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from pipeline.config.dataset import Dataset
from pipeline.errors import VaewatchError
from pipeline.installation import Installation
from pipeline.records.window import order
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
    mine = _scored_by(version.version, batches)
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
    for state in _scored_by(version.version, batches)[-MOST:]:
        try:
            batch.rewrite(here, dataset, state.batch_id)
        except VaewatchError as fault:
            say(
                f"the page of {state.batch_id} was not updated with what became of version {version.version}: {fault}"
            )


def follow(
    here: Installation,
    dataset: Dataset,
    rewritten: Collection[str],
    batches: Collection[BatchState],
    say: Callable[[str], None],
) -> None:
    """Bring MLflow's pages in line with pages of batches that were written again.

    That concerns the versions whose newest batch is one of these.

    Args:
        rewritten: batch_ids of these.
        batches: all that there are, as the ledger has them.
    """
    numbers = {b.model_version for b in batches if b.batch_id in rewritten and b.model_version is not None}
    behind = {one for one in numbers if (mine := _scored_by(one, batches)) and mine[-1].batch_id in rewritten}
    if not behind:
        return
    try:
        versions = here.registry.versions(dataset.name)
    except VaewatchError as fault:
        say(f"the pages in MLflow were not updated: {fault}")
        return
    for version in versions:
        if version.version in behind:
            keep(here, dataset, version, batches, say)


def _scored_by(number: int, batches: Iterable[BatchState]) -> list[BatchState]:
    """Return the batches that a version scored, newest last."""
    mine = [b for b in batches if b.status == "scored" and b.model_version == number]
    return sorted(mine, key=order)
