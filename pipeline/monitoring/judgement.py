"""From a batch's numbers and those of earlier batches to findings: what, where, how much, what to do next.

Belongs here: what is too much, and the words. Pure: nothing is read, nothing is written. Does not: the
numbers (detection/measures.py), what is usual (history.py), or who gets the findings (notify/alerts.py).

Too much is farther from the usual than is allowed; the effect of chance in a batch of that size is subtracted
first. While too little is known, what is beyond is reported a step lower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date

import numpy as np

from pipeline.config.dataset import Dataset
from pipeline.detection.measures import CHANCE, TAIL, ColumnDrift, Measures
from pipeline.monitoring.advice import about_column, about_pair, afterwards, subject
from pipeline.monitoring.extremes import extremes
from pipeline.monitoring.findings import FEW_FLAGS, FEW_IN, SEVERITIES, Finding
from pipeline.monitoring.history import History, Past, Usual
from pipeline.monitoring.movement import is_elsewhere, moved_words
from pipeline.monitoring.weighing import noise_of_scores, usual_scores, weighed

FAR = 3.0  # times what is allowed: beyond it is an alarm
DIVERGENCE, SHIFT, CORRELATION = 0.01, 0.15, 0.15  # bits, standard deviations, of r
LEAST_SHIFT = 0.05  # standard deviations: a smaller move is no drift, however fine the histogram
MISSING, NEW, SET_ASIDE = 0.02, 0.005, 0.005  # shares
DAYS_OF_BACKLOG = 7
FEW, FEWEST_EXPECTED = 0.2, 20  # the least share of the flags expected, and the least number expected


def redeliver(dataset: Dataset, *, unreadable: bool) -> str:
    """Say what to do about a refused delivery; no contract mends a file that cannot be read."""
    if unreadable:
        return "have it written and delivered again; it is checked anew by itself"
    return f"have it delivered again; if the data is right and the contract wrong, mend {dataset.named_file}"


def judge(
    now: Measures, past: Sequence[Past], day: date, *, dataset: Dataset, batch_id: str
) -> tuple[Finding, ...]:
    """Return the findings on a batch, the most severe first, and the batch as a whole before its columns.

    Args:
        past: earlier batches, oldest first.
        day: of the batch's records.
    """
    history = History(past, day)
    found = [*_batch(now, history, dataset), *_delivery(now, history, dataset, batch_id)]
    found += extremes(now, past, dataset, batch_id)
    for name in now.columns:
        found += _column(name, now, history, dataset)
    found += _correlations(now, history, dataset)
    found = weighed(found, now, history)
    return tuple(sorted(found, key=lambda f: (-SEVERITIES.index(f.severity), bool(f.column), f.key)))


def _batch(now: Measures, history: History, dataset: Dataset) -> Iterator[Finding]:
    yield from _scores(now, history, dataset)
    yield from _flags(now, history)
    yield from _few_flags(now, history, dataset)
    if now.n_records and not now.columns:
        yield Finding(
            "reference",
            "notice",
            "drift of columns is not measured: the champion was trained by a release that kept no histograms",
            f"train again: vaewatch train {dataset.name}",
        )
    window = dataset.train.window_days
    if now.champion_days is not None and now.champion_days > window:
        yield Finding(
            "champion",
            "notice",
            f"the champion is {now.champion_days:.0f} days old: it has seen nothing of the last {window:g} days",
            f"see whether training fails or challengers are refused: vaewatch status {dataset.name}",
            value=now.champion_days,
            usual=window,
        )
    most = DAYS_OF_BACKLOG * max(1.0, now.expected_flagged)
    if now.backlog is not None and now.backlog > most:
        yield Finding(
            "backlog",
            "notice",
            f"{now.backlog:,} flagged records had waited for a person for more than a day when this batch was scored, {DAYS_OF_BACKLOG} batches' worth or more",
            f"review the most severe first (vaewatch review), or have fewer flagged (flag in {dataset.named_file})",
            value=now.backlog,
            usual=most,
        )


def _scores(now: Measures, history: History, dataset: Dataset) -> Iterator[Finding]:
    step = f"see which columns moved; {afterwards(dataset, learned=now.learned)}"
    if now.above is not None:
        usual, noise = usual_scores(history), noise_of_scores(now.n_records)
        beyond = usual.above_by(now.above, noise=noise)
        if beyond > 1:
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
        beyond = usual.beyond(now.tail, noise=_noise_of_share(now.tail, now.n_sampled))
        if beyond > 1 and now.tail > usual.median:
            yield _finding(
                "tail",
                beyond,
                f"{now.tail:.1%} of the records have a p-value of {TAIL:g} or less (usually {usual.median:.1%}): more records "
                "look rare than should",
                step,
                now.tail,
                usual,
            )


def times_expected(now: Measures) -> float | None:
    """Return how many times as many records are flagged as expected; None where chance may do that.

    From FAR times on it is a finding, however widely days differ; see _flags.
    """
    if not now.n_records or not now.expected_flagged:
        return None
    share = now.n_flagged / now.n_records
    beyond_chance = share - _noise_of_share(share, now.n_records) > now.expected_flagged / now.n_records
    return now.n_flagged / now.expected_flagged if beyond_chance else None


def _flags(now: Measures, history: History) -> Iterator[Finding]:
    if not now.n_records:
        return
    expected = now.expected_flagged / now.n_records
    usual = history.usual("flags", lambda m: m.n_flagged / max(1, m.n_records), 2 * expected, expected)
    share = now.n_flagged / now.n_records
    if usual.median < expected:  # a feed cleaner than its budget does not make the budget an excess
        usual = replace(usual, median=expected)
    noise = _noise_of_share(share, now.n_records)
    beyond = usual.beyond(share, noise=noise)
    # widely differing days excuse much, but not this: calibration, too, says what to expect
    beyond_budget = min(share / (FAR * expected), (share - noise) / expected) if expected else 0.0
    if beyond_budget > max(1.0, beyond):
        usual = Usual(expected, 2 * expected, 0.0, 0.0, known=True)
        beyond = beyond_budget
    if beyond > 1 and share > usual.median:
        yield _finding(
            "flags",
            beyond,
            f"{now.n_flagged:,} of {now.n_records:,} records are flagged where {usual.median * now.n_records:,.0f} are "
            f"{'expected' if usual.median == expected else 'usual'}",
            "look at what the flagged records share before judging them one by one: vaewatch review, page Groups",
            share,
            usual,
        )


def _few_flags(now: Measures, history: History, dataset: Dataset) -> Iterator[Finding]:
    """Report too few flags: a threshold too high to find anything looks like quiet nights.

    What is promised is what normal records give. A batch that has its flags is not blamed for those before
    it, and one that is not the newest is no reason to act: its threshold may be gone by now.
    """
    last = [*(p.measures for p in history.past[1 - FEW_IN :]), now]
    flagged, expected = sum(m.n_flagged for m in last), sum(_expected_of_values(m) for m in last)
    if len(last) < FEW_IN or expected < FEWEST_EXPECTED or flagged >= FEW * expected:
        return
    if now.n_flagged >= FEW * _expected_of_values(now):
        return
    below = f"are flagged; normal records would give {expected:,.0f}"
    if now.is_newest:
        severity = SEVERITIES[1]
        what = f"only {flagged:,} records of the last {FEW_IN} batches {below}: the threshold is too high"
        step = (
            "see on the training's page which days calibrated it; train again when they are no longer the newest "
            f"(vaewatch train {dataset.name}), or raise the budget in {dataset.named_file}"
        )
    else:
        severity = SEVERITIES[0]
        what = f"only {flagged:,} records of the {FEW_IN} batches up to this one {below}: the threshold was too high for them"
        step = f"see what the newest batch's page says of the threshold: vaewatch report {dataset.name}"
    yield Finding(FEW_FLAGS, severity, what, step, value=flagged, usual=expected)


def _expected_of_values(measures: Measures) -> float:
    """Return the flags that normal records would give; those without a value in any column give none."""
    silent = min((drift.missing for drift in measures.columns.values()), default=0.0)
    return measures.expected_flagged * (1 - silent)


def _delivery(now: Measures, history: History, dataset: Dataset, batch_id: str) -> Iterator[Finding]:
    if now.n_read:
        aside = now.n_set_aside / now.n_read
        usual = history.usual("set_aside", lambda m: m.n_set_aside / max(1, m.n_read), SET_ASIDE, 0.0)
        beyond = usual.beyond(aside, noise=_noise_of_share(aside, now.n_read))
        if beyond > 1 and aside > usual.median:
            yield _finding(
                "set_aside",
                beyond,
                f"the contract set {now.n_set_aside:,} of {now.n_read:,} records aside, {aside:.1%} (usually {usual.median:.1%})",
                f"see which and why: vaewatch quarantine show {dataset.name} {batch_id}",
                aside,
                usual,
            )
    usual = history.usual("volume", lambda m: float(m.n_read), 0.0, 0.0)
    factor = now.n_read / usual.median if usual.known and usual.median else 1.0
    if not 0.5 <= factor <= 2 and usual.beyond(now.n_read, noise=0) > 1:
        yield Finding(
            "volume",
            "warning",
            f"the delivery has {now.n_read:,} records, {factor:.2g} times the usual {usual.median:,.0f}",
            "ask the source whether it is whole, or holds more than one day",
            value=now.n_read,
            usual=usual.median,
        )


def _column(name: str, now: Measures, history: History, dataset: Dataset) -> Iterator[Finding]:
    drift = now.columns[name]
    step = about_column(dataset, name, learned=now.learned)
    key = f"drift:{name}"
    usual = _of(history, key, name, lambda d: d.divergence, DIVERGENCE)
    moved = usual.above_by(drift.divergence, noise=drift.noise)
    whole = name in dataset.columns and dataset.columns[name].type == "int"
    if drift.shift is not None:
        n_seen = max(1, sum(drift.counts))
        chance = 2 * float(np.sqrt(1 / n_seen + 1 / max(1, sum(drift.usual))))
        by_shift = _of(history, key, name, lambda d: d.shift, SHIFT)
        moved = moved if drift.shift - chance > LEAST_SHIFT else 0.0
        moved = max(moved, by_shift.above_by(drift.shift, noise=chance))
    if moved > 1:
        what = f"{subject(dataset, name)}: {moved_words(drift, whole=whole)}"
        finding = _finding(key, moved, what, step, drift.divergence, usual, name)
        yield replace(finding, everywhere=is_elsewhere(drift))
    key = f"missing:{name}"
    usual = _of(history, key, name, lambda d: d.missing, MISSING, drift.usual_missing)
    beyond = usual.beyond(drift.missing, noise=_noise_of_share(drift.missing, now.n_sampled))
    if beyond > 1:
        what = f"{name}: {drift.missing:.1%} of the values are missing (usually {usual.median:.1%})"
        yield _finding(key, beyond, what, step, drift.missing, usual, name)
    if drift.new is not None:
        key = f"new:{name}"
        usual = _of(history, key, name, lambda d: d.new, NEW, drift.usual_new)
        beyond = usual.beyond(drift.new, noise=_noise_of_share(drift.new, now.n_sampled))
        if beyond > 1 and drift.new > usual.median:
            named = ", ".join(map(repr, drift.new_values))
            what = f"{name}: {drift.new:.1%} of the values are rare or new to the model (usually {usual.median:.1%}): {named}"
            yield _finding(key, beyond, what, step, drift.new, usual, name)


def _correlations(now: Measures, history: History, dataset: Dataset) -> Iterator[Finding]:
    """Report the pairs that changed most.

    A column that left its partner leaves others, too, and is reported once.
    """
    told: set[str] = set()
    by_change = sorted(now.columns.items(), key=lambda item: (-(item[1].correlation or 0.0), item[0]))
    for name, drift in by_change:
        if not drift.correlation or {name, drift.other} & told:
            continue
        key = f"correlation:{'|'.join(sorted((name, drift.other)))}"
        usual = _of(history, key, name, lambda d: d.correlation, CORRELATION)
        beyond = usual.above_by(drift.correlation, noise=0.0)  # it is zero where chance could do it
        if beyond > 1:
            told |= {name, drift.other}
            yield _finding(
                key,
                beyond,
                f"{subject(dataset, name, drift.other)} go together differently: correlation {drift.r:.2f} (in training {drift.usual_r:.2f})",
                about_pair(dataset, name, drift.other, learned=now.learned),
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


def _noise_of_share(share: float, n: int) -> float:
    """Return how far chance takes a share of n records from the true one.

    That is to the end of a one-sided exact interval.
    """
    from scipy.special import bdtri

    hits = round(share * n)
    return share - float(bdtri(hits - 1, n, 1 - CHANCE)) if hits else 0.0


def _finding(
    key: str, beyond: float, what: str, step: str, value: float, usual: Usual, column: str = ""
) -> Finding:
    severity = SEVERITIES[(2 if beyond > FAR else 1) - (not usual.known)]
    return Finding(key, severity, what, step, column, value, usual.median, usual.allowed(value))
