"""Let records in that were set aside, under the contract as it is now.

Belongs here: the step release. Does not: the check, or the scores.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.config.dataset import Dataset
from pipeline.installation import Installation
from pipeline.steps.checking import validate
from pipeline.steps.keys import Say
from pipeline.steps.receipts import Receipt
from pipeline.steps.scoring import score
from pipeline.storage.ledger import BatchState


def release(
    here: Installation, dataset_name: str, batch_id: str, *, say: Say = lambda _: None
) -> list[Receipt]:
    """Check a batch again with the contract as it is now, and score it again.

    Set-aside records that now pass are included.
    """
    before = here.ledger.newest(dataset_name, batch_id)
    checked = validate(here, dataset_name, batch_id, force=True, say=say)
    after = here.ledger.newest(dataset_name, batch_id)
    if before and after and not before.is_unreadable and after.status != "refused":
        checked = replace(
            checked, notes=(*checked.notes, _released(here.dataset(dataset_name), before, after))
        )
    return [checked, score(here, dataset_name, batch_id, force=True, say=say)]


def _released(dataset: Dataset, before: BatchState, after: BatchState) -> str:
    """Say how many of a batch's records that were not accepted are so now, and how many still are not."""
    was, still = before.n_read - before.n_accepted, after.n_set_aside
    if before.status == "refused":
        aside = f"; {still:,} are set aside" if still else ""
        return f"{after.n_accepted:,} of {after.n_read:,} records are accepted now{aside}"
    if not was:
        return "no record of it was set aside"
    if not still:
        return f"all {was:,} records that were set aside are accepted now"
    if still < was:
        return f"{was - still:,} of {was:,} records that were set aside are accepted now; {still:,} are still aside"
    look = f"vaewatch quarantine show {dataset.name} {after.batch_id}"
    return (
        f"none of {was:,} records that were set aside is accepted now: {still:,} are aside; see why ({look}), and mend "
        f"the rule in {dataset.named_file} first"
    )
