"""What of a batch stays published although its newest check or delivery has not been scored.

Belongs here: reading that from the versions of a batch in the ledger, and the words. Does not: what the
newest version itself came to (storage/ledger.py), or the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.storage.ledger import BatchState, Ledger


@dataclass(frozen=True)
class Standing:
    """Records and flags of an earlier version of a batch that are published still.

    Attributes:
        n_records: accepted records in the table; None where the newest version has replaced them.
        scored: the version whose scores and flags stand; None where none was scored.
        is_refused: the newest version was refused; else it waits to be scored.
    """

    n_records: int | None
    scored: BatchState | None
    is_refused: bool

    @property
    def words(self) -> str:
        """Say what stands, and until when."""
        kinds = [] if self.n_records is None else [(self.n_records, "record")]
        kinds += [(self.scored.n_flagged or 0, "flag")] if self.scored else []
        what = " and ".join(f"{n:,} {kind}{'s' * (n != 1)}" for n, kind in kinds)
        stand = "stands" if [n for n, _ in kinds] == [1] else "stand"
        return f"its {what} of before {stand}{'' if self.is_refused else ' until it is scored'}"

    def as_dict(self) -> dict[str, Any]:
        """Return the same for a machine."""
        names = ("version", "n_flagged", "model_version", "threshold", "scored_at")
        scored = asdict(self.scored) if self.scored else {}
        return {
            "n_records": self.n_records,
            **{name: scored.get(name) for name in names},
            "words": self.words,
        }


def standing(versions: Sequence[BatchState], now: BatchState) -> Standing | None:
    """Return what stands of a batch's earlier versions; None where that is nothing, or the newest is scored.

    Args:
        versions: the earlier ones, oldest first.
        now: the newest one.
    """
    if now.status == "scored":
        return None
    is_refused = now.status == "refused"
    published = [one for one in versions if one.status != "refused"]
    n_records = published[-1].n_accepted if published and is_refused else None
    scored = next((one for one in reversed(published) if one.status == "scored"), None)
    return Standing(n_records, scored, is_refused) if scored or n_records is not None else None


def standings(ledger: Ledger, current: Mapping[str, BatchState]) -> dict[str, Standing]:
    """Return what stands of each batch of which something does. current: every batch as the ledger has it."""
    again = {name: one for name, one in current.items() if one.version > 1 and one.status != "scored"}
    found = {name: standing(ledger.history(one.dataset, name)[:-1], one) for name, one in again.items()}
    return {name: one for name, one in found.items() if one is not None}
