"""How much a finding weighs against tonight's flags: less if the scores do not show it, less after a night.

Belongs here: severities lowered, and the words for it. Pure. Does not: what is too much (judgement.py).

Columns that moved are reported for what they may do to the scores, and those are measured, too. What was
reported yesterday is still true tonight: it stays listed, with the day it began, but a page does not open
with it again unless it got worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import replace
from datetime import date

from pipeline.detection.measures import Measures
from pipeline.monitoring.findings import EXTREME, FEW_FLAGS, FEW_IN, MOVED, SEVERITIES, Finding, Severity
from pipeline.monitoring.history import History, Past, Usual
from pipeline.monitoring.movement import stands_still

ABOVE = 0.1  # floor of the chance that a record scores above a normal one
CLEARLY = 0.25  # the same, beyond the half that normal records have, while too little is known
OF_SCORES = {"scores", "tail", "flags", EXTREME}
# each is about tonight's own records, and matters as much on the second night: look at such flags again
OF_TONIGHT = OF_SCORES | {"volume", "strays"}


def weighed(found: Sequence[Finding], now: Measures, history: History) -> list[Finding]:
    """Return the findings of a batch, each as severe as it is for tonight's flags."""
    calm = _scores_as_usual(now, history) and not any(finding.kind in OF_SCORES for finding in found)
    lost = {finding.column for finding in found if finding.kind == "missing"}
    less = [_without_effect(f) if calm and _would_show(f, now, lost) else f for f in found]
    return [_lasting(finding, history.past) for finding in less]


def usual_scores(history: History) -> Usual:
    """Return what is usual of the chance that a record scores above a normal one."""
    usual = history.usual("scores", lambda m: m.above, ABOVE, 0.5)
    # ten floors above the expected one half is more than any chance
    return usual if usual.known else replace(usual, floor=CLEARLY, known=True)


def noise_of_scores(n_records: int) -> float:
    """Return how far chance moves that for this many records."""
    return 4 * math.sqrt(1 / (12 * n_records))


def _scores_as_usual(now: Measures, history: History) -> bool:
    """Return whether scores are neither higher nor lower: what stands still scores low and hides oddness."""
    if now.above is None or not now.n_records:
        return False
    return usual_scores(history).beyond(now.above, noise=noise_of_scores(now.n_records)) <= 1


def _would_show(finding: Finding, now: Measures, lost: Set[str]) -> bool:
    """Return whether a finding would raise scores.

    Values that move or go together differently do. A column that stands still does not, and hides what would
    have been odd in it, as does one whose values are missing.
    """
    still = finding.kind == "drift" and stands_still(now.columns[finding.column])
    return finding.kind in MOVED and not still and not lost & set(finding.columns)


def _without_effect(finding: Finding) -> Finding:
    """Lower the severity a step: what moved does not show in the scores."""
    lower = _lower(finding.severity)
    step = finding.next_step
    if lower == "notice":
        step = f"no hurry, scores and flags are as usual: {step}"
    return replace(finding, severity=lower, next_step=step)


def _lasting(finding: Finding, past: Sequence[Past]) -> Finding:
    """Lower the severity a step if the batches just before had the same finding, as severe or more."""
    if finding.kind in OF_TONIGHT:
        return finding
    row = _in_a_row(finding.key, past)
    if not row:
        return finding
    known = max(SEVERITIES.index(f.severity) for _, f in row) >= SEVERITIES.index(finding.severity)
    severity = _lower(finding.severity) if known else finding.severity
    day, first = row[-1]
    since = first.since or day.isoformat()  # or before what is remembered
    return replace(finding, since=since, severity=severity)


def _in_a_row(key: str, past: Sequence[Past]) -> list[tuple[date, Finding]]:
    """Return the same finding on the batches just before, with their days, newest first.

    Too few flags are counted over several batches: findings of which some are the same are in a row, too.
    """
    found: list[tuple[date, Finding]] = []
    left = most = FEW_IN - 1 if key == FEW_FLAGS else 1
    for before in reversed(past):
        same = next((f for f in before.findings if f.key == key), None)
        left = most if same else left - 1
        if same:
            found.append((before.day, same))
        if not left:
            break
    return found


def _lower(severity: Severity) -> Severity:
    return SEVERITIES[max(0, SEVERITIES.index(severity) - 1)]
