"""What verdicts add up to: backlog, days, precision by model version, recall from the random sample.

Belongs here: the counts behind each number. Does not: how reviewers work (reviewers.py), the estimates and
their intervals (estimates.py), the plots (web/plots.py), or what is done about them.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import sqlalchemy as sa
from pydantic import Field

from pipeline.records.verdicts import NORMAL, NOT_LEARNED, STATES
from pipeline.review import reviewers
from pipeline.review.estimates import (
    Looked,
    Missed,
    Recall,
    Share,
    both,
    recall,
    share_of,
)
from pipeline.review.filters import BANDS, Datasets, of
from pipeline.review.precision import Headline, Precision, by_version, headline, serving_versions
from pipeline.storage.ledger import Ledger
from pipeline.storage.review_schema import queue_batches, tallies, tally_sums

DAYS, LONGEST_PLOT = 30, 60  # of a plot: by default, and at most


@dataclass(frozen=True)
class Day:
    """One day's flagged records: how many, how many are judged, how many of those are worth a person's
    time.
    """

    day: str
    n_flagged: int
    n_judged: int
    n_confirmed: int


@dataclass(frozen=True)
class Review:
    """The state of review of one dataset, or of all; how reviewers work, of the last 90 days."""

    states: Annotated[
        dict[str, int], Field(description="flagged records that no rule hides, by what verdicts came to")
    ]
    days: tuple[Day, ...]
    precision: tuple[Precision, ...]
    serving: Annotated[
        dict[str, int], Field(description="by dataset, the version that serves, as last seen here")
    ]
    recall: Recall
    false_negative_rate: Missed
    backlog: Annotated[int, Field(description="flagged records that are open")]
    oldest_open: Annotated[str | None, Field(description="the day of the oldest of them")]
    sampled_open: Annotated[int, Field(description="of the random sample, beside them")]
    suppressed: int
    hours_to_verdict: Annotated[
        float | None,
        Field(description="median from scoring to the first verdict that was not taken back"),
    ]
    agreement: Annotated[
        Share,
        Field(description="records that two or more judged, and those on which their last words agree"),
    ]
    reviewers: Annotated[dict[str, int], Field(description="how many records each judged")]

    def headline(self, dataset: str) -> Headline | None:
        """Return what to say first of one dataset's precision; None where nothing is judged."""
        mine = [one for one in self.precision if one.dataset == dataset]
        return headline(mine, self.serving.get(dataset))

    def serves(self, share: Precision) -> bool:
        """Whether a share is of the version that serves."""
        return self.serving.get(share.dataset) == share.model_version


def review(ledger: Ledger, dataset: Datasets = None, *, days: int = DAYS) -> Review:
    """Return the state of review as it is now, of one dataset, of several or of all."""
    with ledger.transaction() as connection:
        states, hidden = _states(connection, dataset, "flagged")
        sampled, _ = _states(connection, dataset, "sampled")
        oldest = _oldest_open(connection, dataset)
        by_day = _days(connection, dataset, min(days, LONGEST_PLOT))
        precision = by_version(connection, dataset)
        serves = serving_versions(connection, dataset)
        estimated = _recall(connection, dataset)
        agreement, by = reviewers.agreement(connection, dataset), reviewers.judged(connection, dataset)
        waits = reviewers.waits(connection, dataset)
    return Review(
        states=states,
        days=by_day,
        precision=precision,
        serving=serves,
        recall=estimated,
        false_negative_rate=estimated.false_negative_rate,
        backlog=states.get("open", 0),
        oldest_open=oldest,
        sampled_open=sampled.get("open", 0),
        suppressed=hidden,
        hours_to_verdict=statistics.median(waits) if waits else None,
        agreement=agreement,
        reviewers=by,
    )


def _states(connection: sa.Connection, dataset: Datasets, kind: str) -> tuple[dict[str, int], int]:
    """Count the records of a kind by state, and those that rules hide."""
    columns = (tally_sums.c.state, tally_sums.c.suppressed)
    query = sa.select(*columns, sa.func.sum(tally_sums.c.n)).where(
        tally_sums.c.kind == kind, tally_sums.c.n > 0
    )
    states, hidden = {}, 0
    for state, suppressed, n in connection.execute(of(query, tally_sums, dataset).group_by(*columns)):
        if suppressed:
            hidden += int(n)
        else:
            states[state] = int(n)
    return {state: states[state] for state in STATES if state in states}, hidden


def _oldest_open(connection: sa.Connection, dataset: Datasets) -> str | None:
    waits = (tallies.c.kind == "flagged") & (tallies.c.state == "open") & ~tallies.c.suppressed
    query = of(sa.select(tallies.c.day).where(waits), tallies, dataset)
    found: str | None = connection.execute(query.order_by(tallies.c.day).limit(1)).scalar_one_or_none()
    return found


def _days(connection: sa.Connection, dataset: Datasets, n: int) -> tuple[Day, ...]:
    """Return up to n days, from the first to the last with flagged records; days without any count as 0."""
    today = datetime.now(UTC).date().isoformat()  # a record of a later day is an error of some clock
    flagged = (tallies.c.kind == "flagged") & (tallies.c.day <= today)
    query = of(sa.select(tallies.c.day).where(flagged), tallies, dataset).order_by(tallies.c.day.desc())
    newest = connection.execute(query.limit(1)).scalar_one_or_none()
    if newest is None:
        return ()
    last = date.fromisoformat(newest)
    days = [(last - timedelta(days=back)).isoformat() for back in range(n - 1, -1, -1)]
    columns = (tallies.c.day, tallies.c.state, tallies.c.suppressed)
    counted = sa.select(*columns, sa.func.sum(tallies.c.n)).where(flagged, tallies.c.day >= days[0])
    by_day: dict[str, Counter[str]] = defaultdict(Counter)
    for day, state, suppressed, count in connection.execute(of(counted, tallies, dataset).group_by(*columns)):
        by_day[day]["hidden" if suppressed else state] += int(count)
    found = [_day(day, by_day[day]) for day in days]
    first = next((i for i, one in enumerate(found) if one.n_flagged), 0)
    return tuple(found[first:])


def through(days: tuple[Day, ...], others: Collection[str], n: int = DAYS) -> tuple[Day, ...]:
    """Return the same days, and those after them up to the last of the others, the newest n of all.

    The added ones have no flagged records. Others that would leave no day with some are passed over.
    """
    if not days:
        return days
    last = date.fromisoformat(days[-1].day)
    added = [(last + timedelta(days=i)).isoformat() for i in range(1, n)]
    n_more = max((i for i, day in enumerate(added, 1) if day in others), default=0)
    return (*days, *(Day(day, 0, 0, 0) for day in added[:n_more]))[-n:]


def _day(day: str, count: Counter[str]) -> Day:
    n_judged = sum(count[state] for state in count if state not in {"open", "hidden"})
    return Day(day, count.total(), n_judged, sum(count[state] for state in NOT_LEARNED))


def _recall(connection: sa.Connection, dataset: Datasets) -> Recall:
    names = sa.select(queue_batches.c.dataset).distinct()
    known = list(connection.execute(of(names, queue_batches, dataset).limit(2)).scalars())
    if len(known) > 1:
        return Recall(None, 0.0, 1.0, 0.0, share_of(0, 0), "told for one dataset at a time")
    counted = _by_batch(connection, known[0]) if known else {}
    unflagged = sa.select(queue_batches.c.batch_id, queue_batches.c.n_unflagged).where(
        queue_batches.c.dataset.in_(known), queue_batches.c.n_sampled > 0
    )
    batches, bands = [], dict.fromkeys(BANDS, Looked(0, 0, 0))
    for batch_id, n in connection.execute(unflagged):
        mine = counted.get(batch_id, {})
        sample = mine.get("sampled", {}).values()
        judged, hits = sum(one.n_judged for one in sample), sum(one.hits for one in sample)
        if judged:
            batches.append(Looked(int(n), judged, hits))
            for band, flagged in mine.get("flagged", {}).items():
                bands[band] = both(bands[band], flagged)
    return recall([bands[band] for band in sorted(bands)], batches)


def _by_batch(connection: sa.Connection, dataset: str) -> dict[str, dict[str, dict[int, Looked]]]:
    """Return batch → kind → band: how many records, and what people found them to be."""
    columns = (tallies.c.batch_id, tallies.c.kind, tallies.c.band, tallies.c.state)
    query = sa.select(*columns, sa.func.sum(tallies.c.n)).where(tallies.c.dataset == dataset)
    found: dict[str, dict[str, dict[int, Looked]]] = defaultdict(lambda: defaultdict(dict))
    for batch_id, kind, band, state, n in connection.execute(query.group_by(*columns)):
        hits, judged = int(n) * (state in NOT_LEARNED), int(n) * (state in {*NOT_LEARNED, *NORMAL})
        before = found[batch_id][kind].get(band, Looked(0, 0, 0))
        found[batch_id][kind][band] = both(before, Looked(int(n), judged, hits))
    return found


def as_lines(found: Review) -> Iterable[tuple[str, str]]:
    """Yield what a terminal shows, as names and texts."""
    yield (
        "backlog",
        f"{found.backlog:,} open" + (f", the oldest of {found.oldest_open}" if found.oldest_open else ""),
    )
    yield "random sample", f"{found.sampled_open} open, beside the flagged ones"
    yield "suppressed", str(found.suppressed)
    yield "states", ", ".join(f"{state} {n:,}" for state, n in found.states.items()) or "nothing flagged yet"
    yield from _precision_lines(found)
    yield "recall, estimated", recall_text(found.recall)
    if found.false_negative_rate.value is not None:
        yield "missed, the false-negative rate", missed_text(found.false_negative_rate)
    yield "time to verdict", _wait_line(found)
    yield (
        "agreement",
        share_text(found.agreement) if found.agreement.n else "no record has verdicts of two reviewers",
    )
    yield "reviewers", ", ".join(f"{by} {n:,}" for by, n in found.reviewers.items()) or "nobody yet"


def _wait_line(found: Review) -> str:
    if found.hours_to_verdict is not None:
        return f"{wait_text(found.hours_to_verdict)} (median)"
    return "not known: no scoring from before a verdict is kept" if found.reviewers else "no verdict yet"


def _precision_lines(found: Review) -> Iterable[tuple[str, str]]:
    for dataset in dict.fromkeys(one.dataset for one in found.precision):
        first = found.headline(dataset)
        if first and first.share is None:
            yield f"precision of {dataset} version {first.version}, which serves", "no verdict yet"
        for share in (one for one in found.precision if one.dataset == dataset):
            serves = ", which serves" if found.serves(share) else ""
            yield (
                f"precision of {dataset} version {share.model_version}{serves}, of those judged",
                share_text(share),
            )


def share_text(share: Share) -> str:
    """Format a share, like 0.83 (50 of 60; 0.72 to 0.91) or 0.83 (50 of 60 in 20 groups; 0.62 to 0.94).

    A wide interval stands alone.
    """
    if share.value is None:
        return "no verdict yet"
    of = f"{share.hits:,} of {share.n:,}"
    if isinstance(share, Precision):
        of += said_of_groups(share)
    if share.is_wide:
        return f"{share.low:.2f} to {share.high:.2f} ({of}: too few)"
    return f"{share.value:.2f} ({of}; {share.low:.2f} to {share.high:.2f})"


def said_of_groups(share: Precision) -> str:
    """Say in how many groups the judged records are, where some are in one."""
    if share.n_groups == share.n:
        return ""
    return f" in {share.n_groups:,} group{'s' * (share.n_groups != 1)}"


def wait_text(hours: float) -> str:
    """Format hours: 12 min, 5.3 h, 4.1 days."""
    if hours < 1:
        return f"{round(hours * 60)} min" if hours >= 1 / 60 else "less than a minute"
    return f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.1f} days"


def recall_text(found: Recall) -> str:
    """Format recall, like 0.91 (0.80 to 0.97; 2 of 60 sampled records are anomalies).

    A wide interval stands alone.
    """
    if found.why_not:
        return found.why_not
    if found.value is None:
        return "judge some of the random sample first (kind: sampled)"
    share = f"{found.sampled.hits:,} of {found.sampled.n:,} sampled records are anomalies"
    if found.is_wide:
        return f"{found.low:.2f} to {found.high:.2f}: too few judged to say more; {share}"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f}; {share})"


def missed_text(found: Missed) -> str:
    """Format a false-negative rate, like 0.09 (0.03 to 0.20); a wide interval stands alone."""
    interval = f"{found.low:.2f} to {found.high:.2f}"
    return interval if found.value is None or found.is_wide else f"{found.value:.2f} ({interval})"
