"""The page of the newest batch that a version scored, kept with the version's run in MLflow.

Belongs here: which batch that is, and that it is one page a version. Does not: the page (batch.py). Whoever
looks at a model in MLflow sees how its last night went; every night's page there would be a second archive.
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


def keep(
    here: Installation,
    dataset: Dataset,
    version: ModelVersion,
    batches: Iterable[BatchState],
    say: Callable[[str], None],
) -> None:
    """Put it in the place of the one before it; where MLflow does not take it, that is said: the scores are
    published, and the next batch that is scored tries again.

    Args:
        batches: all that there are, as the ledger has them.
    """
    mine = [b for b in batches if b.status == "scored" and b.model_version == version.version]
    newest = max(mine, key=lambda b: (not is_undated(b.batch_id), age(b)), default=None)
    if newest is None or not version.run_id:
        return
    try:
        here.registry.log_newest_batch(version, batch.away(here, dataset, newest, version))
    except VaewatchError as fault:
        say(f"the page of {newest.batch_id} is here, but not in MLflow: {fault}")
