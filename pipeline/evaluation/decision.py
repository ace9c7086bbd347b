"""What is said of a challenger: each gate's finding, and what follows from them all.

Belongs here: a finding, a decision, and the sentence for it. Does not: who judges (judging.py), or how an
evaluation is laid out (told.py).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.config.gates import Level

COMPARISONS = ("recall", "baselines", "negative_elbo", "flag_rate")
Verdict = Literal["passed", "failed", "not judged"]
Outcome = Literal["promote", "refuse", "wait"]
OUTCOME = {"promote": "passed", "refuse": "refused", "wait": "waiting"}  # as it is shown
WOULD = {"promote": "would pass", "refuse": "would be refused", "wait": "would wait"}


@dataclass(frozen=True)
class Finding:
    """What one gate says.

    Attributes:
        value, champion: as they are shown; champion: what the value is compared with, with its name.
        bound: what passes, in words.
        reason: why it failed or was not judged, or a note.
    """

    gate: str
    level: Level
    verdict: Verdict
    value: str = ""
    champion: str = ""
    bound: str = ""
    reason: str = ""

    @property
    def refuses(self) -> bool:
        return self.verdict == "failed" and self.level == "required"


@dataclass(frozen=True)
class Decision:
    """Whether a challenger may serve.

    Attributes:
        against: the champion it was compared with; None where none serves.
        cause: what is likely behind a refusal, and what to do; or what is waited for.
        ways: what a person can do where the champion should not simply go on serving.
        incomparable: why a champion that serves could not be measured; empty where it was, or none serves.
    """

    outcome: Outcome
    against: int | None
    findings: tuple[Finding, ...]
    cause: str = ""
    ways: tuple[str, ...] = ()
    incomparable: str = ""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is refused, a sentence for each gate."""
        return tuple(f"{finding.gate}: {finding.reason}" for finding in self.findings if finding.refuses)

    @property
    def notes(self) -> tuple[str, ...]:
        """What else to know: no comparison, failed advisory gates, required ones with too few records."""
        unjudged = [f for f in self.findings if f.verdict == "not judged" and f.level == "required"]
        return tuple(
            ([f"not compared with the champion: {self.incomparable}"] if self.incomparable else [])
            + [f"{f.gate}: {f.reason}" for f in self.findings if f.verdict == "failed" and not f.refuses]
            + [f"{f.gate} not judged: {f.reason}" for f in unjudged if f.gate in COMPARISONS and self.against]
        )

    @property
    def sentence(self) -> str:
        if self.outcome == "refuse":
            return f"refused: {'; '.join(self.reasons)}{f'. Likely: {self.cause}' if self.cause else ''}"
        if self.outcome == "wait":
            return f"waits: {self.cause}"
        judged = [f.gate for f in self.findings if f.verdict == "passed"]
        alone = "good enough by itself" if self.incomparable else "good enough to be first"
        beside = alone if self.against is None else f"as good as version {self.against}"
        failed = [f.gate for f in self.findings if f.verdict == "failed"]
        told = f"; failed, but advisory: {', '.join(failed)}" if failed else ""
        return f"{beside} by {', '.join(judged)}{told}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
