"""What a step returns: ids and counts, never records.

Belongs here: receipts and how they read. Does not: the steps (steps/), or a terminal (display/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pipeline.storage.ledger import BatchState

if TYPE_CHECKING:
    from pipeline.evaluation.decision import Decision
    from pipeline.registry import Removal

Outcome = Literal["accepted", "refused", "scored", "waiting", "unchanged", "failed"]


@dataclass(frozen=True)
class BatchReceipt:
    """What a step did with one batch. above_usual, is_odd: see ledger.BatchState."""

    batch_id: str
    outcome: Outcome
    reason: str = ""
    n_read: int | None = None
    n_accepted: int | None = None
    n_set_aside: int | None = None
    n_flagged: int | None = None
    model_version: int | None = None
    threshold: float | None = None
    above_usual: float | None = None
    is_odd: bool = False


@dataclass(frozen=True)
class Receipt:
    """What a step did: ids and counts, never records. What is particular to one step is in a subclass.

    Attributes:
        reason: why it came out so. notes: what else to know, a sentence each.
        page: of the training.
        next: what to do, or what follows.
    """

    step: str
    dataset: str
    outcome: str
    batches: tuple[BatchReceipt, ...] = ()
    model_version: int | None = None
    alias: str | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()
    page: str = ""
    next: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def with_outcome(self, *outcomes: Outcome) -> list[BatchReceipt]:
        return [batch for batch in self.batches if batch.outcome in outcomes]


@dataclass(frozen=True)
class Trained(Receipt):
    """A training. metrics: of the records that calibrated it."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    training_key: str = ""


@dataclass(frozen=True)
class Evaluated(Receipt):
    """An evaluation.

    Attributes:
        against: the version that it was judged against. champion: the one that served then.
        decision: None where it was judged before, on the same records.
    """

    against: int | None = None
    champion: int | None = None
    decision: Decision | None = None


@dataclass(frozen=True)
class Promoted(Receipt):
    """A promotion or a rollback. previous: who served before."""

    previous: int | None = None


@dataclass(frozen=True)
class Asked(Receipt):
    """What a person should see before a version becomes champion, as Markdown.

    objection: what speaks against it.
    """

    markdown: str = ""
    objection: str = ""
    is_challenger: bool = False


@dataclass(frozen=True)
class Reproduced(Receipt):
    """A training done again, see reproduction.Reproduction."""

    difference: str = ""
    likely: tuple[str, ...] = ()
    since: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pruned(Receipt):
    """What retention keeps, with the reasons for each version, and what went or would go.

    Attributes:
        removed: of the registry, n_bytes in all. local: paths here, n_bytes_local in all.
        n_files_replaced: of the tables, files of rows that were replaced, n_bytes_replaced in all.
    """

    dry_run: bool = False
    kept: Mapping[int, Sequence[str]] = field(default_factory=dict)
    removed: tuple[Removal, ...] = ()
    n_bytes: int = 0
    local: tuple[str, ...] = ()
    n_bytes_local: int = 0
    n_files_replaced: int = 0
    n_bytes_replaced: int = 0


def receipt_of(state: BatchState, outcome: Outcome) -> BatchReceipt:
    """Return a batch as the ledger has it, with its outcome just now."""
    return BatchReceipt(
        state.batch_id,
        outcome,
        state.reason,
        state.n_read,
        state.n_accepted,
        state.n_set_aside,
        state.n_flagged,
        state.model_version,
        state.threshold,
        state.above_usual,
        bool(state.is_odd),
    )


def summary(receipts: Sequence[BatchReceipt]) -> str:
    """Return one word for many batches: unchanged, waiting, done, refused, or partly done."""
    outcomes = {receipt.outcome for receipt in receipts}
    if not outcomes or outcomes == {"unchanged"}:
        return "unchanged"
    if outcomes <= {"unchanged", "waiting"}:
        return "waiting"
    bad = outcomes & {"refused", "failed"}
    return (
        "done"
        if not bad
        else ("refused" if outcomes <= {"refused", "failed", "unchanged"} else "partly done")
    )


def sentence(receipt: BatchReceipt, width: int = 0) -> str:
    """Return one batch in one line.

    Args:
        width: of the longest name, where lines are listed; names and numbers are then aligned.
    """
    many, few = (7, 5) if width else (0, 0)
    n_accepted, n_set_aside = _n(receipt.n_accepted).rjust(many), _n(receipt.n_set_aside).rjust(few)
    counts = {
        "accepted": f"{n_accepted} accepted, {n_set_aside} set aside",
        "scored": f"{n_accepted} scored, {_n(receipt.n_flagged).rjust(few)} flagged",
    }
    said = counts.get(receipt.outcome) or ": ".join(filter(None, [receipt.outcome, receipt.reason]))
    if receipt.outcome == "scored" and receipt.is_odd and receipt.above_usual is not None:
        said += f"; {odd_as_a_whole(receipt.above_usual)}"
    return f"{receipt.batch_id}:".ljust(width + 1) + f" {said}"


def _n(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def odd_as_a_whole(above_usual: float) -> str:
    return f"odd as a whole: {above_usual:.0%} of its records score above a normal one, more than usual"
