"""Batches under an alarm that a training learns all the same, and what to do about them.

Belongs here: which they are, and the words. Does not: what an alarm is (monitoring/judgement.py), or which
batches are learned (records/window.py): an alarm leaves none out, as it may be an event or a level that is
there to stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from textwrap import shorten
from typing import TYPE_CHECKING

from pipeline.config.dataset import Dataset
from pipeline.monitoring import store
from pipeline.monitoring.findings import gathered, leading, worst
from pipeline.monitoring.store import Watched

if TYPE_CHECKING:
    from pipeline.records.window import Window
    from pipeline.storage.ledger import Ledger

NAMED = 5  # batches
LONGEST = 200  # characters of a finding


def of(ledger: Ledger, dataset: str, window: Window) -> list[Watched]:
    """Return the window's batches with an alarm, oldest first.

    What was found in an earlier delivery of a batch says nothing about the one that is learned.
    """
    scored = [batch.batch_id for batch in window.batches if batch.status == "scored"]
    return [one for one in store.measured(ledger, dataset, scored) if worst(one.findings) == "alarm"]


def since(found: Sequence[Watched], moment: datetime | None) -> bool:
    """Return whether any alarm was raised after a moment; None is before all."""
    return any(one.measured_at and (moment is None or one.measured_at > moment) for one in found)


def words(dataset: Dataset, found: Sequence[Watched], n_batches: int) -> str:
    """Say which batches of those learned are under an alarm, and what to do about it."""
    if len(found) == 1:
        name, is_wrong = found[0].batch_id, "that is a fault"
        why = "; ".join(finding.what for finding in leading(gathered(found[0].findings, dataset)))
        said = f"1 of the {n_batches} batches learned is under an alarm: {name} ({shorten(why, LONGEST)})"
    else:
        name, is_wrong = "BATCH", "one is a fault"
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        named = ", ".join(one.batch_id for one in found[-NAMED:])
        said = f"{len(found)} of the {n_batches} batches learned are under an alarm: {named}{more}"
    return (
        f"{said}; look: vaewatch report {dataset.name} {name}. If {is_wrong}, have it delivered again, mended or "
        f"without the wrong records, or leave it out (train.leave_out: [{name}] in {dataset.named_file}), and train "
        "again; an event, or what is there to stay, may be learned"
    )
