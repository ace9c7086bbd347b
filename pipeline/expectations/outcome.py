"""Results of a check, in our own words.

Belongs here: results. Does not: where they come from (checkpoint.py), or how they look (page.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Outcome:
    """What Great Expectations found for one rule.

    Attributes:
        code, column: the rule's own.
        severity: "critical" rules decide over the batch, "warning" rules over single records.
        success: whether the promise is kept; for a row rule, by at least the share `mostly` of the values.
        n_unexpected: records that break the rule; None where a rule is not about single records.
        promise, observed: what was promised and what was found, as a person reads it.
        expectation: Great Expectations' name for the check.
        examples: a few values that break the rule.
    """

    code: str
    column: str | None
    severity: Literal["warning", "critical"]
    success: bool
    n_unexpected: int | None
    promise: str
    observed: str
    expectation: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckpointResult:
    """One run of a suite over one batch.

    Attributes:
        success: whether every critical rule is kept.
        outcomes: one for each rule, in the order of the rules.
    """

    success: bool
    outcomes: tuple[Outcome, ...]
    n_records: int
