"""What is worth reporting of a batch: findings, which is worst or new, and how many are reported as one.

Belongs here: findings once they are made. Does not: making them (judgement.py), or who gets them
(notify/alerts.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from pipeline.config.dataset import Dataset

Severity = Literal["notice", "warning", "alarm"]
SEVERITIES: tuple[Severity, ...] = ("notice", "warning", "alarm")
EXTREME = "extreme"  # the key of the one about records that score far beyond all earlier ones
STRAYS = "strays"  # the key of the one finding about a batch of records of another time
FEW_FLAGS, FEW_IN = "few_flags", 7  # the key of the one about too few flags, of so many batches together
MOVED = {"drift", "correlation"}  # kinds about the distribution of present, known values
MOST_ALIKE, NAMED_ALIKE = 5, 8  # findings of a kind reported one by one; columns named


@dataclass(frozen=True)
class Finding:
    """Something about a batch that a person should know.

    Attributes:
        key: what it is about; the same in the next batch if it is the same thing.
        what: a sentence: what, where, how much, and what is usual.
        next_step: what to do about it.
        told: people were told, or knew it from the batch before.
        since: the day of the first in an unbroken run of batches with the same finding; empty for the first.
        everywhere: nearly all values of the column are elsewhere: no event in some of the records does that.
        value, usual, allowed: the number, the median of its like, and the distance that is not reported.
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
    since: str = ""
    everywhere: bool = False

    @property
    def kind(self) -> str:
        return self.key.partition(":")[0]

    @property
    def columns(self) -> list[str]:
        """The columns that it is about: two of a correlation."""
        return self.key.partition(":")[2].split("|") if self.kind == "correlation" else [self.column]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        return cls(**state)


def worst(findings: Sequence[Finding]) -> Severity | None:
    """Return the severity of the most severe one."""
    return max((f.severity for f in findings), key=SEVERITIES.index, default=None)


def leading(findings: Sequence[Finding]) -> list[Finding]:
    """Return what is reported where there is room for one sentence.

    That is the most severe and, if it is of the batch as a whole, the most severe of a column: many flags
    tell nobody where to look.
    """
    order = sorted(findings, key=lambda f: -SEVERITIES.index(f.severity))
    first, of_a_column = order[:1], [f for f in order if f.column][:1]
    return first if first == of_a_column else [*first, *of_a_column]


def gathered(findings: Sequence[Finding], dataset: Dataset) -> list[Finding]:
    """Return one finding a cause, for a reader.

    Columns that moved are one finding with those computed from the same ones. Missing values are those of the
    delivery's columns, not of what is computed from them. Where a source fails, every column says so: more
    than five of a kind become one, the most severe.
    """
    told = _by_cause(findings, dataset)
    kinds = Counter(finding.kind for finding, _ in told)
    kinds["missing"] = sum(finding.kind == "missing" for finding in findings)
    found, seen = list[Finding](), set[str]()
    for finding, of_it in told:
        if kinds[finding.kind] > MOST_ALIKE:
            if finding.kind in seen:
                continue
            seen.add(finding.kind)
            of_it = [f for first, alike in told for f in alike if first.kind == finding.kind]
            finding = max(of_it, key=_weight)
        if finding.kind == "missing":
            finding = _of_sources(of_it, dataset)
        elif len(of_it) > 1:
            finding = _with_others(finding, of_it)
        since = f"; lasting since {finding.since}" if finding.since else ""
        found.append(replace(finding, what=finding.what + since))
    return found


def _by_cause(findings: Sequence[Finding], dataset: Dataset) -> list[tuple[Finding, list[Finding]]]:
    """Return the first finding of each cause, with all of it, in the order of reporting."""
    causes: list[tuple[Finding, list[Finding]]] = []
    for finding in sorted(findings, key=lambda f: -_weight(f)):
        behind = set(dataset.sources(finding.columns))
        for first, of_it in causes:
            same = finding.kind == first.kind or {finding.kind, first.kind} <= MOVED
            if finding.column and same and behind & set(dataset.sources(first.columns)):
                of_it.append(finding)
                break
        else:
            causes.append((finding, [finding]))
    return sorted(causes, key=lambda cause: findings.index(cause[0]))


def _weight(finding: Finding) -> float:
    """Rank the findings of a cause: the most severe first, a column before a pair, then the farthest."""
    apart = abs((finding.value or 0.0) - (finding.usual or 0.0)) / (finding.allowed or 1.0)
    a_pair = finding.kind == "correlation"
    return 10 * SEVERITIES.index(finding.severity) - 5 * a_pair + apart / (1 + apart)


def _with_others(first: Finding, alike: Sequence[Finding]) -> Finding:
    others = [" with ".join(f.columns) for f in alike if f is not first]
    many = f"{len(others)} more: " if len(others) > MOST_ALIKE else ""
    what = f"{first.what}; likewise {many}{_named(others)}"
    return replace(first, what=what, everywhere=any(f.everywhere for f in alike))


def _of_sources(alike: Sequence[Finding], dataset: Dataset) -> Finding:
    """Combine columns whose share of missing values changed into one finding about the delivery's columns."""
    most = max(alike, key=lambda f: abs((f.value or 0.0) - (f.usual or 0.0)))
    names = dataset.sources(f.column for f in alike)
    if len(alike) == 1 and names == [most.column]:
        return most
    watched = [n for n in dataset.columns_with("numeric", "categorical", "context") if n != dataset.time]
    of = dataset.sources(watched)
    share = f"all {len(of)}" if len(names) == len(of) else f"{len(names)} of {len(of)}"
    what = (
        f"{share} columns: {most.value or 0.0:.1%} of what the model reads of {'it' if len(names) == 1 else 'them'} is missing "
        f"(usually {most.usual or 0.0:.1%}): {_named(names)}"
    )
    return replace(alike[0], what=what, next_step=f"ask the source what changed in {_named(names)}")


def _named(columns: Sequence[str]) -> str:
    return ", ".join(columns[:NAMED_ALIKE]) + (", …" if len(columns) > NAMED_ALIKE else "")


def news(findings: Sequence[Finding], known: Sequence[Finding]) -> list[Finding]:
    """Return what is not known yet, or was less severe.

    Args:
        known: what was reported of the batch before, and of this one when it was scored earlier.
    """
    rank = {
        f.key: SEVERITIES.index(f.severity) for f in sorted(known, key=lambda f: SEVERITIES.index(f.severity))
    }
    return [f for f in findings if SEVERITIES.index(f.severity) > rank.get(f.key, -1)]
