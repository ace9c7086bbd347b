"""From what was measured to whether a challenger may serve, each gate with its value, bound and reason in
words.

Belongs here: bounds, chance, likely causes and next steps. Does not: measuring (measurement.py), or promoting
(steps/).

Chance is allowed for beside every bound: a gate fails only where the value is beyond it by Z standard errors,
or where the whole interval is. A gate that cannot be judged refuses nobody, or a small team's first weeks
would never see a second model; it says why. `collapse` can always be judged: a first model that has learned
nothing does not serve. One whose threshold lies above nearly all anomalies does, and every batch's page says
so (`recall_floor`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.decision import Decision, Finding
from pipeline.evaluation.evidence import Difference, Evidence, Measured, Share
from pipeline.gates import Band, Gates

Z = 2.33  # one-sided 1 %
FEWEST_HELD, FEWEST_RECENT, FEWEST_JUDGED, FEWEST_FLAGS = 100, 100, 20, 20
DISTINCT = 0.5  # share of different scores; a model of little but categories has ties
FEW_LEARNED = 0.2  # of what the champion learned from
SILENT = 0.05  # nats a record: latents that say nothing
QUIETER = 0.6  # of what the champion's say
MOST_CHANGED = 3  # settings that are named
WIDER = 3.0  # margin of a single kind of anomaly, over that of all

EXPLAINED = ("recall_floor", "churn", "seed_variance", "cost", "kept")  # gates whose reason says what to do

NONE_LOST = "none may be, but those in promote.gates.kept.allowed"


def decide(evidence: Evidence, gates: Gates, *, shadow_days: float = 0) -> Decision:
    """Judge every gate that is not off. Refused where a required one fails; else it waits until its shadow is
    as long as asked.
    """
    judge = _Judge(evidence, gates)
    findings = tuple(finding for finding in judge.findings() if finding.level != "off")
    refused = [finding.gate for finding in findings if finding.refuses]
    against = evidence.champion.version if evidence.champion else None
    if not refused and evidence.champion and evidence.shadow_days < shadow_days:
        so_far = f"{evidence.shadow_days:.3g} of {shadow_days:g} days in the shadow of version {against}"
        return Decision("wait", against, findings, so_far)
    if not refused:
        return Decision("promote", against, findings)
    return Decision("refuse", against, findings, "" if set(refused) <= set(EXPLAINED) else judge.cause())


@dataclass(frozen=True)
class _Judge:
    evidence: Evidence
    gates: Gates

    def findings(self) -> Iterator[Finding]:
        for name in type(self.gates).model_fields:
            level = getattr(self.gates, name).level
            if level != "off":
                yield Finding(name, level, *getattr(self, f"_{name}")())

    @property
    def one(self) -> Measured:
        return self.evidence.challenger

    @property
    def other(self) -> Measured | None:
        return self.evidence.champion

    def _collapse(self) -> tuple[Any, ...]:
        least, one = self.gates.collapse.least, self.one
        value, bound = f"{one.gross:.0%}", f"{least:.0%} or more passes"
        theirs = f"{self.other.gross:.0%}" if self.other else ""
        if one.distinct < DISTINCT:
            return "failed", value, theirs, bound, "nearly every record has the same score, or none"
        if one.gross < least:
            why = f"a gross error scores above an ordinary record {one.gross:.0%} of the time only"
            return "failed", value, theirs, bound, why
        return "passed", value, theirs, bound

    def _recall(self) -> tuple[Any, ...]:
        margin = self.gates.recall.margin
        if (missing := self._uncompared()) or self.one.recall is None:
            return "not judged", _share(self.one.recall), "", "", missing or self._few()
        assert self.other  # noqa: S101
        if (self.other.recall or 0) < margin:
            row = _share(self.one.recall), _share(self.other.recall), ""
            return (
                "not judged",
                *row,
                f"the champion itself finds {self.other.recall:.0%} of the injected anomalies",
            )
        differences = self.evidence.differences
        by_kind = {
            k.removeprefix("recall of "): d for k, d in differences.items() if k.startswith("recall of ")
        }
        kind = min(by_kind, key=lambda k: by_kind[k].value)
        mine, theirs = self.one.recall_of[kind], self.other.recall_of[kind]
        row = _share(self.one.recall), _share(self.other.recall), _points(margin)
        single = f"{mine:.0%} of kind {kind} where the champion finds {theirs:.0%}"
        if _behind(differences["recall"], margin):
            whole = f"{self.one.recall:.0%} of the injected anomalies where the champion finds {self.other.recall:.0%}"
            return "failed", *row, f"finds {whole}, {single}"
        if _behind(by_kind[kind], WIDER * margin):
            return "failed", *row, f"finds {single}"
        return "passed", *row

    def _recall_floor(self) -> tuple[Any, ...]:
        """Better than chance at the threshold: a record is flagged once it is altered, and not before."""
        least, above = self.gates.recall_floor.least, self.evidence.differences.get("unaltered")
        if self.one.recall is None or above is None:
            return "not judged", "", "", "", self._few()
        unaltered = _share(max(0.0, self.one.recall - above.value))
        bound = f"{100 * least:g} percentage points more than unaltered pass"
        row = _share(self.one.recall), f"unaltered: {unaltered}", bound
        if above.value + Z * above.error >= least:
            return "passed", *row
        why = (
            f"at its threshold it finds {self.one.recall:.1%} of the injected anomalies, and flags {unaltered} of the same records "
            "unaltered; see what sets the threshold (the training's page), or let more be flagged (flag in the dataset's file)"
        )
        return "failed", *row, why

    def _baselines(self) -> tuple[Any, ...]:
        margin, known = self.gates.baselines.margin, self.evidence.baselines
        if self.one.ranked_recall is None or not known:
            return "not judged", "", "", "", self._few()
        best = max(known, key=lambda name: known[name])
        row = _share(self.one.ranked_recall), f"{best}: {_share(known[best])}", _points(margin)
        if not _behind(self.evidence.differences[best], margin):
            return "passed", *row
        why = f"finds {self.one.ranked_recall:.0%} of the injected anomalies where {best} finds {known[best]:.0%}"
        return "failed", *row, why

    def _negative_elbo(self) -> tuple[Any, ...]:
        difference, margin = self.evidence.differences.get("negative_elbo"), self.gates.negative_elbo.margin
        if missing := self._uncompared():
            return "not judged", _nats(self.one.negative_elbo), "", "", missing
        assert self.other  # noqa: S101
        row = (
            _nats(self.one.negative_elbo),
            _nats(self.other.negative_elbo),
            f"up to {margin:g} nats more pass",
        )
        if difference is None or difference.n < FEWEST_HELD:
            return (
                "not judged",
                *row,
                "not both were trained to an evidence bound, or their categories differ",
            )
        if difference.value - Z * difference.error <= margin:
            return "passed", *row
        return (
            "failed",
            *row,
            f"describes the holdout worse by {difference.value:.2f} nats a record",
        )

    def _flag_rate(self) -> tuple[Any, ...]:
        if self.one.promised_rate is None:
            return "not judged", "", "", "", "a false-discovery rate promises no number of flags"
        return self._in_band(
            self.gates.flag_rate,
            "flagged",
            "flags {:.3g} times as many records of the newest days as promised",
        )

    def _p_values(self) -> tuple[Any, ...]:
        return self._in_band(
            self.gates.p_values,
            "in_tail",
            "{:.3g} times as many records as there should be have p-values up to 5 %",
        )

    def _in_band(self, band: Band, what: str, words: str) -> tuple[Any, ...]:
        """Fails where the whole interval is outside, and the champion is not as far out."""
        ratio = _ratio(self.one, what)
        if ratio is None or getattr(self.one, what).n < FEWEST_RECENT:
            return "not judged", "", "", "", f"{getattr(self.one, what).n} holdout records in the newest days"
        value, low, high = ratio
        theirs = _ratio(self.other, what) if self.other else None
        row = (
            f"{value:.2f} times",
            f"{theirs[0]:.2f} times" if theirs else "",
            f"{band.lowest:g} to {band.highest:g} times pass",
        )
        inside = high >= band.lowest and low <= band.highest
        if inside:
            return "passed", *row
        if theirs and (theirs[0] <= value if value < 1 else theirs[0] >= value):
            return "passed", *row, "outside the band, but the champion is further"
        return "failed", *row, f"{words.format(value)}"

    def _churn(self) -> tuple[Any, ...]:
        churn, most = self.evidence.churn, self.gates.churn.most
        if churn is None or churn.either < FEWEST_FLAGS:
            why = self._uncompared() or f"{churn.either if churn else 0} flags in the newest days"
            return "not judged", "", "", "", why
        share = Share(churn.differ, churn.either)
        row = _share(share.value), "", f"up to {most:.0%} passes"
        if share.interval(Z)[0] <= most:
            return "passed", *row
        why = f"{churn.differ} of {churn.either} flags of the newest days are one version's alone: reviewers will see other records"
        return "failed", *row, f"{why}; look at the examples (vaewatch compare)"

    def _seed_variance(self) -> tuple[Any, ...]:
        difference, most = self.evidence.differences.get("another seed"), self.gates.seed_variance.most
        if difference is None:
            return "not judged", "", "", "", "no other seed was trained"
        row = f"{100 * abs(difference.value):.1f} points", "", f"up to {100 * most:g} points pass"
        if abs(difference.value) - Z * difference.error <= most:
            return "passed", *row
        why = f"another seed moves recall by {abs(difference.value):.1%}: training has not settled"
        return "failed", *row, f"{why}; raise train.recipe.steps or n_members"

    def _cost(self) -> tuple[Any, ...]:
        most = self.gates.cost.most
        if self.other is None or not self.other.cpu_us:
            return "not judged", f"{self.one.cpu_us:.1f} µs", "", "", self._uncompared()
        ratio = self.one.cpu_us / self.other.cpu_us
        row = (
            f"{self.one.cpu_us:.1f} µs",
            f"{self.other.cpu_us:.1f} µs",
            f"up to {most:g} times as much passes",
        )
        if ratio <= most:
            return "passed", *row
        return "failed", *row, f"scoring a record costs {ratio:.1f} times as much; look at train.recipe"

    def _precision(self) -> tuple[Any, ...]:
        return self._confirmed_share("precision", "of its judged flags are anomalies")

    def _confirmed(self) -> tuple[Any, ...]:
        return self._confirmed_share("confirmed", "of the confirmed anomalies are flagged")

    def _confirmed_share(self, what: str, words: str) -> tuple[Any, ...]:
        """Fails where the two intervals lie apart."""
        mine: Share = getattr(self.one, what)
        if self.other is None:
            return "not judged", "", "", "", self._uncompared()
        theirs: Share = getattr(self.other, what)
        row = _counted(mine), _counted(theirs), "as many pass"
        if min(mine.n, theirs.n) < FEWEST_JUDGED:
            return (
                "not judged",
                *row,
                f"{min(mine.n, theirs.n)} judged records of the holdout, {FEWEST_JUDGED} tell",
            )
        if mine.interval(Z)[1] >= theirs.interval(Z)[0]:
            return "passed", *row
        return (
            "failed",
            *row,
            f"{mine.value:.0%} {words}, {theirs.value:.0%} under the champion",
        )

    def _kept(self) -> tuple[Any, ...]:
        if missing := self._uncompared():
            return "not judged", "", "", "", missing
        lost = [one for one in self.evidence.lost if one not in self.gates.kept.allowed]
        if not lost:
            return "passed", "none", "", NONE_LOST
        why = f"confirmed anomalies that the champion flags are ordinary to it: {', '.join(lost[:5])}{'…' * (len(lost) > 5)}"
        return "failed", str(len(lost)), "", NONE_LOST, f"{why}; allow them by promote.gates.kept.allowed"

    def _uncompared(self) -> str:
        """Why there is no comparison with a champion."""
        if self.other is None:
            return self.evidence.incomparable or "no champion serves yet"
        return self._few() if self.evidence.n_holdout < FEWEST_HELD else ""

    def _few(self) -> str:
        if not self.evidence.holdout:
            return "no records are held out from both versions (promote.holdout)"
        return f"{self.evidence.n_holdout} holdout records, {FEWEST_HELD} tell"

    def cause(self) -> str:
        """What is likely behind a failure, and what to do."""
        changed = [f"{name} {now} (was {was})" for name, (was, now) in self.evidence.changed.items()]
        if not changed:
            return self._measured_cause()
        more = f" and {len(changed) - MOST_CHANGED} more" if len(changed) > MOST_CHANGED else ""
        return f"other settings than the champion's: {', '.join(changed[:MOST_CHANGED])}{more}; else, {self._measured_cause()}"

    def _measured_cause(self) -> str:
        one, other = self.one, self.other
        if one.distinct < DISTINCT:
            return "training broke down: look at its curves in MLflow and at the columns' values"
        if other and one.n_learned < FEW_LEARNED * other.n_learned:
            return f"it learned from {one.n_learned} records, the champion from {other.n_learned}: look at what the window holds (vaewatch status)"
        if one.kl_divergence < SILENT and not (other and other.kl_divergence < SILENT):
            return f"its latents say {one.kl_divergence:.2g} nats of a record: they collapsed onto the prior; lower train.recipe.kl_weight"
        mine, theirs = (_ratio(x, "flagged") if x else None for x in (one, other))
        if theirs and theirs[1] > self.gates.flag_rate.highest:
            return (
                f"the champion flags {theirs[0]:.3g} times as many of these records as promised: many odd ones were learned as normal; "
                "look at the newest batches, judge them, or keep them out"
            )
        lost = {
            k.removeprefix("recall of "): d.value
            for k, d in self.evidence.differences.items()
            if k.startswith("recall of ")
        }
        if mine and mine[2] < 1 and lost.get("shifted", 0) < -0.1:
            return "its threshold lies far above ordinary records, as where many odd ones were learned from: look at the window's batches"
        if lost and min(lost, key=lambda k: lost[k]) in {"swapped", "several"}:
            return "what goes together in a record was not learned: columns joined or sorted apart, too few steps (train.recipe), or too few records"
        if other and one.kl_divergence < QUIETER * other.kl_divergence:
            return (
                f"its latents say {one.kl_divergence:.2g} nats of a record, the champion's {other.kl_divergence:.2g}: what goes together in a "
                "record was learned less, as where columns were joined or sorted apart, or steps were few (train.recipe)"
            )
        return "trained too briefly, or on records unlike today's, odd ones among them: look at its curves in MLflow and at the window's batches"


def _behind(difference: Difference, margin: float) -> bool:
    return difference.value + Z * difference.error < -margin


def _ratio(one: Measured, what: str) -> tuple[float, float, float] | None:
    """Observed over promised, and its interval."""
    promised = one.promised_rate if what == "flagged" else 0.05
    share: Share = getattr(one, what)
    if not promised or share.value is None:
        return None
    low, high = share.interval(Z)
    return share.value / promised, low / promised, high / promised


def _points(margin: float) -> str:
    return f"up to {100 * margin:g} percentage points fewer pass"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _nats(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} nats"


def _counted(share: Share) -> str:
    return f"{share.hits} of {share.n}"
