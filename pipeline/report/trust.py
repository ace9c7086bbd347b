"""The sentence at the top of a report: can this batch be trusted.

Belongs here: from a batch's status and findings to words. Pure. Does not: what is a finding
(monitoring/judgement.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.config.dataset import Dataset
from pipeline.monitoring.findings import EXTREME, FEW_FLAGS, MOVED, STRAYS, Finding, leading, worst
from pipeline.monitoring.history import FEWEST_EARLIER
from pipeline.monitoring.judgement import redeliver
from pipeline.monitoring.weighing import OF_SCORES
from pipeline.report.sheet import percent
from pipeline.storage.ledger import BatchState

Tone = Literal["good", "notice", "warn", "bad"]
MOST = 0.5  # share of the injected anomalies; a version that finds less misses most
UNOPPOSED, MISSES = "Nothing speaks against these flags", "many anomalies may be missed"
CONTRACT = "every rule and what was found"  # the link to the contract's page
TAKEN_BACK = "The version that flagged these was taken back"
WITHOUT_EXAMPLES = "missing_value:"  # there is no value to show
ODDEST = "Some records are odder than any before: look at these first"
FEW = "Few flags do not mean few anomalies"


@dataclass(frozen=True)
class Trust:
    """The answer at the top of a page.

    Attributes:
        tone: its colour.
        word: for a pill.
        headline: the answer itself.
        why: the sentence after it.
        next_step: for where findings have none.
        finds: how many of the injected anomalies the version that scored found.
        learned: that the version learned from the batch that it scored; empty where it did not.
        unscored: how many records broke a rule, and which, unless a finding says so: they are no flags.
    """

    tone: Tone
    word: str
    headline: str
    why: str
    next_step: str = ""
    finds: str = ""
    learned: str = ""
    unscored: str = ""


def trust(
    dataset: Dataset,
    state: BatchState,
    findings: Sequence[Finding] | None,
    n_earlier: int,
    *,
    serving: int | None = None,
    misses: str = "",
    withdrawn: str = "",
    outdated: str = "",
    recall: float | None = None,
    is_learned: bool = False,
    is_reach_known: bool = True,
    stands: str = "",
) -> Trust:
    """Say whether a batch's flags can be acted on, and how much may lie outside them.

    If the version misses most of the injected anomalies, or flagged next to nothing for a week, even a quiet
    batch says so.

    Args:
        findings: None where the batch was never measured.
        n_earlier: batches before it that it was compared with.
        serving: the version that serves, for a batch that is not scored yet; None where there is none.
        misses: why few flags of its version say little, where an evaluation found so.
        withdrawn: who took its version back, and why; empty where nobody did.
        outdated: which of the records that it looked back on have changed; empty where none has.
        recall: share of the injected anomalies that its version found when it was judged; None where unknown.
        is_learned: whether the batch was among those that its version learned from.
        is_reach_known: whether its highest scores could be compared with those of earlier batches.
        stands: what of it was published before and still is, where it is not scored; empty where nothing is.
    """
    said = _answer(
        dataset,
        state,
        findings,
        n_earlier,
        serving=serving,
        misses=misses,
        withdrawn=withdrawn,
        outdated=outdated,
        is_reach_known=is_reach_known,
    )
    if state.status != "scored":
        still = sentence(_begun(stands))
        return replace(said, why=f"{said.why} {still}".strip())
    if not any(finding.key in {"set_aside", STRAYS} for finding in findings or ()):
        said = replace(said, unscored=_unscored(dataset, state))
    if not state.n_accepted:  # what its version finds says nothing of a batch without a scored record
        return said
    if is_learned:
        learned = f"This batch was among those that version {state.model_version} learned from."
        said = replace(said, learned=learned)
    unknown = f"How many injected anomalies version {state.model_version} finds is not known."
    said = replace(said, finds=unknown if recall is None else found(state.model_version, recall))
    few = next((f for f in findings or () if f.key == FEW_FLAGS), None)
    if said.tone != "good" or not (few or (recall is not None and recall < MOST)):
        return said
    why, next_step = (sentence(_begun(few.what)), few.next_step) if few else (said.why, _more(dataset, state))
    word, headline = f"{said.word}, misses much", f"{UNOPPOSED}; {MISSES}"
    return replace(said, tone="notice", word=word, headline=headline, why=why, next_step=next_step)


def _unscored(dataset: Dataset, state: BatchState) -> str:
    """Say what broke the contract: a value beyond a bound may be the oddest of the day."""
    if not state.n_set_aside:
        return ""
    n, rules = state.n_set_aside, ", ".join(f"{rule} {n:,}" for rule, n in sorted(state.set_aside.items()))
    were = "record was" if n == 1 else "records were"
    look = f"vaewatch quarantine show {dataset.name} {state.batch_id}"
    return f"{n:,} {were} set aside and not scored: {rules} ({look})."


def found(version: int | None, recall: float) -> str:
    return (
        f"When it was judged, version {version} found {percent(recall)} of the injected anomalies, falsified copies of "
        "real records, at its threshold."
    )


def _more(dataset: Dataset, state: BatchState) -> str:
    """Say what may raise the share of anomalies found, and where to see which kinds are missed."""
    return (
        "to find more, have it learn more days (train.window_days), leave out columns that say nothing (role: "
        f"ignored), or have more flagged (flag in {dataset.named_file}); what it misses, kind by kind: vaewatch "
        f"versions {dataset.name} {state.model_version}"
    )


def _answer(
    dataset: Dataset,
    state: BatchState,
    findings: Sequence[Finding] | None,
    n_earlier: int,
    *,
    serving: int | None,
    misses: str,
    withdrawn: str,
    outdated: str,
    is_reach_known: bool,
) -> Trust:
    if state.status == "refused":
        headline = "Nothing was scored: the delivery was refused"
        next_step = redeliver(dataset, unreadable=state.is_unreadable)
        if state.set_aside:
            shown = any(not reason.startswith(WITHOUT_EXAMPLES) for reason in state.set_aside)
            examples = ", with examples" if shown else ""
            next_step = (
                f'see the rules that its records broke{examples}, under "{CONTRACT}" on its page; {next_step}'
            )
        return Trust("bad", "refused", headline, sentence(_begun(state.reason)), next_step)
    if state.status == "accepted":
        if serving is None:
            next_step = f"see what the newest model was judged by: vaewatch history {state.dataset}"
            return Trust("warn", "waiting", "Not scored yet", "It waits for a model that serves.", next_step)
        why = f"Version {serving} serves: the next run scores it."
        return Trust(
            "warn", "waiting", "Not scored yet", why, f"score it now: vaewatch score {state.dataset}"
        )
    again = f"score it again: vaewatch score {state.dataset} {state.batch_id} --force"
    if findings is None:
        why = "It was scored before there was monitoring."
        return Trust("warn", "not measured", "Scored, but never measured", why, again)
    grave = [f for f in findings if f.severity != "notice"]
    if any(finding.key == STRAYS for finding in grave):
        return Trust("warn", "set aside", "Nothing was scored: these records are strays", _said(grave))
    deaf = f"Version {state.model_version} misses most anomalies: {misses}." if misses else ""
    stale = sentence(f"It {outdated}") if outdated else ""
    if worst(findings) == "alarm":
        return _alarmed(grave, " ".join(filter(None, [deaf, stale])))
    if withdrawn:
        return Trust("warn", "taken back", TAKEN_BACK, sentence(withdrawn), again)
    if outdated:
        return Trust("warn", "outdated", "What these flags were judged against has changed", stale, again)
    if grave:
        return Trust("warn", "look first", doubt(grave), _said(grave, deaf))
    if misses:
        return Trust("warn", "misses much", FEW, deaf, _more(dataset, state))
    if n_earlier < FEWEST_EARLIER:
        known = {0: "No earlier batch is known", 1: "One earlier batch is known"}
        so_far = known.get(n_earlier, f"Only {n_earlier} earlier batches are known")
        why = f"{so_far}: with fewer than {FEWEST_EARLIER}, only gross drift is reported."
        return Trust("good", "trusted so far", UNOPPOSED, why)
    before = f"are as in the {n_earlier} batches before"
    why = f"Columns, scores and flags {before}."
    if any(finding.column for finding in findings):
        why = f"Scores and flags {before}; what changed in columns is listed below."
    if not is_reach_known:
        why += " How high single records score is not compared: too few of these batches have it on record."
    return Trust("good", "trusted", "These flags can be trusted", why)


def _alarmed(grave: Sequence[Finding], deaf: str) -> Trust:
    word = "an event?" if _is_event(grave) else "do not rely on it"
    return Trust("bad", word, doubt(grave), _said(grave, deaf))


def doubt(findings: Sequence[Finding]) -> str:
    """Say what findings mean for a batch's flags; empty where they are notices at most."""
    severity = worst(findings)
    if severity == "warning":
        grave = {finding.key for finding in findings if finding.severity == severity}
        alone = {FEW_FLAGS: FEW, EXTREME: ODDEST}
        return (alone.get(*grave) if len(grave) == 1 else None) or "Look before you rely on these flags"
    if severity != "alarm":
        return ""
    event = "Far more is odd than usual: look at these flags together"
    return event if _is_event(findings) else "Do not rely on these flags yet"


def _is_event(findings: Sequence[Finding]) -> bool:
    """Return whether far more is odd than usual and the data is not at fault.

    An event moves values, too, but not all values of a column.
    """
    if any(finding.everywhere for finding in findings if finding.severity != "notice"):
        return False
    kinds = {finding.kind for finding in findings if finding.severity == "alarm"}
    return bool(kinds & OF_SCORES) and kinds <= OF_SCORES | MOVED


def _said(findings: Sequence[Finding], deaf: str = "") -> str:
    first, *of_column = told = leading(findings)
    n_others = len(findings) - len(told)
    more = f"And {n_others} more." if n_others else ""
    is_named = bool(first.column) and first.what.startswith(first.column)
    begun = first.what if is_named else _begun(first.what)
    what = "; ".join([begun, *(finding.what for finding in of_column)])
    return " ".join(part for part in (sentence(what), more, deaf) if part)


def _begun(text: str) -> str:
    """Start a text with a capital, unless its first word is a file or is followed by a colon."""
    return text[:1].upper() + text[1:] if text.partition(" ")[0].isalpha() else text


def sentence(text: str) -> str:
    """End a text with a full stop, unless it ends like a sentence."""
    text = text.strip()
    return text + ("" if text.endswith((".", "!", "?", "…")) or not text else ".")
