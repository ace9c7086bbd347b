"""Everything that is due of a dataset, or of all, in order: what a schedule without Airflow runs.

Belongs here: which step comes when, and that one dataset's failure does not stop the others. Does not: a
step.
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
from pipeline.steps.checking import validate
from pipeline.steps.evaluating import evaluate
from pipeline.steps.keys import Say
from pipeline.steps.learning import train
from pipeline.steps.receipts import Receipt
from pipeline.steps.scoring import score
from pipeline.steps.serving import promote, unfit

LONGEST_WAIT = 60  # seconds that a run waits for files to settle


def run(here: Installation, dataset_name: str, *, say: Say = lambda _: None) -> list[Receipt]:
    """Do everything due: validate what landed and score it; train, evaluate and promote for the next night.

    What the champion can score is scored first, by a version that has not learned from it: a batch's own
    anomalies would otherwise be learned as normal before they are looked for. Else it is scored by what the
    training made. It trains where nothing was trained within a day.

    Where all that landed may still be written, it waits first, but no longer than LONGEST_WAIT. While another
    run of the dataset is under way, it waits for that to end: it would do the same, and both take the time of
    both.
    """
    dataset = here.dataset(dataset_name)

    def waits(who: str) -> None:
        say(f"another run of {dataset.name} is under way ({who}): waiting for it to end")

    with here.turn(dataset, waits):
        return _run(here, dataset, say)


def _run(here: Installation, dataset: Dataset, say: Say) -> list[Receipt]:
    _let_settle(here, dataset, say)
    receipts = [validate(here, dataset.name, say=say)]
    is_due = learning.is_due(here, dataset)
    if _passed_by_hand(here, dataset) or (not is_due and _waits_for_judgement(here, dataset)):
        receipts += _judge(here, dataset, say)
    if at_once := _can_be_scored(here, dataset):  # by a version that has not learned these batches
        receipts.append(score(here, dataset.name, say=say))
    try:
        for receipt in _learn(here, dataset, say, is_due=is_due):
            receipts.append(receipt)  # receipts from before a NotReady are kept
    except NotReady as early:
        why = "for the files that still settle" if unsettled(dataset) else str(early)
        receipts.append(Receipt("train", dataset.name, "waiting", reason=why))
    if not at_once:
        receipts.append(score(here, dataset.name, say=say))
    if any(one.step == "score" and one.with_outcome("scored") for one in receipts):
        # a night like any other: earlier batches keep their flags
        receipts = [replace(one, next="") if one.step == "promote" else one for one in receipts]
    return receipts


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


def _passed_by_hand(here: Installation, dataset: Dataset) -> bool:
    """Return whether a challenger passed when somebody had it judged, where nobody is to be asked."""
    return dataset.promote.mode == "automatic" and here.registry.challenger(dataset.name) is not None


def _waits_for_judgement(here: Installation, dataset: Dataset) -> bool:
    """Return whether there is a model, but none that serves."""
    ledger, name = here.ledger, dataset.name
    return ledger.serving_version(name) is None and ledger.trained_at(name) is not None


def _can_be_scored(here: Installation, dataset: Dataset) -> bool:
    """Return whether the champion can score what waits, if anything does."""
    current = here.ledger.current(dataset.name).values()
    if all(state.status != "accepted" for state in current):
        return True
    champion = here.registry.champion(dataset.name)
    return champion is not None and not unfit(here, dataset, champion)


def _learn(here: Installation, dataset: Dataset, say: Say, *, is_due: bool) -> Iterator[Receipt]:
    """Train where that is due; judge and promote what was trained, or a challenger in its shadow."""
    if not is_due:
        yield Receipt("train", dataset.name, "unchanged", reason=learning.not_due(here, dataset))
        if dataset.promote.shadow_days:
            yield from _judge(here, dataset, say)
        return
    trained = train(here, dataset.name, say=say)
    yield replace(trained, next="")
    if trained.outcome != "skipped" or dataset.promote.shadow_days or _waits_for_judgement(here, dataset):
        yield from _judge(here, dataset, say, trained)


def _judge(
    here: Installation, dataset: Dataset, say: Say, trained: Receipt | None = None
) -> Iterator[Receipt]:
    """Have the newest model or the challenger judged, and promote it where it passes and nobody is asked.

    trained: of the training just before; what it told is not told twice.
    """
    judged = evaluate(here, dataset.name, say=say)
    promotes = (judged.outcome, judged.alias, dataset.promote.mode) == ("passed", "challenger", "automatic")
    if judged.outcome != "unchanged":
        page, said = (trained.page, trained.notes) if trained else ("", ())
        yield replace(
            judged,
            notes=tuple(note for note in judged.notes if note not in said),
            page="" if judged.page == page else judged.page,
            next="" if promotes or judged.alias == "champion" else judged.next,
        )
    if promotes:
        yield promote(here, dataset.name, judged.model_version, by="vaewatch", reason="automatic", say=say)
