"""What a record's score is made of, and what its reasons explain of it: parts that a reader can add.

Belongs here: arithmetic on what the queue keeps of a record. Does not: the score (vae_core/scoring.py), the
reasons (vae_core/attribution.py), or how they look.

Terms and shares answer two questions. A term is what a cell adds to the score as the record stands. A share
is a cell's part in the fall of the score when the named cells take their expected values: one wild amount
makes its fee look odd, too, and gets all of the blame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.review.queued import Whole

DIGITS = 2  # of nats; the parts add up as shown
LEAST = 0.01  # share of the score that a column must add to be shown on its own

Kind = Literal["column", "others", "kl"]


@dataclass(frozen=True)
class Part:
    """What something adds to a score, in nats.

    Attributes:
        column: its name; empty for the others and the KL divergence.
    """

    kind: Kind
    column: str
    nats: float


def of_score(row: Whole) -> list[Part]:
    """Return a score as a sum: the largest columns first, then the others, the KL divergence last.

    Empty where the terms were not kept.
    """
    if row.kl_weight is None:
        return []
    told = [term for term in row.terms if abs(term.nats) >= LEAST * abs(row.anomaly_score)]
    columns = [Part("column", term.column, round(term.nats, DIGITS)) for term in told]
    kl = Part("kl", "", round(row.kl_weight * row.kl_divergence, DIGITS))
    shown = round(row.anomaly_score, DIGITS)  # rounded first: the rest takes up the differences
    rest = round(shown - kl.nats - sum(part.nats for part in columns), DIGITS)
    return [*columns, *([Part("others", "", rest)] if rest else []), kl]


def unnamed_share(row: Whole) -> float:
    """Return the share of columns too small to be reasons: what is left of 1, to whole percents."""
    told = [row.kl_share or 0.0, *(reason.share for reason in row.reasons)]
    return max(0, 100 - sum(round(100 * share) for share in told)) / 100 if row.reasons else 0.0
