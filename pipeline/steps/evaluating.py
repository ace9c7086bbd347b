"""Judge a challenger, record what follows from it, and tell what became of each version.

Belongs here: the step evaluate, and the history. Does not: what is measured (comparing.py), or moving the
champion (serving.py), except for the first model: without it nothing would be scored.
"""

from __future__ import annotations

import hashlib
import json
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from pipeline.config.dataset import Dataset
from pipeline.evaluation.decision import OUTCOME
from pipeline.installation import Installation
from pipeline.report.standing import next_step_of
from pipeline.results import flagging
from pipeline.steps.challenger import Seat, settle
from pipeline.steps.comparing import chosen_version, measure_and_decide, window_of
from pipeline.steps.keys import Say
from pipeline.steps.receipts import Evaluated
from pipeline.steps.serving import promote

if TYPE_CHECKING:
    from pipeline.evaluation import Decision, Evidence
    from pipeline.records.window import Window
    from pipeline.registry import ModelVersion

FIRST = "the first model"
LONGEST_DOUBT = 160  # characters, in a history


def evaluate(
    here: Installation, dataset_name: str, version: int | None = None, *, say: Say = lambda _: None
) -> Evaluated:
    """Judge a version by `promote.gates`, keep the evidence and the decision, and settle who is challenger.

    A first model that passes becomes champion at once, in any mode. A later one that passes, or has to wait
    as long as `promote.shadow_days` says, becomes challenger (see challenger.py). A version already judged on
    the same records against the same champion is not judged again.

    Args:
        version: by default a challenger in its shadow, else the newest version.

    Raises:
        NotReady: there is no such version, or none at all.
        ModelUnusable: the version cannot score today's records.
        RegistryUnreachable, StorageFailed: nothing was written down; a retry may help.
    """
    from pipeline.report import gates
    from pipeline.report.training import path_of

    dataset = here.dataset(dataset_name)
    champion = here.registry.champion(dataset.name)
    chosen = chosen_version(here, dataset, version)
    if champion and chosen.version == champion.version:
        return _serves_already(here, dataset, champion)
    chosen, decision = _decided(here, dataset, chosen, champion, say)
    gates.onto_training_page(here, dataset, chosen)
    seat = _seated(here, dataset, chosen, champion, say)
    tags, is_for_people = chosen.tags, decision is not None and bool(decision.ways)
    return Evaluated(
        "evaluate",
        dataset.name,
        OUTCOME[tags["decision"]],
        model_version=chosen.version,
        alias=seat.alias,
        reason=tags["decision_reason"],
        notes=(*json.loads(tags["decision_notes"]), *filter(None, [seat.words]), *chosen.notes),
        page=str(path_of(here, dataset, chosen) or ""),
        next=_next(dataset, chosen, seat.alias, serves=champion is not None, is_for_people=is_for_people),
        against=int(tags["evaluated_against"]) if tags["evaluated_against"] else None,
        champion=champion.version if champion else None,
        decision=decision,
    )


def _serves_already(here: Installation, dataset: Dataset, champion: ModelVersion) -> Evaluated:
    """Judge nothing; note in the ledger what serves, where a promotion died before it did."""
    number = champion.version
    if here.ledger.serving_version(dataset.name) != number:
        here.ledger.set_serving(dataset.name, number)
    return Evaluated(
        "evaluate", dataset.name, "unchanged", model_version=number, alias="champion", champion=number
    )


def _decided(
    here: Installation, dataset: Dataset, chosen: ModelVersion, champion: ModelVersion | None, say: Say
) -> tuple[ModelVersion, Decision | None]:
    """Return the version with its decision on record, and the decision if it was made just now."""
    window = window_of(here, dataset)
    key = _key(dataset, window, champion)
    if chosen.tags.get("evaluation_key") == key:
        return chosen, None
    against = f"against version {champion.version}" if champion else "alone: no version serves yet"
    say(f"evaluating version {chosen.version} {against}")
    evidence, decision = measure_and_decide(here, dataset, window, chosen, champion)
    whole = {"decision": decision.as_dict(), "evidence": evidence.as_dict()}
    serving = str(champion.version) if champion else ""
    tags = _tags(evidence, decision) | {"evaluation_key": key, "evaluated_beside": serving}
    here.registry.log_evaluation(dataset.name, chosen.version, whole, tags)
    return here.registry.version(dataset.name, chosen.version), decision


def _seated(
    here: Installation, dataset: Dataset, judged: ModelVersion, champion: ModelVersion | None, say: Say
) -> Seat:
    """Give a version the seat that its decision earns: a first model that passed serves at once."""
    outcome = OUTCOME[judged.tags["decision"]]
    if outcome == "passed" and champion is None:
        promote(here, dataset.name, judged.version, by="vaewatch", reason=FIRST, say=say)
        return Seat("champion")
    seat = settle(here.registry, judged, champion)
    if seat.words:
        say(f"version {judged.version} {outcome}: {seat.words}")
    return seat


def _next(dataset: Dataset, judged: ModelVersion, alias: str, *, serves: bool, is_for_people: bool) -> str:
    """Return what follows from a decision, and from the seat that it gave."""
    name, decision = dataset.name, judged.tags["decision"]
    if decision != "refuse" and not alias:
        override = f"vaewatch promote {name} --version {judged.version} --reason WHY"
        return f"nothing, as it is not the challenger; to promote it all the same: {override}"
    if alias == "champion":
        return f"nothing: it serves; score what waits: vaewatch score {name}"
    return next_step_of(dataset, judged.version, decision, serves=serves, is_for_people=is_for_people)


def history(here: Installation, dataset_name: str) -> list[dict[str, Any]]:
    """Return what was trained, judged, promoted and rolled back, oldest first.

    Each by whom, why and on what evidence; changes of the threshold, too.
    """
    dataset = here.dataset(dataset_name)
    events = here.registry.history(dataset.name)
    for version in here.registry.versions(dataset.name):
        trained = {"what": "trained", "at": version.created_at.isoformat(timespec="milliseconds")}
        found = [trained | {"by": "vaewatch", "reason": _learned(version)}]
        if "evaluated_at" in version.tags:
            tags = version.tags
            found.append({
                "what": OUTCOME[tags["decision"]],
                "at": tags["evaluated_at"],
                "by": "vaewatch",
                "reason": tags["decision_reason"],
            })
        events += [{"version": version.version, **event} for event in found]
    events += [
        {
            "version": change.model_version,
            "what": "threshold",
            "at": change.at.isoformat(timespec="milliseconds"),
            "by": change.by,
            "reason": change.words,
        }
        for change in flagging.changes(here.ledger, dataset.name)
    ]
    order = ("trained", "refused", "waiting", "passed", "promoted", "rolled back", "threshold")
    return sorted(events, key=lambda event: (event["at"], order.index(event["what"])))


def _learned(version: ModelVersion) -> str:
    """Say which batches a version learned, and what its training said against it, as far as a line allows."""
    reason = f"batches {version.tags.get('window', '')}"
    if not version.doubts:
        return reason
    first, *others = version.doubts
    more = f"; and {len(others)} more" if others else ""
    look = f"vaewatch versions {version.dataset} {version.version}"
    return f"{reason}, but {shorten(first, LONGEST_DOUBT, placeholder=' …')}{more}: {look}"


def _key(dataset: Dataset, window: Window, champion: ModelVersion | None) -> str:
    """Identify an evaluation by its records, champion and gates."""
    parts = [
        window.fingerprint,
        str(champion.version if champion else None),
        dataset.promote.model_dump_json(exclude={"mode"}),
        dataset.flag.model_dump_json(),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _tags(evidence: Evidence, decision: Decision) -> dict[str, str]:
    one = evidence.challenger
    held = {"n": evidence.n_holdout, "recall": one.recall, "negative_elbo": one.negative_elbo}
    held |= {"champion_recall": evidence.champion.recall} if evidence.champion else {}
    return {
        "evaluated_holdout": json.dumps({name: value for name, value in held.items() if value is not None}),
        "decision": decision.outcome,
        "decision_reason": decision.sentence,
        "decision_notes": json.dumps(decision.notes),
        "evaluated_against": str(decision.against or ""),
        "evaluated_at": evidence.measured_at,
    }
