"""What became of a version: its record, and the sentence and next step at the top of its training's page.

Belongs here: from a version's tags and its gates to words that stay true when they are read later. Pure. Does
not: the gates one by one (gates.py), or what becomes of a version (registry/, steps/).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from pipeline.config.dataset import Dataset
from pipeline.evaluation.decision import OUTCOME
from pipeline.evaluation.told import verdicts_say
from pipeline.report import sheet
from pipeline.report.trust import Trust, sentence

if TYPE_CHECKING:
    from pipeline.registry import ModelVersion
    from pipeline.report.gates import Judgement

BECAME = ("promoted", "rolled_back", "rejected")  # tags _at, _by, _reason; the latest of these decides
EVIDENCE = ("promoted_", "rolled_back_", "rejected_", "decision", "evaluated_", "review")
AWAITED = {
    "automatic": ("Passed", "The nightly run promotes it by itself."),
    "approval": ("Passed, and awaits approval", "Somebody has to agree before it serves."),
    "manual": ("Passed, and awaits promotion", "It serves once somebody promotes it."),
}


def standing(dataset: Dataset, version: ModelVersion | None, judged: Judgement | None) -> Trust:
    """Return what became of a version: promoted, refused, or what it waits for.

    Args:
        version: None while it is not registered.
        judged: None where nobody has judged it.
    """
    tags = dict(version.tags) if version else {}
    at = {what: moment for what in BECAME if (moment := tags.get(f"{what}_at"))}
    if version and at:
        return _became(dataset, version, max(at, key=lambda what: at[what]), judged)
    if version is None or judged is None:
        next_step = f"judge it: vaewatch evaluate {dataset.name} (each night does, after the training)"
        return Trust(
            "warn", "not judged", "Not judged yet", "Nobody knows yet whether it may serve.", next_step
        )
    for_people = bool(judged.told.ways)
    follows = next_step_of(
        dataset, version.version, tags["decision"], serves=judged.serves, is_for_people=for_people
    )
    if tags["decision"] == "refuse":
        return _refused(judged, follows)
    if tags["decision"] == "wait":
        return Trust("warn", "waiting", "Waiting in its shadow", sentence(judged.told.sentence), follows)
    headline, why = AWAITED[dataset.promote.mode]
    return Trust("warn" if judged.misses else "good", "passed", headline, f"{why}{_missing(judged)}", follows)


def next_step_of(
    dataset: Dataset, number: int, decision: str, *, serves: bool, is_for_people: bool = False
) -> str:
    """Say what follows from a decision, and who has to do it.

    Args:
        decision: promote, refuse or wait.
        serves: whether another version does.
        is_for_people: the ways out are listed, and depend on what only people know.
    """
    name, mode = dataset.name, dataset.promote.mode
    override = f"vaewatch promote {name} --version {number} --reason WHY"
    if decision == "refuse" and is_for_people:
        return "the champion serves on, and flags too much, until somebody decides what these days are; what can be done is listed with the gates"
    if decision == "refuse":
        meanwhile = "the champion serves on" if serves else "no model serves, and batches wait"
        return f"{meanwhile}; train again once the reason is gone, or override it: {override}"
    if decision == "wait":
        return f"evaluate it again as batches land (each night does); sooner: {override}"
    by_itself = {
        "automatic": "the nightly run promotes it by itself; sooner",
        "approval": f"answer in Airflow ({name}.approve); without Airflow",
    }
    return f"{by_itself.get(mode, 'make it champion')}: {override}"


def _became(dataset: Dataset, version: ModelVersion, what: str, judged: Judgement | None) -> Trust:
    by, reason = (version.tags.get(f"{what}_{name}", "") for name in ("by", "reason"))
    when = sheet.when(version.tags[f"{what}_at"])
    said = f"{f'By {by}' if by != 'vaewatch' else 'Automatically'}{f': {reason}' if reason else ''}"
    now = f"see which version serves now: vaewatch versions {dataset.name}"
    if what == "promoted":
        missing = _missing(judged)
        return Trust(
            "warn" if missing else "good",
            "promoted",
            f"Promoted {when}: it became champion",
            f"{sentence(said)}{missing}",
            now,
        )
    if what == "rolled_back":
        return Trust("warn", "rolled back", f"Rolled back, {when}", sentence(said), now)
    return Trust("bad", "rejected", f"Rejected, {when}", sentence(said), now)


def _refused(judged: Judgement, follows: str) -> Trust:
    """Put the first reason in the headline; the others, and what is likely behind them, come after it."""
    failed = [row for row in judged.told.rows if row.verdict == "failed" and row.level == "required"]
    likely = judged.told.sentence.partition(". Likely: ")[2]
    if not failed:
        return Trust("bad", "refused", "Refused", sentence(judged.told.sentence), follows)
    first, *others = failed
    reason, _, advice = first.reason.partition("; ")
    told = [f"The gate {first.gate} failed."]
    told += [sentence(advice[:1].upper() + advice[1:])] if advice else []
    told += [sentence(f"So did {row.gate}: {row.reason}") for row in others]
    told += [sentence(f"Likely: {likely}")] if likely else []
    return Trust("bad", "refused", f"Refused: {reason}", " ".join(told), follows)


def _missing(judged: Judgement | None) -> str:
    return f" It misses most anomalies: {judged.misses}." if judged and judged.misses else ""


def withdrawn(version: ModelVersion, serving: int | None) -> str:
    """Say who rolled a version back, and why; empty where nobody did, or it serves or was promoted again."""
    tags = version.tags
    if version.version == serving or tags.get("rolled_back_at", "") <= tags.get("promoted_at", ""):
        return ""
    at, by = sheet.when(tags["rolled_back_at"]), tags.get("rolled_back_by", "somebody")
    return f"Version {version.version} was rolled back by {by}, {at}: {tags.get('rolled_back_reason', '')}"


def flags_kept(dataset: str, batches: Collection[str], before: int, now: int) -> str:
    """Say that batches keep the flags of a version that serves no more, and how to renew them.

    Empty where there is none.
    """
    if not batches:
        return ""
    keep = f"{len(batches)} batches keep" if len(batches) > 1 else "one batch keeps"
    again = f"vaewatch score {dataset} {'..'.join(dict.fromkeys((min(batches), max(batches))))} --force"
    return f"{keep} the flags of version {before}; to score {'them' if len(batches) > 1 else 'it'} again with version {now}: {again}"


def recall(version: ModelVersion) -> float | None:
    """Return the share of injected anomalies that a version found when it was judged, or None."""
    held: dict[str, float] = json.loads(version.tags.get("evaluated_holdout", "{}"))
    return held.get("recall")


def evidence(version: ModelVersion) -> list[tuple[str, str]]:
    """Return what is on record about a version's promotion, as names and words, without empty entries.

    A rollback or rejection that a later promotion overruled is left out; the history has it.
    """
    promoted_at = version.tags.get("promoted_at", "")
    overruled = tuple(f"{what}_" for what in BECAME if version.tags.get(f"{what}_at", "") < promoted_at)
    tags = {
        name: text
        for name, text in version.tags.items()
        if name.startswith(EVIDENCE) and not name.startswith(overruled)
    }
    if "evaluated_against" in tags:
        tags["evaluated_against"] = (
            f"version {tags['evaluated_against']}".removesuffix("version ") or "no other"
        )
    if "decision" in tags:
        tags["decision"] = OUTCOME.get(tags["decision"], tags["decision"])
    if "evaluated_holdout" in tags:
        tags["evaluated_holdout"] = _holdout(json.loads(tags["evaluated_holdout"]))
    if "review" in tags:
        tags["review"] = verdicts_say(tags["review"])
    said = {name: sheet.when(text) if name.endswith("_at") else _plain(text) for name, text in tags.items()}
    return [(name.replace("_", " "), text[:1000]) for name, text in sorted(said.items()) if text]


def _holdout(held: Mapping[str, float]) -> str:
    found = [f"{held.get('n', 0):,} records"]
    found += [f"{held['recall']:.1%} of the injected anomalies found"] if "recall" in held else []
    found += [f"{held['negative_elbo']:.2f} nats a record"] if "negative_elbo" in held else []
    return ", ".join(found)


def _plain(text: str) -> str:
    """Format a tag for a person: a JSON list becomes a sentence."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return "; ".join(map(str, found)) if isinstance(found, list) else text
