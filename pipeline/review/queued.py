"""A record of the review queue: what a list shows of it, and the whole of it.

Belongs here: the types, described for whoever reads the API, and how a record is odd. Does not: reading
them from the database (queue.py, record.py), or what else is looked up for a record (compare.py,
versions.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from pipeline.numerals import from_text
from pipeline.records.verdicts import State, Verdict, name_of

OTHER = "(other)"  # the category that stands for all rare ones, as a reason names it
MOST_OF_IT = 0.5  # share of what makes a record odd; reasons that explain less leave more unsaid than said
Oddness = Literal["above", "below", "missing", "other_category", "unknown_category", "together", "no_column"]
ODDNESSES: tuple[Oddness, ...] = get_args(Oddness)


@dataclass(frozen=True)
class Reason:
    """A column that explains a share of the score."""

    column: str
    observed: str
    expected: str
    low: Annotated[float | str | None, Field(description="of the 95 % interval; null: a category")]
    high: float | str | None
    share: float
    unknown: Annotated[
        bool | None, Field(description="a category that training did not have, or hardly ever")
    ] = None

    @property
    def is_quantity(self) -> bool:
        """Whether its column holds quantities, not names or codes."""
        return self.low is not None

    @property
    def observed_text(self) -> str:
        """What was observed, as people read it."""
        return from_text(self.observed) if self.is_quantity else self.observed

    @property
    def expected_text(self) -> str:
        """What was expected, likewise; a category with how likely it was."""
        if self.is_quantity:
            return from_text(self.expected)
        value, chance = self.likely
        return f"{value}, {chance} likely" if chance else value

    @property
    def likely(self) -> tuple[str, str]:
        """The expected category and its chance, from "DE (93%)"; a number has no such chance."""
        value, _, chance = self.expected.rpartition(" (")
        if self.is_quantity or not value or not chance.endswith("%)"):
            return self.expected, ""
        return "a rare value" if value == OTHER else value, chance.removesuffix(")")

    @property
    def is_within(self) -> bool:
        """Whether what was observed lies in the interval: not odd by itself, but with the others."""
        return _number(self.low) <= _number(self.observed) <= _number(self.high)

    @property
    def oddness(self) -> Oddness:
        """How this column is odd; `together`: not by itself, but given the other columns."""
        if self.observed == "missing":
            return "missing"
        if self.unknown:
            return "unknown_category"
        if self.is_within or self.observed in {self.expected, self.expected.rpartition(" (")[0]}:
            return "together"
        above = _number(self.observed) - _number(self.expected)
        if self.low is None or math.isnan(above):
            return "other_category"
        return "above" if above >= 0 else "below"


def oddness(reasons: Sequence[Reason]) -> Oddness:
    """Return how a flagged record is odd: as its first reason is, whose column is its driver."""
    return reasons[0].oddness if reasons else "no_column"


def _number(value: float | str | None) -> float:
    """Return a number; for a category or a missing value NaN, which lies nowhere."""
    try:
        return math.nan if value is None else float(value)
    except ValueError:
        return math.nan


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
    kind: Annotated[str, Field(description="flagged, sampled, or cleared: no longer flagged")]
    severity: float
    anomaly_score: float
    threshold: float
    scored_at: Annotated[datetime, Field(description="the first time, if it did so more than once")]


@dataclass(frozen=True)
class Listed:
    """A record as a list shows it."""

    anomaly_id: str
    dataset: str
    batch_id: str
    day: Annotated[str, Field(description="of the batch's newest record")]
    kind: Annotated[str, Field(description="flagged, sampled, or cleared: no longer flagged")]
    driver: Annotated[str, Field(description="the column with the largest share of what makes it odd")]
    oddness: Annotated[
        Oddness | Literal[""],
        Field(description="how it is odd: as its driver is; empty: it was not flagged when it came in"),
    ]
    signature: str
    state: State
    reviewer: str
    decided_at: datetime | None
    band: int
    suppressed: Annotated[int, Field(description="number of the rule that hides it; 0: none")]
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
    record_key: Annotated[str, Field(description="in a list: cut after 200 characters")]
    row_number: Annotated[
        int, Field(description="position in the delivery, files in the order of their names")
    ]
    claim: Annotated[Claim | None, Field(description="null: nobody is at it")]

    @property
    def name(self) -> str:
        """What people know it by, see `name_of`."""
        return name_of(self.record_key, self.batch_id, self.row_number)

    @property
    def is_spread(self) -> bool:
        """Whether its reasons explain less than half of what makes it odd, and the rest is in no column."""
        return bool(self.reasons) and sum(reason.share for reason in self.reasons) < MOST_OF_IT


@dataclass(frozen=True)
class Whole(Listed):
    """A record with its values, what was said of it, and each model version's word on it."""

    kl_weight: Annotated[float | None, Field(description="of the KL divergence in the score; null: not kept")]
    terms: Annotated[
        tuple[Term, ...],
        Field(description="the largest; the score is all terms and kl_weight × kl_divergence"),
    ]
    record: dict[str, Any]
    verdicts: Annotated[tuple[Verdict, ...], Field(description="the whole history, oldest first")]
    holding: Annotated[tuple[int, ...], Field(description="numbers of the verdicts that count")]
    versions: tuple[Scoring, ...]
