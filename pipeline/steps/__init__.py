"""One function per step: what a DAG's task and the command line's verb both call.

Belongs here: the order of effects within a step, and the receipt it returns. A step writes tables or the
registry first and the ledger last: killed anywhere and run again, it ends as if it had never been killed.
Does not: how any part works; heavy libraries are imported by the step that needs them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from pipeline.config.dataset import Dataset
from pipeline.config.files import read_datasets
from pipeline.errors import ConfigError, NotReady, VaewatchError
from pipeline.incoming.batches import landed, no_delivery_yet, unsettled
from pipeline.installation import Installation
from pipeline.steps import learning
from pipeline.steps.checking import discover, validate
from pipeline.steps.comparing import compare
from pipeline.steps.evaluating import evaluate, history
from pipeline.steps.keeping import copy, prune, reproduce, version, versions
from pipeline.steps.keys import RANGE, Say
from pipeline.steps.learning import train
from pipeline.steps.receipts import Receipt
from pipeline.steps.scoring import score
from pipeline.steps.serving import evidence, promote, reject, rollback
from pipeline.storage.ledger import BatchState

__all__ = [
    "RANGE",
    "compare",
    "copy",
    "discover",
    "evaluate",
    "evidence",
    "history",
    "promote",
    "prune",
    "reject",
    "release",
    "reproduce",
    "rollback",
    "run",
    "run_all",
    "score",
    "train",
    "validate",
    "version",
    "versions",
]

LONGEST_WAIT = 60  # seconds that a run waits for files to settle


def release(
    here: Installation, dataset_name: str, batch_id: str, *, say: Say = lambda _: None
) -> list[Receipt]:
    """Check a batch again with the contract as it is now, and score it again.

    Set-aside records that now pass are included.
    """
    before = here.ledger.newest(dataset_name, batch_id)
    checked = validate(here, dataset_name, batch_id, force=True, say=say)
    after = here.ledger.newest(dataset_name, batch_id)
    if before and after and not before.is_unreadable:
        checked = replace(
            checked, notes=(*checked.notes, _released(here.dataset(dataset_name), before, after))
        )
    return [checked, score(here, dataset_name, batch_id, force=True, say=say)]


def _released(dataset: Dataset, before: BatchState, after: BatchState) -> str:
    """Say how many of a batch's records that were set aside are accepted now, and how many still are not."""
    was, still = before.n_set_aside, after.n_set_aside
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


def run(here: Installation, dataset_name: str, *, say: Say = lambda _: None) -> list[Receipt]:
    """Do everything due: validate what landed; train, evaluate and promote; score.

    It trains where nothing was trained within a day. Where all that landed may still be written, it waits
    first, but no longer than LONGEST_WAIT. While another run of the dataset is under way, it waits for that
    to end: it would do the same, and both take the time of both.
    """
    dataset = here.dataset(dataset_name)

    def waits(who: str) -> None:
        say(f"another run of {dataset.name} is under way ({who}): waiting for it to end")

    with here.turn(dataset, waits):
        return _run(here, dataset, say)


def _run(here: Installation, dataset: Dataset, say: Say) -> list[Receipt]:
    _let_settle(here, dataset, say)
    receipts = [validate(here, dataset.name, say=say)]
    try:
        for receipt in _learn(here, dataset, say):
            receipts.append(receipt)  # noqa: PERF402  # receipts from before a NotReady are kept
    except NotReady as early:
        why = "for the files that still settle" if unsettled(dataset) else str(early)
        receipts.append(Receipt("train", dataset.name, "waiting", reason=why))
    scored = score(here, dataset.name, say=say)
    if scored.with_outcome("scored"):  # a night like any other: earlier batches keep their flags
        receipts = [replace(one, next="") if one.step == "promote" else one for one in receipts]
    return [*receipts, scored]


def run_all(here: Installation, *, say: Say = lambda _: None) -> list[Receipt]:
    """Do everything due of every dataset.

    One that fails, or whose file has faults, gets a receipt `failed` with the reason; the others are done.
    One whose folder is not there yet waits.

    Raises:
        ConfigError: no dataset's file can be read.
    """
    datasets, faults = read_datasets(here.settings.datasets)
    if faults and not datasets:
        raise ConfigError("\n".join(faults))
    receipts = []
    for name, dataset in sorted(datasets.items()):
        try:
            waits = no_delivery_yet(dataset, here.ledger)
            receipts += (
                [Receipt("validate", name, "waiting", reason=waits)] if waits else run(here, name, say=say)
            )
        except VaewatchError as fault:
            receipts.append(Receipt("run", name, "failed", reason=fault.words))
    return [*receipts, *(Receipt("run", "", "failed", reason=fault) for fault in faults)]


def _let_settle(here: Installation, dataset: Dataset, say: Say) -> None:
    """Wait once: after somebody's first delivery there is nothing else to do."""
    left = unsettled(dataset)
    if left and left.settled_in <= LONGEST_WAIT and not landed(dataset, here.ledger):
        say(f"{left.files} may still be written: waiting {left.settled_in} s for them to settle")
        time.sleep(left.settled_in)


def _learn(here: Installation, dataset: Dataset, say: Say) -> Iterator[Receipt]:
    """Train, evaluate and promote what is due.

    A model that waits for its first evaluation gets it. A challenger that passed when somebody evaluated it
    by hand is promoted where nobody is to be asked.
    """
    name = dataset.name
    page, said = "", tuple[str, ...]()
    waits = here.ledger.serving_version(name) is None and here.ledger.trained_at(name) is not None
    if learning.is_due(here, dataset):
        trained = train(here, name, say=say)
        yield replace(trained, next="")
        waits, page = waits or trained.outcome != "skipped", trained.page
        said = trained.notes
    else:
        yield Receipt("train", name, "unchanged", reason=learning.not_due(here, dataset))
    if waits or dataset.promote.shadow_days or _passed_by_hand(here, dataset):
        judged = evaluate(here, name, say=say)
        passed = judged.outcome == "passed" and judged.alias == "challenger"
        promotes = passed and dataset.promote.mode == "automatic"
        if judged.outcome != "unchanged":
            is_told, is_done = judged.page == page, promotes or judged.alias == "champion"
            notes = tuple(note for note in judged.notes if note not in said)
            next_step, page = "" if is_done else judged.next, "" if is_told else judged.page
            yield replace(judged, notes=notes, page=page, next=next_step)
        if promotes:
            yield promote(here, name, judged.model_version, by="vaewatch", reason="automatic", say=say)


def _passed_by_hand(here: Installation, dataset: Dataset) -> bool:
    return dataset.promote.mode == "automatic" and here.registry.challenger(dataset.name) is not None
