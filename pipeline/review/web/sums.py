"""Shapes of what filters and verdicts add up to, as the JSON API sends it.

Belongs here: pydantic models of sums. Does not: those of records and requests (shapes.py), or adding up
(queue.py, statistics.py).
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from pipeline.review.estimates import Recall
from pipeline.review.statistics import Day


class Counts(BaseModel):
    """Of each filter, how many records each of its choices would show, the others being as they are."""

    dataset: dict[str, int]
    state: dict[str, int]
    driver: dict[str, int] = Field(description="by the column that is most at odds")
    band: dict[str, int] = Field(description="by severity: at least")
    kind: dict[str, int] = Field(description="flagged, and the random sample")
    model_version: dict[str, int]
    reviewer: dict[str, int]


class Agreement(BaseModel):
    """Records that two or more judged, those on which they agree, and the share with its 95 % interval."""

    hits: int
    n: int
    low: float
    high: float
    value: float | None


class Precision(Agreement):
    """Of the flagged records of a model version that were judged, those that were worth the time."""

    dataset: str
    model_version: int


class Stats(BaseModel):
    """The state of review of one dataset, or of all."""

    states: dict[str, int] = Field(description="flagged records that no rule hides, by what verdicts came to")
    days: list[Day]
    precision: list[Precision]
    recall: Recall
    backlog: int = Field(description="flagged records that are open")
    oldest_open: str | None = Field(description="the day of the oldest of them")
    sampled_open: int = Field(description="of the random sample, beside them")
    suppressed: int
    hours_to_verdict: float | None = Field(description="median from scoring to the first verdict")
    agreement: Agreement
    reviewers: dict[str, int] = Field(description="verdicts of each, lately")
