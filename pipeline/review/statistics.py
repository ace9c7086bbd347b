"""What verdicts add up to: precision by model version, recall from the random sample, backlog, time, agreement.

Belongs here: estimates with their intervals. Does not: the plots (web/plots.py) or what is done about them.

Shares have Wilson's interval (1927). Recall is a ratio of two estimates: flagged anomalies, and those among the
unflagged as the random sample has them; its interval takes the ends of both, each at 97.5 %, so that together they
hold at 95 % at least (Bonferroni).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from pipeline.ledger import Ledger
from pipeline.review.schema import queue, queue_batches, scorings, tallies, verdicts
from pipeline.verdicts import NORMAL, NOT_LEARNED, Verdict, standing

Z95, Z975 = 1.959964, 2.241403
LONGEST_PLOT = 60  # days


@dataclass(frozen=True)
class Share:
    """hits of n, with the interval that holds the true share 19 times in 20."""

    hits: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        return self.hits / self.n if self.n else None


@dataclass(frozen=True)
class Day:
    """One day's flagged records: how many, how many are judged, how many of those are worth a person's time."""

    day: str
    n_flagged: int
    n_judged: int
    n_confirmed: int


@dataclass(frozen=True)
class Recall:
    """How many of the anomalies were flagged, as the random sample tells; None where it tells nothing yet.

    Attributes:
        missed: estimated anomalies among the unflagged records of the sampled batches.
        sampled: judged records of the sample, and how many of them are anomalies.
    """

    value: float | None
    low: float
    high: float
    missed: float
    sampled: Share


@dataclass(frozen=True)
class Review:
    """The state of review of one dataset, or of all.

    Attributes:
        precision: by (dataset, model version): judged flagged records, and how many are anomalies or data errors.
        backlog: open flagged records that no rule hides; oldest_open: the day of the oldest.
        hours_to_verdict: median from scoring to the first verdict; None before there is one.
        agreement: records that two or more judged, and on how many they agree.
    """

    states: dict[str, int]
    days: tuple[Day, ...]
    precision: dict[tuple[str, int], Share]
    recall: Recall
    backlog: int
    oldest_open: str | None
    suppressed: int
    hours_to_verdict: float | None
    agreement: Share
    reviewers: dict[str, int]


def wilson(hits: int, n: int, z: float = Z95) -> Share:
    """A share with Wilson's score interval; without observations it may be anything."""
    if not n:
        return Share(0, 0, 0.0, 1.0)
    p = hits / n
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    return Share(hits, n, max(0.0, low), min(1.0, high))


def recall(flagged: Share, n_flagged: int, sampled: Share, n_unflagged: int) -> Recall:
    """Recall from two samples: judged flagged records, and judged random unflagged ones.

    Args:
        n_flagged, n_unflagged: how many there are, judged or not, in the same batches.
    """
    if not flagged.n or not sampled.n:
        return Recall(None, 0.0, 1.0, 0.0, sampled)
    found = {end: n_flagged * share for end, share in _ends(flagged).items()}
    missed = {end: n_unflagged * share for end, share in _ends(sampled).items()}
    value, low, high = (
        _ratio(found[mine], missed[theirs])
        for mine, theirs in (("mid", "mid"), ("low", "high"), ("high", "low"))
    )
    return Recall(
        value, low if low is not None else 0.0, high if high is not None else 1.0, missed["mid"], sampled
    )


def _ends(share: Share) -> dict[str, float]:
    wide = wilson(share.hits, share.n, Z975)
    return {"low": wide.low, "mid": share.hits / share.n, "high": wide.high}


def _ratio(found: float, missed: float) -> float | None:
    return found / (found + missed) if found + missed else None


def review(ledger: Ledger, dataset: str | None = None, *, days: int = 30) -> Review:
    """The state of review as it is now."""
    with ledger.transaction() as connection:
        states, by_day, backlog, oldest, hidden = _tallied(connection, dataset)
        precision = _precision(connection, dataset)
        estimated = _recall(connection, dataset)
        said = _said(connection, dataset)
        waits = _waits(connection, dataset)
    together = [[v.verdict for v in standing(entries).holding] for entries in said.values()]
    judged_twice = [words for words in together if len(words) > 1]
    return Review(
        states=states,
        days=_last(by_day, min(days, LONGEST_PLOT)),
        precision=precision,
        recall=estimated,
        backlog=backlog,
        oldest_open=oldest,
        suppressed=hidden,
        hours_to_verdict=statistics.median(waits) if waits else None,
        agreement=wilson(sum(len(set(words)) == 1 for words in judged_twice), len(judged_twice)),
        reviewers=dict(
            Counter(v.by for entries in said.values() for v in standing(entries).holding).most_common()
        ),
    )


def _tallied(
    connection: sa.Connection, dataset: str | None
) -> tuple[dict[str, int], dict[str, Counter[str]], int, str | None, int]:
    columns = (tallies.c.day, tallies.c.state, tallies.c.suppressed)
    query = (
        sa.select(*columns, sa.func.sum(tallies.c.n)).where(tallies.c.kind == "flagged").group_by(*columns)
    )
    states: Counter[str] = Counter()
    by_day: dict[str, Counter[str]] = defaultdict(Counter)
    hidden, oldest = 0, None
    for day, state, suppressed, n in connection.execute(_of(query, tallies, dataset)):
        by_day[day]["hidden" if suppressed else state] += int(n)
        if suppressed:
            hidden += int(n)
            continue
        states[state] += int(n)
        if state == "open":
            oldest = min(day, oldest or day)
    return dict(states), by_day, states["open"], oldest, hidden


def _last(by_day: Mapping[str, Counter[str]], n: int) -> tuple[Day, ...]:
    """The newest n days up to the last that has records; days without any count as well: nothing is a number, too."""
    today = datetime.now(UTC).date().isoformat()
    newest = max((day for day in by_day if day <= today), default=None)  # a later one is a slip of some clock
    if newest is None:
        return ()
    last, found = date.fromisoformat(newest), []
    for back in range(n - 1, -1, -1):
        day = (last - timedelta(days=back)).isoformat()
        count = by_day.get(day, Counter())
        n_judged = sum(count[state] for state in count if state not in {"open", "hidden"})
        found.append(Day(day, count.total(), n_judged, sum(count[state] for state in NOT_LEARNED)))
    first = next((i for i, one in enumerate(found) if one.n_flagged), 0)
    return tuple(found[first:])


def _precision(connection: sa.Connection, dataset: str | None) -> dict[tuple[str, int], Share]:
    """A version's precision is that of the records which *it* flagged, whoever scored them since."""
    columns = (scorings.c.dataset, scorings.c.model_version, queue.c.state)
    query = (
        sa
        .select(*columns, sa.func.count())
        .select_from(
            queue.join(
                scorings,
                (scorings.c.anomaly_id == queue.c.anomaly_id) & (scorings.c.dataset == queue.c.dataset),
            )
        )
        .where(queue.c.state.in_([*NOT_LEARNED, *NORMAL]), scorings.c.kind == "flagged")
        .group_by(*columns)
    )
    counted: dict[tuple[str, int], Counter[bool]] = defaultdict(Counter)
    for name, version, state, n in connection.execute(_of(query, scorings, dataset)):
        counted[name, version][state in NOT_LEARNED] += n
    return {key: wilson(counted[key][True], counted[key].total()) for key in sorted(counted)}


def _recall(connection: sa.Connection, dataset: str | None) -> Recall:
    batches = sa.select(
        sa.func.sum(queue_batches.c.n_flagged), sa.func.sum(queue_batches.c.n_unflagged)
    ).where(queue_batches.c.n_sampled > 0)
    n_flagged, n_unflagged = connection.execute(_of(batches, queue_batches, dataset)).one()
    states = sa.select(queue.c.kind, queue.c.state, sa.func.count()).where(
        queue.c.state.in_([*NOT_LEARNED, *NORMAL]), queue.c.kind != "cleared"
    )
    judged: Counter[tuple[str, bool]] = Counter()
    for kind, state, n in connection.execute(
        _of(states, queue, dataset).group_by(queue.c.kind, queue.c.state)
    ):
        judged[kind, state in NOT_LEARNED] += n
    flagged, sampled = (
        wilson(judged[kind, True], judged[kind, True] + judged[kind, False])
        for kind in ("flagged", "sampled")
    )
    return recall(flagged, int(n_flagged or 0), sampled, int(n_unflagged or 0))


def _said(connection: sa.Connection, dataset: str | None) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = {}
    for row in connection.execute(_of(sa.select(verdicts).order_by(verdicts.c.number), verdicts, dataset)):
        found.setdefault(row.anomaly_id, []).append(Verdict.of(row))
    return found


def _waits(connection: sa.Connection, dataset: str | None) -> list[float]:
    """Hours from a record's first scoring to its first verdict."""
    same = (scorings.c.dataset == verdicts.c.dataset) & (scorings.c.anomaly_id == verdicts.c.anomaly_id)
    scored_at = sa.select(sa.func.min(scorings.c.scored_at)).where(same).scalar_subquery()
    first = sa.func.min(verdicts.c.decided_at)
    query = sa.select(first, scored_at).group_by(verdicts.c.dataset, verdicts.c.anomaly_id)
    pairs = connection.execute(_of(query, verdicts, dataset))
    gaps = [(said - known).total_seconds() / 3600 for said, known in pairs if known is not None]
    return [gap for gap in gaps if gap >= 0]


def _of(query: Any, table: sa.Table, dataset: str | None) -> Any:
    return query if dataset is None else query.where(table.c.dataset == dataset)


def as_dict(found: Review) -> dict[str, Any]:
    """The same as JSON can hold it."""
    by_version = [
        {"dataset": dataset, "model_version": version, **asdict(share), "value": share.value}
        for (dataset, version), share in found.precision.items()
    ]
    rest = {name: value for name, value in vars(found).items() if name != "precision"}
    shares = {
        "recall": asdict(found.recall),
        "agreement": asdict(found.agreement) | {"value": found.agreement.value},
    }
    return {**rest, **shares, "days": [asdict(day) for day in found.days], "precision": by_version}


def as_lines(found: Review) -> Iterable[tuple[str, str]]:
    """What a terminal shows of it: a name and a text a line."""
    yield (
        "backlog",
        f"{found.backlog} open" + (f", the oldest of {found.oldest_open}" if found.oldest_open else ""),
    )
    yield "suppressed", str(found.suppressed)
    yield "states", ", ".join(f"{state} {n}" for state, n in found.states.items()) or "nothing flagged yet"
    for (dataset, version), share in found.precision.items():
        yield f"precision of {dataset} version {version}", share_text(share)
    yield "recall, estimated", recall_text(found.recall)
    hours = found.hours_to_verdict
    yield "time to verdict", "no verdict yet" if hours is None else f"{hours:.1f} h (median)"
    yield (
        "agreement",
        share_text(found.agreement) if found.agreement.n else "no record has verdicts of two reviewers",
    )
    yield "reviewers", ", ".join(f"{by} {n}" for by, n in found.reviewers.items()) or "nobody yet"


def share_text(share: Share) -> str:
    """0.83 (10 of 12; 0.55 to 0.95)"""
    if share.value is None:
        return "no verdict yet"
    return f"{share.value:.2f} ({share.hits} of {share.n}; {share.low:.2f} to {share.high:.2f})"


def recall_text(found: Recall) -> str:
    """0.91 (0.40 to 1.00; 2 of 60 sampled records are anomalies)"""
    if found.value is None:
        return "judge some of the random sample first (kind: sampled)"
    share = f"{found.sampled.hits} of {found.sampled.n} sampled records are anomalies"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f}; {share})"
