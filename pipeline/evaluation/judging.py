"""From what was measured to whether a challenger may serve: each gate with its value, bound and reason.

Belongs here: bounds, and chance. Does not: measuring (measurement.py), what is likely behind a failure
(cause.py), the gates that need verdicts (by_verdicts.py), or promoting (steps/).

Chance is allowed for at every bound: a gate fails only where the value is beyond it by Z standard errors, or
where the whole interval is. A gate that cannot be judged says why and refuses nobody, or a small team's first
weeks would never see a second model. `collapse` can always be judged: a first model that has learned nothing
does not serve. One whose threshold lies above nearly all anomalies does, and every batch's page says so
(`recall_floor`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from pipeline.config.gates import Band, Gates
from pipeline.evaluation.by_verdicts import confirmed, kept, precision
from pipeline.evaluation.case import FEWEST_HELD, Case, either, percent, said
from pipeline.evaluation.cause import DISTINCT, likely_cause, named, ways_out
from pipeline.evaluation.decision import Decision, Finding
from pipeline.evaluation.evidence import Difference, Evidence, Ratio, Share, Z

FEWEST_RECENT, FEWEST_FLAGS = 100, 20
WIDER = 3.0  # margin of a single kind of anomaly, in margins of all

EXPLAINED = ("recall_floor", "churn", "seed_variance", "cost", "kept")  # gates whose reason says what to do


def decide(evidence: Evidence, gates: Gates, *, shadow_days: float = 0) -> Decision:
    """Judge every gate that is not off.

    A required gate that fails refuses; else the decision waits until the shadow is as long as asked.
    """
    findings = tuple(
        replace(judge(Case(evidence, gates)), gate=name, level=level)
        for name, judge in GATES.items()
        if (level := getattr(gates, name).level) != "off"
    )
    refused = [finding.gate for finding in findings if finding.refuses]
    against = evidence.champion.version if evidence.champion else None
    if not refused and evidence.champion and evidence.serves and evidence.shadow_days < shadow_days:
        so_far = f"{evidence.shadow_days:.3g} of {shadow_days:g} days in the shadow of version {against}"
        return Decision("wait", against, findings, so_far)
    if not refused:
        return Decision("promote", against, findings, incomparable=evidence.incomparable)
    explained = set(refused) <= set(EXPLAINED)
    cause = "" if explained else likely_cause(evidence, gates)
    ways = ways_out(evidence, gates, refused)
    return Decision("refuse", against, findings, cause, ways, evidence.incomparable)


def _collapse(case: Case) -> Finding:
    least, one = case.gates.collapse.least, case.one
    why = f"a gross error scores above an ordinary record only {one.gross:.0%} of the time"
    if one.distinct < DISTINCT:
        why = "nearly every record has the same score, or none"
    return either(
        one.distinct < DISTINCT or one.gross < least,
        why,
        value=f"{one.gross:.0%}",
        beside=f"{case.other.gross:.0%}" if case.other else "",
        bound=f"{least:.0%} or more passes",
    )


def _learned(case: Case) -> Finding:
    """Judge whether a training read what is there: keys alone decide what of a batch is held out."""
    found, most = case.evidence.learned, case.gates.learned.most
    if case.uncompared or found is None:
        return said(
            "not judged", case.uncompared or "the records that its training read cannot be read again"
        )
    if min(found.n, found.n_others) < FEWEST_HELD:
        why = f"its training read {found.n:,} records, and {found.n_others:,} of the same batches are held out: {FEWEST_HELD} of each are needed"
        return said("not judged", why)
    why = f"at least {found.least:.1%} of the records that its training read are odder to {case.rival} than those held out of the same batches"
    return either(
        found.least > most,
        why,
        value=percent(found.value),
        bound=f"up to {most:.0%} passes",
        outside=found.value > most,
    )


def _recall(case: Case) -> Finding:
    one, other, margin = case.one, case.other, case.gates.recall.margin
    found = percent(one.recall)
    if case.uncompared or other is None or one.recall is None:
        return said("not judged", case.uncompared or case.few, value=found)
    theirs = other.recall or 0.0
    if theirs < margin:
        why = f"{case.rival} itself finds only {theirs:.0%} of the injected anomalies"
        return said("not judged", why, value=found, beside=percent(other.recall))
    by_kind = case.evidence.recall_differences
    kind = min(by_kind, key=lambda k: by_kind[k].value)
    single = f"{one.recall_of[kind]:.0%} of kind {kind} where {case.rival} finds {other.recall_of[kind]:.0%}"
    difference = case.evidence.differences["recall"]
    behind = _behind(difference, margin)
    whole = f"{one.recall:.0%} of the injected anomalies where {case.rival} finds {theirs:.0%}, "
    return either(
        behind or _behind(by_kind[kind], WIDER * margin),
        f"finds {whole if behind else ''}{single}",
        value=found,
        beside=percent(other.recall),
        bound=_fewer(margin),
        outside=difference.value < -margin,
        note=_within(one.recall, theirs, margin),
    )


def _recall_floor(case: Case) -> Finding:
    """Judge whether recall at the threshold beats chance: a record must be flagged because it is altered."""
    least, above = case.gates.recall_floor.least, case.evidence.differences.get("unaltered")
    if case.one.recall is None or above is None:
        return said("not judged", case.few)
    unaltered = percent(max(0.0, case.one.recall - above.value))
    why = (
        f"at its threshold it finds {case.one.recall:.1%} of the injected anomalies, and flags {unaltered} of the same records "
        "unaltered; see what sets the threshold (the training's page), or let more be flagged (flag in the dataset's file)"
    )
    return either(
        above.value + Z * above.error < least,
        why,
        value=percent(case.one.recall),
        beside=f"unaltered: {unaltered}",
        bound=f"{100 * least:g} percentage points more than unaltered pass",
        outside=above.value < least,
    )


def _baselines(case: Case) -> Finding:
    margin, known, found = case.gates.baselines.margin, case.evidence.baselines, case.one.ranked_recall
    if found is None or not known:
        return said("not judged", case.few)
    best = max(known, key=lambda name: known[name])
    difference = case.evidence.differences[best]
    return either(
        _behind(difference, margin),
        f"finds {found:.0%} of the injected anomalies where {best} finds {known[best]:.0%}",
        value=percent(found),
        beside=f"{best}: {percent(known[best])}",
        bound=_fewer(margin),
        outside=difference.value < -margin,
        note=_within(found, known[best], margin),
    )


def _negative_elbo(case: Case) -> Finding:
    difference, margin = case.evidence.differences.get("negative_elbo"), case.gates.negative_elbo.margin
    value = _nats(case.one.negative_elbo)
    if case.uncompared or case.other is None:
        return said("not judged", case.uncompared, value=value)
    theirs, bound = (
        _nats(case.other.negative_elbo),
        f"up to {margin:g} nat{'s more pass' if margin != 1 else ' more passes'}",
    )
    if case.evidence.unshared:
        why = f"only one of the two models {named(case.evidence.unshared)}, and a density of other columns is another quantity"
        return said("not judged", why, value=value, beside=theirs, bound=bound)
    if difference is None or difference.n < FEWEST_HELD:
        why = "at least one was not trained to an evidence bound, or their categories differ"
        return said("not judged", why, value=value, beside=theirs, bound=bound)
    return either(
        difference.value - Z * difference.error > margin,
        f"describes the holdout worse by {difference.value:.2f} nats a record",
        value=value,
        beside=theirs,
        bound=bound,
        outside=difference.value > margin,
    )


def _flag_rate(case: Case) -> Finding:
    if case.one.promised_rate is None:
        return said("not judged", "a false-discovery rate promises no number of flags")
    words = "flags {:.3g} times as many records of the newest days as promised"
    theirs = case.other.flag_rate if case.other else None
    return _in_band(case.gates.flag_rate, case.one.flag_rate, theirs, case.one.flagged.n, words, case.rival)


def _p_values(case: Case) -> Finding:
    words = "gives p-values up to 5 % to {:.3g} times as many records as it should"
    theirs = case.other.tail_rate if case.other else None
    return _in_band(case.gates.p_values, case.one.tail_rate, theirs, case.one.in_tail.n, words, case.rival)


def _in_band(band: Band, mine: Ratio | None, theirs: Ratio | None, n: int, words: str, rival: str) -> Finding:
    """Fail where the whole interval is outside, and the other version is not as far out."""
    if mine is None or n < FEWEST_RECENT:
        return said("not judged", f"only {n} records of the newest days are held out")
    row = {
        "value": f"{mine.value:.2f} times",
        "beside": f"{theirs.value:.2f} times" if theirs else "",
        "bound": f"{band.lowest:g} to {band.highest:g} times pass",
    }
    outside = mine.high < band.lowest or mine.low > band.highest
    if outside and theirs and (theirs.value <= mine.value if mine.value < 1 else theirs.value >= mine.value):
        return said("passed", f"outside the band, but {rival} is further out", **row)
    by_value = not band.lowest <= mine.value <= band.highest
    return either(outside, words.format(mine.value), outside=by_value, **row)


def _churn(case: Case) -> Finding:
    churn, most = case.evidence.churn, case.gates.churn.most
    if churn is None or churn.either < FEWEST_FLAGS:
        n_flags = churn.either if churn else 0
        return said("not judged", case.uncompared or f"only {n_flags} flags in the newest days")
    share = Share(churn.differ, churn.either)
    why = f"{churn.differ} of {churn.either} flags of the newest days come from only one of the two versions: reviewers will see other records"
    return either(
        share.interval(Z)[0] > most,
        f"{why}; look at the examples (vaewatch compare)",
        value=percent(share.value),
        bound=f"up to {most:.0%} passes",
        outside=churn.differ > most * churn.either,
    )


def _seed_variance(case: Case) -> Finding:
    difference, most = case.evidence.differences.get("another seed"), case.gates.seed_variance.most
    if difference is None:
        return said("not judged", "no other seed was trained")
    why = f"another seed moves recall by {abs(difference.value):.1%}: training has not settled"
    return either(
        abs(difference.value) - Z * difference.error > most,
        f"{why}; raise train.recipe.steps or n_members",
        value=f"{100 * abs(difference.value):.1f} points",
        bound=f"up to {100 * most:g} points pass",
        outside=abs(difference.value) > most,
    )


def _cost(case: Case) -> Finding:
    most, value = case.gates.cost.most, f"{case.one.cpu_us:.1f} µs"
    if case.other is None or not case.other.cpu_us:
        return said("not judged", case.uncompared, value=value)
    times = case.one.cpu_us / case.other.cpu_us
    return either(
        times > most,
        f"scoring a record costs {times:.1f} times as much; look at train.recipe",
        value=value,
        beside=f"{case.other.cpu_us:.1f} µs",
        bound=f"up to {most:g} times as much passes",
    )


GATES: Mapping[str, Callable[[Case], Finding]] = MappingProxyType({
    "collapse": _collapse,
    "learned": _learned,
    "recall": _recall,
    "recall_floor": _recall_floor,
    "baselines": _baselines,
    "negative_elbo": _negative_elbo,
    "flag_rate": _flag_rate,
    "p_values": _p_values,
    "churn": _churn,
    "seed_variance": _seed_variance,
    "cost": _cost,
    "precision": precision,
    "confirmed": confirmed,
    "kept": kept,
})  # in the order in which they are shown


def _behind(difference: Difference, margin: float) -> bool:
    return difference.value + Z * difference.error < -margin


def _within(mine: float, theirs: float, margin: float) -> str:
    """Say by how much fewer a version finds, as the values beside each other show it."""
    points = f"{round(100 * theirs, 1) - round(100 * mine, 1):.1f}"
    return f"behind by {points} points, within the margin of {100 * margin:g}" if float(points) > 0 else ""


def _fewer(margin: float) -> str:
    return f"up to {100 * margin:g} percentage points fewer pass"


def _nats(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} nats"
