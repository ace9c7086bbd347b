"""Whether a night is worth a training: new records, verdicts, age or drift since the newest version.

Belongs here: the decision, with its reasons. Does not: training (steps/learning.py), or what drift is
(monitoring/, whose findings on the batches since are only read).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.config.dataset import Dataset
from pipeline.config.training import TrainingWhen
from pipeline.errors import ModelUnusable
from pipeline.records.window import Window
from pipeline.training.provenance import Note, Record, turned

if TYPE_CHECKING:
    from pipeline.registry import Registry
    from pipeline.storage.ledger import BatchState, Ledger

DRIFT = ("drift", "new", "correlation", "scores")  # findings that a new training would remedy


@dataclass(frozen=True)
class Occasion:
    """Whether to train.

    reasons: what suffices for it, or how far each criterion is from sufficing.
    """

    train: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Since:
    """What has happened since the newest version.

    Attributes:
        n_records: accepted records that it did not learn. n_learned: those of its window.
        n_verdicts: records whose verdict differs from what it learned.
        age_days: since it was registered.
        drifted: batches since its window that drifted, with the finding.
    """

    n_records: int
    n_learned: int
    n_verdicts: int
    age_days: float
    drifted: tuple[str, ...]


def find(
    dataset: Dataset,
    window: Window,
    judged: tuple[Sequence[Record], Sequence[Record]],
    registry: Registry,
    ledger: Ledger,
    now: datetime,
) -> Occasion:
    """Decide whether the window is worth a training, by `train.when`.

    Args:
        judged: records that people found to be anomalies, and normal ones.

    Raises:
        RegistryUnreachable: MLflow does not answer; a retry may help.
    """
    when = dataset.train.when
    if when == TrainingWhen():
        return Occasion(train=True)
    versions = registry.versions(dataset.name)
    if not versions:
        return Occasion(train=True, reasons=("there is no version yet",))
    newest = versions[-1]
    try:
        note = Note.of(registry.note(dataset.name, newest.version)[1])
    except ModelUnusable as fault:
        return Occasion(train=True, reasons=(str(fault),))
    age_days = (now - newest.created_at).total_seconds() / 86_400
    drifted = _drifted(ledger, dataset.name, fresh(note, window)) if when.drift else []
    return decide(when, since(dataset.name, note, window, judged, age_days, drifted))


def fresh(then: Note, window: Window) -> list[BatchState]:
    """Return the batches of the window that the training of `then` did not learn in their present form."""
    known = {(batch["batch_id"], batch["fingerprint"]) for batch in then.batches}
    return [batch for batch in window.batches if (batch.batch_id, batch.fingerprint) not in known]


def since(
    dataset: str,
    then: Note,
    window: Window,
    judged: tuple[Sequence[Record], Sequence[Record]],
    age_days: float,
    drifted: Sequence[str] = (),
) -> Since:
    """Return what a training on the window would know that the one of `then` did not."""
    pairs = zip((then.left_out, then.normal), (window.left_out, window.normal), judged, strict=True)
    n_verdicts = sum(sum(turned(was, dataset, learned, held)) for was, learned, held in pairs)
    n_learned = sum(batch["n_accepted"] for batch in then.batches)
    n_records = sum(batch.n_accepted for batch in fresh(then, window))
    return Since(n_records, n_learned, n_verdicts, age_days, tuple(drifted))


def decide(when: TrainingWhen, since: Since) -> Occasion:
    """Decide; any one criterion suffices."""
    tried = list(_tried(when, since))
    enough = tuple(said for is_enough, said in tried if is_enough)
    return Occasion(bool(enough), enough or tuple(said for _, said in tried))


def _tried(when: TrainingWhen, since: Since) -> Iterator[tuple[bool, str]]:
    share = since.n_records / since.n_learned if since.n_learned else float("inf")
    if when.new_records is not None:
        yield (
            since.n_records >= when.new_records,
            f"{since.n_records:,} new records (trains at {when.new_records:,})",
        )
    if when.new_share is not None:
        yield share >= when.new_share, f"{share:.1%} new records (trains at {when.new_share:.1%})"
    if when.new_verdicts is not None:
        said = f"{since.n_verdicts} new verdicts (trains at {when.new_verdicts})"
        yield since.n_verdicts >= when.new_verdicts, said
    if when.age_days is not None:
        said = f"the newest version is {since.age_days:.1f} days old (trains at {when.age_days:g})"
        yield since.age_days >= when.age_days, said
    if when.drift:
        n = len(since.drifted)
        named = f": {'; '.join(since.drifted[:3])}" if n else ""
        yield n > 0, f"{n} batch{' has' if n == 1 else 'es have'} drifted since{named}"


def _drifted(ledger: Ledger, dataset: str, batches: Sequence[BatchState]) -> list[str]:
    from pipeline.monitoring import store

    told = store.findings(ledger, dataset, [batch.batch_id for batch in batches])
    moved = {
        batch_id: [finding.what for finding in found if finding.key.partition(":")[0] in DRIFT]
        for batch_id, found in told.items()
    }
    return [f"{batch_id} ({what[0]})" for batch_id, what in moved.items() if what]
