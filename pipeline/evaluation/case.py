"""What a gate judges by, and the finding that it comes to.

Belongs here: the two versions and why they cannot be compared, a pass and a failure. Does not: bounds, and
when a value is beyond one (judging.py, by_verdicts.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.gates import Gates
from pipeline.evaluation.decision import Finding, Verdict
from pipeline.evaluation.evidence import Evidence, Measured

FEWEST_HELD = 100
BY_CHANCE = "outside the bound, but within chance"


@dataclass(frozen=True)
class Case:
    """What a gate judges by. one, other: the challenger, and the champion or the version in its place."""

    evidence: Evidence
    gates: Gates

    @property
    def one(self) -> Measured:
        return self.evidence.challenger

    @property
    def other(self) -> Measured | None:
        return self.evidence.champion

    @property
    def rival(self) -> str:
        return self.evidence.rival

    @property
    def uncompared(self) -> str:
        """Why there is no comparison with a champion."""
        if self.other is None:
            return self.evidence.incomparable or "no champion serves yet"
        return self.few if self.evidence.n_holdout < FEWEST_HELD else ""

    @property
    def few(self) -> str:
        """Why too little is held out to tell."""
        if not self.evidence.holdout:
            return "no records are held out from both versions (promote.holdout)"
        return f"only {self.evidence.n_holdout} records are held out, {FEWEST_HELD} are needed"


def said(verdict: Verdict, why: str = "", *, value: str = "", beside: str = "", bound: str = "") -> Finding:
    """Return a finding; `decide` adds the gate and its level."""
    return Finding("", "off", verdict, value, beside, bound, why)


def either(
    fails: bool, why: str, *, value: str, beside: str = "", bound: str, outside: bool = False, note: str = ""
) -> Finding:
    """Return a failure with its reason, or a pass, with a note where the value seems to contradict it.

    Args:
        outside: the value itself is beyond the bound, whatever chance allows.
        note: of a pass.
    """
    if fails:
        return said("failed", why, value=value, beside=beside, bound=bound)
    return said("passed", BY_CHANCE if outside else note, value=value, beside=beside, bound=bound)


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
