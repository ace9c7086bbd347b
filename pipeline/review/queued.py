"""A record of the review queue: what a list shows of it, and the whole of it.

Belongs here: the types, with what each field means to whoever reads the API. Does not: reading them from the
database (queue.py, record.py), or what else is looked up for a record (compare.py, versions.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.verdicts import State, Verdict


@dataclass(frozen=True)
class Reason:
    """A column that explains a share of the score.

    Attributes:
        low, high: the 95 % interval of a number, which may be text: infinite; None for a category.
        unknown: a category that training did not have, or hardly ever; None: scored before that was kept.
    """

    column: str
    observed: str
    expected: str
    low: float | str | None
    high: float | str | None
    share: float
    unknown: bool | None = None


@dataclass(frozen=True)
class Term:
    """What a column adds to the score, in nats."""

    column: str
    nats: float


@dataclass(frozen=True)
class Claim:
    """Who is at a record, until when."""

    by: str
    until: datetime


@dataclass(frozen=True)
class Scoring:
    """What one model version said of a record when it scored its batch."""

    dataset: str
    anomaly_id: str
    model_version: int
    batch_id: str
    kind: str
    severity: float
    anomaly_score: float
    threshold: float
    scored_at: datetime


@dataclass(frozen=True)
class Listed:
    """A record as a list shows it.

    Attributes:
        day: of the batch's newest record, ISO.
        kind: flagged, sampled, or cleared: flagged no longer.
        driver: the column with the largest share of what makes it odd.
        suppressed: the number of the rule that hides it; 0: none.
        record_key: here cut after 200 characters.
        claim: None where nobody is at it.
    """

    anomaly_id: str
    dataset: str
    batch_id: str
    day: str
    kind: str
    driver: str
    signature: str
    state: State
    reviewer: str
    decided_at: datetime | None
    band: int
    suppressed: int
    model_version: int
    severity: float
    anomaly_score: float
    reconstruction: float
    kl_divergence: float
    kl_share: float | None
    p_value: float
    threshold: float
    scored_at: datetime
    reasons: tuple[Reason, ...]
    record_key: str
    claim: Claim | None


@dataclass(frozen=True)
class Whole(Listed):
    """A record with its values, what was said of it, and each model version's word on it.

    Attributes:
        record_key: not cut.
        kl_weight: of the KL divergence in the score; None: not kept.
        terms: the largest; the score is all terms and kl_weight × kl_divergence.
        verdicts: the whole history, oldest first.
        holding: numbers of the verdicts that count.
    """

    row_number: int
    kl_weight: float | None
    terms: tuple[Term, ...]
    record: dict[str, Any]
    verdicts: tuple[Verdict, ...]
    holding: tuple[int, ...]
    versions: tuple[Scoring, ...]
