"""What was measured of two versions: numbers only, fit for JSON.

Belongs here: the records and their units. Does not: how they are measured (measurement.py), or what they mean
(judging.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

CHANCE = 0.01  # how often chance alone may exceed what is allowed for it
Z = 2.33  # standard errors that it does so: one-sided
TAIL = 0.05  # p-values


class Ratio(NamedTuple):
    """What was observed over what was promised, and its interval."""

    value: float
    low: float
    high: float


def wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """Return the ends of Wilson's score interval (1927) of a share of n, z standard deviations either side.

    Without observations it is all of [0, 1].
    """
    if not n:
        return 0.0, 1.0
    centre, spread = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Share:
    """hits of n."""

    hits: int
    n: int

    @property
    def value(self) -> float | None:
        return self.hits / self.n if self.n else None

    def interval(self, z: float) -> tuple[float, float]:
        """Return Wilson's interval, z standard deviations either side."""
        return wilson(self.value or 0.0, self.n, z)

    def over(self, promised: float | None) -> Ratio | None:
        """Return the share over a promised one; None where nothing was promised or observed."""
        if not promised or self.value is None:
            return None
        low, high = self.interval(Z)
        return Ratio(self.value / promised, low / promised, high / promised)


@dataclass(frozen=True)
class Difference:
    """The challenger's value less another's on the same records. error: its standard error."""

    value: float
    error: float
    n: int


@dataclass(frozen=True)
class Excess:
    """By how much more of n values than of n_others lie above a level, at the level where that is most.

    At least this share of the n are of another kind than the others, and lie higher, but for chance.
    """

    value: float
    n: int
    n_others: int

    @property
    def chance(self) -> float:
        """What a hundredth of all drawings exceed where both are drawn alike (Smirnov 1939)."""
        return math.sqrt(-math.log(CHANCE) / 2 * (1 / self.n + 1 / self.n_others))

    @property
    def least(self) -> float:
        """The share that chance does not explain."""
        return max(0.0, self.value - self.chance)


@dataclass(frozen=True)
class Measured:
    """One version, on the same records as every other.

    Attributes:
        n_learned: records that it learned from.
        recall: share of the injected anomalies above its own threshold, mean over the kinds. recall_of: by
            kind.
        ranked_recall: share of the injected anomalies above a score that flags the budget's share of the
            holdout.
        negative_elbo: nats per record in the columns' own units, without the lowest and highest 5 % of
            records; None where its training has no evidence bound.
        kl_divergence: mean nats that its latents say of a record.
        flagged: of the newest days' holdout. promised_rate: the share that its threshold promises; None where
            none is promised.
        in_tail: of the newest days' holdout, p-values of 5 % at most.
        gross: chance that a record with a gross error scores above an ordinary one.
        distinct: different scores among ordinary records, as a share of the different records; 0 where some
            are not finite.
        cpu_us: CPU time of scoring a record, microseconds.
        precision: confirmed anomalies among judged records that it flags. confirmed: flagged among confirmed
            anomalies. Both are of the holdout: no version has learned these verdicts.
    """

    version: int | None
    n_learned: int
    recall: float | None
    recall_of: Mapping[str, float]
    ranked_recall: float | None
    negative_elbo: float | None
    kl_divergence: float
    flagged: Share
    promised_rate: float | None
    in_tail: Share
    gross: float
    distinct: float
    cpu_us: float
    precision: Share
    confirmed: Share

    @property
    def flag_rate(self) -> Ratio | None:
        """Flags of the newest days over those promised."""
        return self.flagged.over(self.promised_rate)

    @property
    def tail_rate(self) -> Ratio | None:
        """P-values of 5 % at most over the expected 5 %."""
        return self.in_tail.over(TAIL)


@dataclass(frozen=True)
class Churn:
    """Flags of the newest days under two versions. either: flagged by one or both; differ: by one alone.

    examples: records flagged by one alone, the most severe: batch_id, record_key, row_number, by, both scores
        (nats) and p-values, and reasons (detection/reasons.py) of the version that flags it.
    threshold, threshold_champion: what each flags above, in its own nats.
    """

    either: int
    differ: int
    examples: tuple[Mapping[str, Any], ...] = ()
    threshold: float | None = None
    threshold_champion: float | None = None


@dataclass(frozen=True)
class Evidence:
    """All that a decision rests on.

    Attributes:
        holdout: share of records held out from both.
        n_holdout, n_recent, n_newest: holdout records; those of the newest days; records of the newest days.
        budget: share of the holdout above the threshold for `ranked_recall`.
        champion: None where none serves. incomparable: why the champion could not be measured.
        serves: whether that is the champion; else it is a version that somebody chose to compare with.
        learned: how much more of the records offered to the challenger's training than of those held out of
            the same batches the champion reconstructs badly; None where they could not be compared.
        baselines: ranked recall of each.
        differences: of the challenger from the champion (recall, recall of a kind, negative_elbo), a
            baseline, another seed, or its own flags on the records that anomalies were injected into
            (unaltered), by name.
        shadow_days: days of batches that landed since the challenger was trained. Where there are any and a
            shadow is asked for, they are the newest days of all that is measured.
        changed: settings that differ from the champion's, with its value and the challenger's.
        lost: anomaly_ids of confirmed anomalies that the champion flags and the challenger finds ordinary.
        constant: columns of one value in all that the challenger learned, and of several in what the champion
            did; where none serves, half of the columns or more.
        unshared: columns that only one of the two versions models: their densities cannot be compared.
        far: columns of which half of the newest days' values lie far outside of what the champion learned.
    """

    dataset: str
    measured_at: str
    first_batch: str
    last_batch: str
    holdout: float
    n_holdout: int
    n_recent: int
    n_newest: int
    budget: float
    challenger: Measured
    champion: Measured | None = None
    shadow_days: float = 0.0
    incomparable: str = ""
    serves: bool = True
    learned: Excess | None = None
    baselines: Mapping[str, float] = field(default_factory=dict)
    differences: Mapping[str, Difference] = field(default_factory=dict)
    churn: Churn | None = None
    lost: tuple[str, ...] = ()
    changed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    constant: tuple[str, ...] = ()
    unshared: tuple[str, ...] = ()
    far: tuple[str, ...] = ()

    @property
    def rival(self) -> str:
        """What the challenger is compared with, in words."""
        return "the champion" if self.serves or self.champion is None else f"version {self.champion.version}"

    @property
    def recall_differences(self) -> dict[str, Difference]:
        """The challenger's recall less the champion's, by kind of injected anomaly."""
        whole = "recall of "
        return {k.removeprefix(whole): d for k, d in self.differences.items() if k.startswith(whole)}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
