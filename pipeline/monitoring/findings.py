"""What is worth telling of a batch: a finding, which of several is worst or new, and how many of a kind are
told as one.

Belongs here: findings once they are made. Does not: making them (judgement.py), or whom they are told
(alerts.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from pipeline.config import Dataset

Severity = Literal["notice", "warning", "alarm"]
SEVERITIES: tuple[Severity, ...] = ("notice", "warning", "alarm")
STRAYS = "strays"  # the key of the one finding about a batch of records of another time
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


def worst(findings: Sequence[Finding]) -> Severity | None:
    """The severity of the most severe one."""
    return max((f.severity for f in findings), key=SEVERITIES.index, default=None)


def gathered(findings: Sequence[Finding], dataset: Dataset) -> list[Finding]:
    """For a reader: where a source fails, every column says so; more than five of a kind are told as one, the
    most severe. Missing values are told of the contract's columns, not of what is derived from them.
    """
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
