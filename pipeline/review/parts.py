"""What a record's score is made of, and what its reasons explain of it: parts that a reader can add.

Belongs here: arithmetic on what the queue keeps of a record. Does not: the score (vae_core/scoring.py), the
reasons (vae_core/attribution.py), or how they look.

Terms and shares are two answers. A term is what a cell adds to the score as the record stands. A share is of
the fall of the score when the named cells take their expected values: one wild amount makes its fee look odd,
too, and has all of the blame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.review.queued import Whole

DIGITS = 2  # of nats: what is shown adds up as shown
LEAST = 0.01  # of the score: what a column adds to be told on its own

Kind = Literal["column", "others", "kl"]


@dataclass(frozen=True)
class Part:
    """What something adds to a score, in nats; column: its name, empty for the others and the KL
    divergence.
    """

    kind: Kind
    column: str
    nats: float


def of_score(row: Whole) -> list[Part]:
    """A score as a sum: the largest columns first, then the others, the KL divergence last. Empty where it
    was not kept.
    """
    if row.kl_weight is None:
        return []
    told = [term for term in row.terms if abs(term.nats) >= LEAST * abs(row.anomaly_score)]
    columns = [Part("column", term.column, round(term.nats, DIGITS)) for term in told]
    kl = Part("kl", "", round(row.kl_weight * row.kl_divergence, DIGITS))
    shown = round(row.anomaly_score, DIGITS)  # first: half a cent would be taken off again by the rest
    rest = round(shown - kl.nats - sum(part.nats for part in columns), DIGITS)
    return [*columns, *([Part("others", "", rest)] if rest else []), kl]


def unnamed_share(row: Whole) -> float:
    """The share of columns that are no reasons, each too little to be one: what is left of 1, to whole
    percents.
    """
    told = [row.kl_share or 0.0, *(reason.share for reason in row.reasons)]
    return max(0, 100 - sum(round(100 * share) for share in told)) / 100 if row.reasons else 0.0
