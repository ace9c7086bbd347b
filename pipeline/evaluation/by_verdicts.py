"""The gates that verdicts decide: precision, confirmed, kept.

Belongs here: bounds on what people said. Does not: gates that need nobody's word (judging.py).
"""

from __future__ import annotations

from pipeline.evaluation.case import Case, either, said
from pipeline.evaluation.decision import Finding
from pipeline.evaluation.evidence import Share, Z

FEWEST_JUDGED = 20


def precision(case: Case) -> Finding:
    return _confirmed_share(case, "precision", "of its judged flags are anomalies")


def confirmed(case: Case) -> Finding:
    return _confirmed_share(case, "confirmed", "of the confirmed anomalies are flagged")


def _confirmed_share(case: Case, what: str, words: str) -> Finding:
    """Fail where the two intervals lie apart."""
    if case.other is None:
        return said("not judged", case.uncompared)
    mine: Share = getattr(case.one, what)
    theirs: Share = getattr(case.other, what)
    row = {"value": _counted(mine), "beside": _counted(theirs), "bound": "as many pass"}
    if (n := min(mine.n, theirs.n)) < FEWEST_JUDGED:
        fewer = case.one if mine.n == n else case.other
        flagged = f"judged records that version {fewer.version} flags"
        counted = flagged if what == "precision" else "confirmed anomalies"
        return said("not judged", _more(case, n, counted), **row)
    apart = mine.interval(Z)[1] < theirs.interval(Z)[0]
    why = f"{mine.value:.0%} {words}, {theirs.value:.0%} under {case.rival}"
    return either(apart, why, outside=mine.hits * theirs.n < theirs.hits * mine.n, **row)


def _more(case: Case, n: int, counted: str) -> str:
    """Say how many more verdicts let a gate be judged that counts n records of the holdout so far."""
    if not (share := case.evidence.holdout):
        return case.few
    more = FEWEST_JUDGED - n
    return (
        f"the holdout has {n} of the {counted}, and {more} more are needed: about {round(more / share):,} more such "
        f"verdicts, as it has {100 * share:.3g} % of all records"
    )


def kept(case: Case) -> Finding:
    if case.uncompared:
        return said("not judged", case.uncompared)
    lost = [one for one in case.evidence.lost if one not in case.gates.kept.allowed]
    named = f"{', '.join(lost[:5])}{'…' * (len(lost) > 5)}"
    why = f"it finds confirmed anomalies ordinary that {case.rival} flags: {named}"
    return either(
        bool(lost),
        f"{why}; to accept that, list them in promote.gates.kept.allowed",
        value=str(len(lost) or "none"),
        bound="none passes, except those in promote.gates.kept.allowed",
    )


def _counted(share: Share) -> str:
    return f"{share.hits} of {share.n}"
