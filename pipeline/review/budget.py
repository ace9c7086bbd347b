"""How many records a day are worth a person's time, judging by verdicts: a suggestion, for a person to apply.

Belongs here: from verdicts in the order of severity to a budget with its interval. Does not: flagging
(detection/calibration.py).

A budget is a place in the order of severity: above it people look, below it they do not. Going down, each
record that is worth the time gains one and each that is not costs one (a target of one half); the best place
is where the sum is largest. Its interval comes from the best places in 400 resamples (percentile bootstrap,
90 %). Causes are resampled, not records: two hundred records of one event are one witness, and so are those
that one press judged (Davison & Hinkley 1997, 3.8). Nothing is suggested where precision could not be told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pipeline.numerals import number
from pipeline.records.verdicts import NORMAL, NOT_LEARNED
from pipeline.review.answers import kept
from pipeline.review.estimates import FEWEST_TOLD, Share, share_of, witnesses
from pipeline.review.filters import Unindexed
from pipeline.storage.review_schema import queue, queue_batches, scorings, verdicts

if TYPE_CHECKING:
    from pipeline.config.dataset import Dataset
    from pipeline.installation import Installation

FEWEST = 30  # verdicts; with fewer, nothing is suggested
FEWEST_CAUSES = FEWEST_TOLD  # that they are on: a verdict on a group of fifty is one opinion
RESAMPLES = 400
READ = ("state", "batch_id", "signature", "reviewer", "decided_at")  # of a judged record
AS_IT_IS = 0.95  # share of today's budget; a suggestion above it is no news


@dataclass(frozen=True)
class TooFew:
    """Why many verdicts suggest nothing: they are alike.

    Attributes:
        worth: independent records that say as much.
    """

    n_judged: int
    worth: float

    @property
    def text(self) -> str:
        told = number(self.worth, 2)
        return (
            f"none yet: the {self.n_judged:,} judged say as much as {told} independent record{'s' * (told != '1')}, as many "
            f"are of one group, one batch or one press; it takes {FEWEST_CAUSES}"
        )


@dataclass(frozen=True)
class Suggestion:
    """A suggested budget, beside the one that holds.

    Attributes:
        now: records a day now.
        best, low, high: the suggestion and its interval; at most `now`, as nobody looked beyond it.
        least_severe: of the least severe third of the judged records, how many were worth the time.
    """

    now: float
    best: float
    low: float
    high: float
    least_severe: Share
    n_judged: int

    @property
    def text(self) -> str:
        third = f"of the least severe third {self.least_severe.hits:,} of {self.least_severe.n:,} were worth the time"
        if self.best == 0:
            return (
                f"none: at every severity, at most half of the {self.n_judged:,} judged were worth the time; "
                "first see what they share (Groups)"
            )
        if self.best < AS_IT_IS * self.now:
            best, low, high, now = (number(n, 2) for n in (self.best, self.low, self.high, self.now))
            return f"{best} a day ({low} to {high}), now {now}; {third}"
        more = "; a larger one may be worth trying" if self.least_severe.low > 0.5 else ""
        return f"{number(self.now, 2)} a day, as now; {third}{more}"


def suggest(
    judged: Sequence[tuple[float, bool]],
    now: float,
    *,
    causes: Sequence[Hashable] | None = None,
    above: Callable[[float], float] | None = None,
    seed: int = 7,
) -> Suggestion | None:
    """Return the budget that verdicts speak for, or None while they or their causes are too few.

    Args:
        judged: (severity, was it worth the time) of each judged flagged record.
        now: records a day at present.
        causes: for each judged record, what it shares with others that are odd for the same reason; by
            default each has its own.
        above: gives the share of all flagged records, judged or not, that are at least so severe; by default
            the share of the judged ones.
    """
    import numpy as np

    if len(judged) < FEWEST or len(set(causes or range(len(judged)))) < FEWEST_CAUSES:
        return None
    severities, gains = np.array([s for s, _ in judged]), np.array([1 if hit else -1 for _, hit in judged])
    levels, level = np.unique(-severities, return_inverse=True)  # records of one severity stay together

    def place(times: Any) -> float:
        """Return the severity from which on people look, if each record counts `times` times."""
        sums = np.cumsum(np.bincount(level, gains * times, len(levels)))
        if sums.max() <= 0:
            return math.inf
        is_there = np.bincount(level, times, len(levels)) > 0
        return float(-levels[np.flatnonzero(is_there & (sums == sums.max()))[-1]])

    def budget(severity: float) -> float:
        if severity == math.inf:
            return 0.0
        return now * (above(severity) if above else float((severities >= severity).mean()))

    rng, n = np.random.default_rng(seed), len(judged)
    names: dict[Hashable, int] = {}
    cause = np.array([names.setdefault(one, len(names)) for one in causes or range(n)])
    draws = (
        np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names)) for _ in range(RESAMPLES)
    )
    drawn = np.sort([place(times[cause]) for times in draws])
    low, high = drawn[-RESAMPLES // 20], drawn[RESAMPLES // 20 - 1]
    least = gains[np.argsort(severities, kind="stable")[: n // 3]]
    share = share_of(int((least > 0).sum()), len(least))
    best = budget(place(np.ones(n)))
    return Suggestion(now, best, min(budget(low), best), max(budget(high), best), share, n)


def causes_of(records: Sequence[tuple[str, Hashable, Hashable]]) -> list[Hashable]:
    """Return what each record shares with those that are odd for the same reason, or judged by one press.

    Args:
        records: signature, batch and act of each. Those of one signature have one cause if they are of one
            batch or of one act, or linked by others that are.
    """
    above: dict[Hashable, Hashable] = {}

    def top(node: Hashable) -> Hashable:
        while (up := above.setdefault(node, node)) != node:
            node = above[node] = above.setdefault(up, up)
        return node

    for signature, batch, act in records:
        above[top((signature, "batch", batch))] = top((signature, "act", act))
    return [top((signature, "batch", batch)) for signature, batch, _ in records]


def worth(hits: Sequence[bool], causes: Sequence[Hashable], signatures: Sequence[str]) -> float:
    """Return how many independent records say as much: no more than causes, nor than precision counts."""
    groups: dict[str, list[bool]] = {}
    for signature, hit in zip(signatures, hits, strict=True):
        groups.setdefault(signature, []).append(hit)
    return min(len(set(causes)), witnesses([(sum(group), len(group)) for group in groups.values()]))


def suggested(here: Installation, dataset: Dataset) -> Suggestion | TooFew | None:
    """Return what the verdicts on the serving version's flags speak for; None while they are too few, and why
    nothing where they are many but alike.

    It is found anew once something is judged or scored, another version serves, or the budget changes.
    """
    version = here.ledger.serving_version(dataset.name)
    if version is None:
        return None
    asked = (dataset.name, version, dataset.flag.review_budget)
    return kept(
        here,
        "budget",
        *asked,
        *_read_from(here, dataset.name),
        answer=lambda: _suggested(here, dataset, version),
    )


def _read_from(here: Installation, dataset: str) -> tuple[object, ...]:
    """Return what changes whenever the rows behind a suggestion do.

    Verdicts are only added, by one writer at a time: the newest one's number stands for all. A batch's rows
    are replaced together, with the time of scoring.
    """
    newest = sa.select(sa.func.max(verdicts.c.number)).where(verdicts.c.dataset == dataset)
    scored_at = sa.type_coerce(queue_batches.c.scored_at, sa.String)  # as stored: it is only compared
    columns = (queue_batches.c.batch_id, queue_batches.c.model_version, queue_batches.c.n_flagged, scored_at)
    scored = sa.select(*columns).where(queue_batches.c.dataset == dataset).order_by(queue_batches.c.batch_id)
    with here.ledger.transaction() as connection:
        return (connection.execute(newest).scalar_one(), *map(tuple, connection.execute(scored)))


def _suggested(here: Installation, dataset: Dataset, version: int) -> Suggestion | TooFew | None:
    flags = (scorings.c.model_version == version) & (scorings.c.kind == "flagged")
    same = (scorings.c.dataset == queue.c.dataset) & (scorings.c.anomaly_id == queue.c.anomaly_id)
    severity = sa.select(scorings.c.severity).where(same, flags).scalar_subquery()  # looked up one by one
    found = (
        sa
        .select(severity.label("severity"), *(queue.c[name] for name in READ))
        .where(queue.c.state.in_([*NOT_LEARNED, *NORMAL]), Unindexed(queue.c.dataset) == dataset.name)
        .order_by(queue.c.anomaly_id)  # resamples are the same each time
    )
    everything = sa.select(sa.func.count()).where(scorings.c.dataset == dataset.name, flags)
    days = sa.select(sa.func.count(sa.distinct(queue_batches.c.day))).where(
        queue_batches.c.dataset == dataset.name, queue_batches.c.model_version == version
    )
    with here.ledger.transaction() as connection:
        rows = connection.execute(found).all()
        rows = [row for row in rows if row.severity is not None]
        judged = [(row.severity, row.state in NOT_LEARNED) for row in rows]
        if len(judged) < FEWEST:
            return None
        # all that one press says has one time
        causes = causes_of([(row.signature, row.batch_id, (row.reviewer, row.decided_at)) for row in rows])
        speaks = worth([hit for _, hit in judged], causes, [row.signature for row in rows])
        if speaks < FEWEST_CAUSES:
            return TooFew(len(judged), speaks)
        n_flagged, n_days = (connection.execute(query).scalar_one() for query in (everything, days))

        def above(severity: float) -> float:
            n: int = connection.execute(everything.where(scorings.c.severity >= severity)).scalar_one()
            return n / n_flagged

        now = dataset.flag.review_budget or (n_flagged / n_days if n_days else 0.0)
        return suggest(judged, now, causes=causes, above=above) if now else None
