"""From a batch's numbers and those of earlier batches to what is worth telling: what, where, how much, what to do next.

Belongs here: what is usual, what is too much, and the words. Pure: nothing is read, nothing is written. Does not: the numbers
(measures.py), or whom they are told (alerts.py).

Usual is what earlier batches did: the median of those of the same weekday where there are three of them, else of all. Too much is farther
from it than both a floor, an effect that a person would want to know of, and five times as far as one batch in ten is from its own
weekday's median; what chance does in a batch of that size is taken off first. While there is less than a week of history, ten
floors, and what is beyond them is told a step lower.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from itertools import takewhile
from typing import Any, Literal, Self

import numpy as np

from pipeline.config import Dataset
from pipeline.monitoring.measures import CHANCE, TAIL, ColumnDrift, Measures

Severity = Literal["notice", "warning", "alarm"]
SEVERITIES: tuple[Severity, ...] = ("notice", "warning", "alarm")
REDELIVER = "have it delivered again; where the data is right and the contract wrong, mend the dataset's file"

MOST_EARLIER = 56  # batches: eight weeks of days
FEWEST_SIMILAR, FEWEST_EARLIER = 3, 7  # of the same weekday, of any
FAR = 3.0  # times what is allowed: beyond it is an alarm
SPREAD = 5.0  # times what one batch in ten exceeds is allowed: where days differ by themselves, they do so with long tails
FEW = 10.0  # times the floor, while too little is known
DIVERGENCE, SHIFT, CORRELATION = 0.01, 0.15, 0.15  # bits, standard deviations, of r
LEAST_SHIFT = 0.05  # standard deviations: a smaller move is no drift, however fine the histogram
MISSING, NEW, SET_ASIDE = 0.02, 0.005, 0.005  # shares
ABOVE = 0.1  # of the chance that a record scores above a normal one
CLEARLY = 0.25  # of the same, beyond the half that normal records have, while too little is known
DAYS_OF_BACKLOG = 7
QUANTILES = {
    "the median": 0.5,
    "the 90 % quantile": 0.9,
    "the 10 % quantile": 0.1,
}  # of which the first that moved is told
MOST_ALIKE, NAMED_ALIKE = 5, 8  # findings of a kind that are told one by one, columns that are named


@dataclass(frozen=True)
class Finding:
    """Something about a batch that a person should know.

    Attributes:
        key: what it is about; the same in the next batch if it is the same thing.
        what: a sentence: what, where, how much, and what is usual.
        next_step: what to do about it.
        told: people were told, or knew it from the batch before.
        value, usual, allowed: the number, the median of its like, and how far from it is not told of.
    """

    key: str
    severity: Severity
    what: str
    next_step: str
    column: str = ""
    value: float | None = None
    usual: float | None = None
    allowed: float | None = None
    told: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        return cls(**state)


@dataclass(frozen=True)
class Past:
    """An earlier batch: its day, its numbers, and what was told of it."""

    batch_id: str
    day: date
    measures: Measures
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Usual:
    """What similar batches did. floor: an effect that a person would want to know of.
    below, above: how far from the median days go by themselves. known: false while they are too few."""

    median: float
    floor: float
    below: float
    above: float
    known: bool

    def allowed(self, value: float) -> float:
        """How far from the median is not told of, on a value's side."""
        return max(self.floor, self.above if value > self.median else self.below)


@dataclass(frozen=True)
class History:
    """Earlier batches, oldest first, as those of one day see them."""

    past: Sequence[Past]
    day: date

    def usual(
        self, key: str, read: Callable[[Measures], float | None], floor: float, expected: float
    ) -> Usual:
        """What is usual of one number. expected: while too little is known. The batches just before of which the same was told
        are left out, so that drift that stays is told every day, unless they are most: then it is usual by now."""
        known = [(p, value) for p in self.past if (value := read(p.measures)) is not None]
        recent = known[-MOST_EARLIER:]
        if len(recent) < FEWEST_EARLIER:
            return Usual(expected, FEW * floor, 0.0, 0.0, known=False)
        in_a_row = sum(1 for _ in takewhile(lambda x: _is_told(x[0], key), reversed(recent)))
        if 2 * in_a_row <= len(recent):  # else it is usual by now
            recent = recent[: len(recent) - in_a_row]
        by_weekday = defaultdict[int, list[float]](list)
        for p, value in recent:
            by_weekday[p.day.weekday()].append(value)
        overall = float(np.median([value for _, value in recent]))
        middle = {
            d: float(np.median(v)) if len(v) >= FEWEST_SIMILAR else overall for d, v in by_weekday.items()
        }
        apart = [value - middle[p.day.weekday()] for p, value in recent]
        today = by_weekday[self.day.weekday()]
        median = middle.get(self.day.weekday(), overall)
        if len(today) < FEWEST_SIMILAR:  # one or two of the same weekday say little, but more than none
            apart += [value - overall for value in today] * len(recent)
        low, high = (float(x) for x in np.quantile(apart, [0.1, 0.9]))
        return Usual(median, floor, max(0.0, -SPREAD * low), max(0.0, SPREAD * high), known=True)


def _is_told(past: Past, key: str) -> bool:
    return any(finding.key == key for finding in past.findings)


def judge(now: Measures, past: Sequence[Past], day: date, *, dataset: Dataset) -> tuple[Finding, ...]:
    """What is worth telling of a batch, the most severe first, and of its columns after what is so of the batch as a whole.

    Args:
        past: earlier batches, oldest first.
        day: of the batch's records.
    """
    history = History(past, day)
    found = [*_batch(now, history, dataset)]
    for name in now.columns:
        found += _column(name, now, history, dataset)
    found += _correlations(now, history, dataset)
    return tuple(sorted(found, key=lambda f: (-SEVERITIES.index(f.severity), bool(f.column), f.key)))


def worst(findings: Sequence[Finding]) -> Severity | None:
    """The severity of the most severe one."""
    return max((f.severity for f in findings), key=SEVERITIES.index, default=None)


def gathered(findings: Sequence[Finding], dataset: Dataset) -> list[Finding]:
    """For a reader: where a source fails, every column says so; more than five of a kind are told as one, the most severe. Missing
    values are told of the contract's columns, not of what is derived from them."""
    kinds = Counter(finding.key.partition(":")[0] for finding in findings)
    found, seen = list[Finding](), set[str]()
    for finding in findings:
        kind = finding.key.partition(":")[0]
        if kinds[kind] > MOST_ALIKE:
            if kind in seen:
                continue
            seen.add(kind)
            alike = [f for f in findings if f.key.startswith(f"{kind}:")]
            finding = _of_sources(alike, dataset) if kind == "missing" else _of_all(finding, alike)
        found.append(finding)
    return found


def _of_all(first: Finding, alike: Sequence[Finding]) -> Finding:
    others = [f.column for f in alike if f is not first]
    return replace(first, what=f"{first.what}; likewise {len(others)} more columns: {_named(others)}")


def _of_sources(alike: Sequence[Finding], dataset: Dataset) -> Finding:
    """Of columns whose share of missing values changed: those of the delivery that are behind them."""
    most = max(alike, key=lambda f: abs((f.value or 0.0) - (f.usual or 0.0)))
    watched = [n for n in dataset.columns_with("numeric", "categorical", "context") if n != dataset.time]
    names, of = dataset.sources(f.column for f in alike), dataset.sources(watched)
    step = f"ask the source what changed in {_named(names)}"
    share = f"all {len(of)}" if len(names) == len(of) else f"{len(names)} of {len(of)}"
    what = (
        f"{share} columns: {most.value or 0.0:.1%} of what the model reads of them is missing "
        f"(usually {most.usual or 0.0:.1%}): {_named(names)}"
    )
    return replace(alike[0], what=what, next_step=step)


def _named(columns: Sequence[str]) -> str:
    return ", ".join(columns[:NAMED_ALIKE]) + (", …" if len(columns) > NAMED_ALIKE else "")


def news(findings: Sequence[Finding], known: Sequence[Finding]) -> list[Finding]:
    """What is not known yet, or was less severe.

    Args:
        known: what was told of the batch before, and of this one when it was scored earlier.
    """
    rank = {
        f.key: SEVERITIES.index(f.severity) for f in sorted(known, key=lambda f: SEVERITIES.index(f.severity))
    }
    return [f for f in findings if SEVERITIES.index(f.severity) > rank.get(f.key, -1)]


def _batch(now: Measures, history: History, dataset: Dataset) -> Iterator[Finding]:
    yield from _scores(now, history, dataset)
    yield from _flags(now, history)
    yield from _delivery(now, history, dataset)
    if now.n_records and not now.columns:
        yield Finding(
            "reference",
            "notice",
            "drift of columns is not measured: the champion was trained by a release that kept no histograms",
            f"train again: vaewatch train {dataset.dataset}",
        )
    window = dataset.train.window_days
    if now.champion_days is not None and now.champion_days > window:
        yield Finding(
            "champion",
            "notice",
            f"the champion is {now.champion_days:.0f} days old: it has seen nothing of the last {window:g} days",
            f"see whether training fails or challengers are refused: vaewatch status {dataset.dataset}",
            value=now.champion_days,
            usual=window,
        )
    most = DAYS_OF_BACKLOG * max(1.0, now.expected_flagged)
    if now.backlog is not None and now.backlog > most:
        yield Finding(
            "backlog",
            "notice",
            f"{now.backlog} flagged records wait for a person, more than {DAYS_OF_BACKLOG} batches' worth",
            "review the most severe first, or lower the review budget: vaewatch review",
            value=now.backlog,
            usual=most,
        )


def _scores(now: Measures, history: History, dataset: Dataset) -> Iterator[Finding]:
    step = f"see which columns moved; if nothing is wrong with the data, train again: vaewatch train {dataset.dataset}"
    if now.above is not None:
        usual = history.usual("scores", lambda m: m.above, ABOVE, 0.5)
        if (
            not usual.known
        ):  # ten floors are beyond one; and half of them is what the model's own normal records do
            usual = replace(usual, floor=CLEARLY, known=True)
        beyond = _beyond(now.above, usual, noise=4 * float(np.sqrt(1 / (12 * now.n_records))))
        if beyond > 1 and now.above > usual.median:
            yield _finding(
                "scores",
                beyond,
                f"the batch as a whole scores higher than usual: {now.above:.0%} of its records score above a normal one "
                f"(usually {usual.median:.0%})",
                step,
                now.above,
                usual,
            )
    if now.tail is not None:
        usual = history.usual("tail", lambda m: m.tail, 2 * TAIL, TAIL)
        beyond = _beyond(now.tail, usual, noise=_noise_of_share(now.tail, now.n_sampled))
        if beyond > 1 and now.tail > usual.median:
            yield _finding(
                "tail",
                beyond,
                f"{now.tail:.1%} of the records have a p-value of {TAIL:g} or less (usually {usual.median:.1%}): p-values "
                "do not hold tonight",
                step,
                now.tail,
                usual,
            )


def _flags(now: Measures, history: History) -> Iterator[Finding]:
    if not now.n_records:
        return
    expected = now.expected_flagged / now.n_records
    usual = history.usual("flags", lambda m: m.n_flagged / max(1, m.n_records), 2 * expected, expected)
    share = now.n_flagged / now.n_records
    if usual.median < expected:  # a feed cleaner than its budget is no reason to call the budget an excess
        usual = replace(usual, median=expected)
    noise = _noise_of_share(share, now.n_records)
    beyond = _beyond(share, usual, noise=noise)
    # days that differ widely excuse much, but not this: calibration, too, says what to expect
    beyond_budget = min(share / (FAR * expected), (share - noise) / expected) if expected else 0.0
    if beyond_budget > max(1.0, beyond):
        usual = Usual(expected, 2 * expected, 0.0, 0.0, known=True)
        beyond = beyond_budget
    if beyond > 1 and share > usual.median:
        yield _finding(
            "flags",
            beyond,
            f"{now.n_flagged} of {now.n_records} records are flagged, {'expected' if usual.median == expected else 'usual'} are "
            f"{usual.median * now.n_records:.0f}",
            "look at what the flagged records share before judging them one by one: vaewatch review, page Groups",
            share,
            usual,
        )


def _delivery(now: Measures, history: History, dataset: Dataset) -> Iterator[Finding]:
    if now.n_read:
        aside = now.n_set_aside / now.n_read
        usual = history.usual("set_aside", lambda m: m.n_set_aside / max(1, m.n_read), SET_ASIDE, 0.0)
        beyond = _beyond(aside, usual, noise=_noise_of_share(aside, now.n_read))
        if beyond > 1 and aside > usual.median:
            yield _finding(
                "set_aside",
                beyond,
                f"the contract set {now.n_set_aside} of {now.n_read} records aside, {aside:.1%} (usually {usual.median:.1%})",
                f"see which rule: vaewatch quarantine list {dataset.dataset}",
                aside,
                usual,
            )
    usual = history.usual("volume", lambda m: float(m.n_read), 0.0, 0.0)
    factor = now.n_read / usual.median if usual.known and usual.median else 1.0
    if not 0.5 <= factor <= 2 and _beyond(now.n_read, usual, noise=0) > 1:
        yield Finding(
            "volume",
            "warning",
            f"the delivery has {now.n_read} records, {factor:.2g} times the usual {usual.median:.0f}",
            "ask the source whether it is whole, or holds more than one day",
            value=now.n_read,
            usual=usual.median,
        )


def _column(name: str, now: Measures, history: History, dataset: Dataset) -> Iterator[Finding]:
    drift = now.columns[name]
    step = f"ask the source what changed in {name!r}; if it is there to stay, train again: vaewatch train {dataset.dataset}"
    key = f"drift:{name}"
    usual = _of(history, key, name, lambda d: d.divergence, DIVERGENCE)
    moved = _beyond(drift.divergence, usual, noise=drift.noise)
    if drift.shift is not None:
        n_seen = max(1, sum(drift.counts))
        chance = 2 * float(np.sqrt(1 / n_seen + 1 / max(1, sum(drift.usual))))
        by_shift = _of(history, key, name, lambda d: d.shift, SHIFT)
        moved = moved if drift.shift - chance > LEAST_SHIFT else 0.0
        moved = max(moved, _beyond(drift.shift, by_shift, noise=chance))
    if moved > 1:
        yield _finding(key, moved, f"{name}: {moved_words(drift)}", step, drift.divergence, usual, name)
    key = f"missing:{name}"
    usual = _of(history, key, name, lambda d: d.missing, MISSING, drift.usual_missing)
    beyond = _beyond(drift.missing, usual, noise=_noise_of_share(drift.missing, now.n_sampled))
    if beyond > 1:
        what = f"{name}: {drift.missing:.1%} of the values are missing (usually {usual.median:.1%})"
        yield _finding(key, beyond, what, step, drift.missing, usual, name)
    if drift.new is not None:
        key = f"new:{name}"
        usual = _of(history, key, name, lambda d: d.new, NEW, drift.usual_new)
        beyond = _beyond(drift.new, usual, noise=_noise_of_share(drift.new, now.n_sampled))
        if beyond > 1 and drift.new > usual.median:
            named = ", ".join(map(repr, drift.new_values))
            what = f"{name}: {drift.new:.1%} of the values are rare or new to the model (usually {usual.median:.1%}): {named}"
            yield _finding(key, beyond, what, step, drift.new, usual, name)


def _correlations(now: Measures, history: History, dataset: Dataset) -> Iterator[Finding]:
    """The pairs that changed most; a column that left its partner leaves others, too, and is told of once."""
    told: set[str] = set()
    by_change = sorted(now.columns.items(), key=lambda item: (-(item[1].correlation or 0.0), item[0]))
    for name, drift in by_change:
        if not drift.correlation or {name, drift.other} & told:
            continue
        key = f"correlation:{'|'.join(sorted((name, drift.other)))}"
        usual = _of(history, key, name, lambda d: d.correlation, CORRELATION)
        beyond = _beyond(drift.correlation, usual, noise=0.0)  # it is zero where chance could do it
        if beyond > 1:
            told |= {name, drift.other}
            yield _finding(
                key,
                beyond,
                f"{name} and {drift.other} go together differently: correlation {drift.r:.2f} (in training {drift.usual_r:.2f})",
                f"ask the source whether one of them is filled from elsewhere; else train again: vaewatch train {dataset.dataset}",
                drift.correlation,
                usual,
                name,
            )


def _of(
    history: History, key: str, name: str, read: Callable[[ColumnDrift], float | None], floor: float, expected: float = 0.0
) -> Usual:  # fmt: skip
    def value(measures: Measures) -> float | None:
        return read(measures.columns[name]) if name in measures.columns else None

    return history.usual(key, value, floor, expected)


def _beyond(value: float, usual: Usual, *, noise: float) -> float:
    """How many times as far from the median as is allowed: beyond the floor without chance's part, and beyond what days differ by,
    of which chance is a part."""
    apart = abs(value - usual.median)
    spread = usual.above if value > usual.median else usual.below
    by_floor = max(0.0, apart - noise) / usual.floor if usual.floor else np.inf
    return float(min(by_floor, apart / spread if spread else np.inf))


def _noise_of_share(share: float, n: int) -> float:
    """How far chance takes a share of n records from what it truly is: to the end of a one-sided exact interval."""
    from scipy.special import bdtri

    hits = round(share * n)
    return share - float(bdtri(hits - 1, n, 1 - CHANCE)) if hits else 0.0


def _finding(
    key: str, beyond: float, what: str, step: str, value: float, usual: Usual, column: str = ""
) -> Finding:
    severity = SEVERITIES[(2 if beyond > FAR else 1) - (not usual.known)]
    return Finding(key, severity, what, step, column, value, usual.median, usual.allowed(value))


def moved_words(drift: ColumnDrift) -> str:
    """How a column moved, in words: a number's median, or another quantile where medians read alike; of a category the value that
    gained and the one that lost."""
    if drift.shift is not None:
        moved = f"values moved by {drift.shift:.2g} standard deviations"
        for name, share in QUANTILES.items():
            now, before = (_quantile(share, x, drift.bins) for x in (drift.counts, drift.usual))
            if now != before:
                return f"{moved}, {name} from {before} to {now}"
        return moved
    n, m = max(1, sum(drift.counts)), max(1, sum(drift.usual))
    names = [*map(str, drift.bins), "other values"]
    gain = [now / n - before / m for now, before in zip(drift.counts, drift.usual, strict=True)]
    order = sorted(range(len(gain)), key=gain.__getitem__)
    told = (
        f"{names[i]} {drift.counts[i] / n:.1%} (in training {drift.usual[i] / m:.1%})"
        for i in (order[-1], order[0])
    )
    return ", ".join(told)


def _quantile(share: float, counts: Sequence[int], edges: Sequence[Any]) -> str:
    """The value that this share of the records lies below, or the edge that it lies beyond."""
    if not sum(counts) or not edges:
        return "none"
    place = int(np.searchsorted(np.cumsum(counts), sum(counts) * share))
    if place == 0:
        return f"below {plain(edges[0])}"
    if place == len(edges):
        return f"above {plain(edges[-1])}"
    low, high = edges[place - 1], edges[place]
    part = (sum(counts) * share - sum(counts[:place])) / max(1, counts[place])
    return plain(low + part * (high - low))


def plain(edge: float) -> str:
    """An edge between bins as a person reads it; the one just above a value is that value."""
    return f"{edge if abs(edge) > 1e-300 else 0.0:.4g}"
