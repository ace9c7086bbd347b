"""Measure a challenger against the champion and write down what follows from it.

Belongs here: the step evaluate, the same for any two versions, and what became champion when. Does not:
measuring and deciding (evaluation/), or moving the champion (serving.py), but for the first model: nothing
would be scored without it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.config.dataset import Dataset
from pipeline.errors import ModelUnusable, NotReady
from pipeline.evaluation.decision import OUTCOME
from pipeline.installation import Installation
from pipeline.report.standing import next_step_of
from pipeline.results import flagging
from pipeline.steps import place
from pipeline.steps.keys import Say
from pipeline.steps.receipts import Judged
from pipeline.steps.serving import promote

if TYPE_CHECKING:
    from pipeline.detection.detector import Detector
    from pipeline.evaluation import Decision, Evidence
    from pipeline.evaluation.measurement import Contender
    from pipeline.evaluation.told import Told
    from pipeline.records.window import Window
    from pipeline.registry import ModelVersion

FIRST = "the first model"
MOST_LEARNED = 8_000  # records that the baselines' share is drawn from


def evaluate(
    here: Installation, dataset_name: str, version: int | None = None, *, say: Say = lambda _: None
) -> Judged:
    """Judge a version by `promote.gates`, keep the evidence and the decision with it, and give it the
    challenger's place or not.

    A first model that passes becomes champion at once, in any mode; a later one that passes, or has to wait
    as long as `promote.shadow_days` says, becomes challenger (see place.py). Judged already, on the same
    records against the same champion, it is not judged again.

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
    chosen = _chosen(here, dataset, version)
    if champion and chosen.version == champion.version:
        return _serves_already(here, dataset, champion)
    chosen, decision = _decided(here, dataset, chosen, champion, say)
    gates.onto_training_page(here, dataset, chosen)
    seat = _seated(here, dataset, chosen, champion, say)
    tags, is_for_people = chosen.tags, decision is not None and bool(decision.ways)
    return Judged(
        "evaluate",
        dataset.name,
        OUTCOME[tags["decision"]],
        model_version=chosen.version,
        alias=seat.alias,
        reason=tags["decision_reason"],
        notes=(*json.loads(tags["decision_notes"]), *filter(None, [seat.words])),
        page=str(path_of(here, dataset, chosen) or ""),
        next=_next(dataset, chosen, seat.alias, serves=champion is not None, is_for_people=is_for_people),
        against=int(tags["evaluated_against"]) if tags["evaluated_against"] else None,
        champion=champion.version if champion else None,
        decision=decision,
    )


def _serves_already(here: Installation, dataset: Dataset, champion: ModelVersion) -> Judged:
    """There is nothing to judge; the ledger learns what serves, where a promotion died before it wrote so."""
    number = champion.version
    if here.ledger.serving_version(dataset.name) != number:
        here.ledger.set_serving(dataset.name, number)
    return Judged(
        "evaluate", dataset.name, "unchanged", model_version=number, alias="champion", champion=number
    )


def _decided(
    here: Installation, dataset: Dataset, chosen: ModelVersion, champion: ModelVersion | None, say: Say
) -> tuple[ModelVersion, Decision | None]:
    """The version with its decision on record, and the decision where it was made just now."""
    window = _window(here, dataset)
    key = _key(dataset, window, champion)
    if chosen.tags.get("evaluation_key") == key:
        return chosen, None
    against = f"version {champion.version}" if champion else "nothing that serves yet"
    say(f"evaluating version {chosen.version} against {against}")
    evidence, decision = _judged(here, dataset, window, chosen, champion)
    whole = {"decision": decision.as_dict(), "evidence": evidence.as_dict()}
    tags = _tags(evidence, decision) | {"evaluation_key": key}
    here.registry.log_evaluation(dataset.name, chosen.version, whole, tags)
    return here.registry.version(dataset.name, chosen.version), decision


def _seated(
    here: Installation, dataset: Dataset, judged: ModelVersion, champion: ModelVersion | None, say: Say
) -> place.Place:
    """Give a version the place that its decision earns: a first model that passed serves at once."""
    outcome = OUTCOME[judged.tags["decision"]]
    if outcome == "passed" and champion is None:
        promote(here, dataset.name, judged.version, by="vaewatch", reason=FIRST, say=say)
        return place.Place("champion")
    seat = place.settle(here.registry, judged, champion)
    if seat.words:
        say(f"version {judged.version} {outcome}: {seat.words}")
    return seat


def _next(dataset: Dataset, judged: ModelVersion, alias: str, *, serves: bool, is_for_people: bool) -> str:
    """What follows from a decision, and from the place that it gave."""
    name, decision = dataset.name, judged.tags["decision"]
    if decision != "refuse" and not alias:
        override = f"vaewatch promote {name} --version {judged.version} --reason WHY"
        return f"nothing by itself, as it is not challenger; to promote it all the same: {override}"
    if alias == "champion":
        return f"nothing: it serves; score what waits: vaewatch score {name}"
    return next_step_of(dataset, judged.version, decision, serves=serves, is_for_people=is_for_people)


@dataclass(frozen=True)
class Comparison:
    """Two versions, measured as an evaluation would. champion: what it is held against; None where none
    serves.
    """

    challenger: ModelVersion
    champion: ModelVersion | None
    evidence: Evidence
    decision: Decision

    @property
    def told(self) -> Told:
        from pipeline.evaluation.told import told

        kept = {"decision": self.decision.as_dict(), "evidence": self.evidence.as_dict()}
        return told(kept, self.decision.sentence)


def compare(
    here: Installation, dataset_name: str, one: int | None = None, other: int | None = None
) -> Comparison:
    """Measure a version (default: the one that an evaluation would judge) against another (default: the
    champion); nothing is kept.

    Raises:
        NotReady: there is no such version.
    """
    dataset = here.dataset(dataset_name)
    champion = here.registry.champion(dataset.name)
    beside = champion if other is None else here.registry.version(dataset.name, other)
    chosen = _chosen(here, dataset, one)
    if beside and beside.version == chosen.version:
        raise NotReady(_alone(dataset, chosen, len(here.registry.versions(dataset.name))))
    serves = beside is None or (champion is not None and champion.version == beside.version)
    judged = _judged(here, dataset, _window(here, dataset), chosen, beside, serves=serves)
    return Comparison(chosen, beside, *judged)


def _alone(dataset: Dataset, chosen: ModelVersion, n_versions: int) -> str:
    """Why there is nothing to compare a version with."""
    name, number = dataset.name, chosen.version
    if n_versions == 1:
        return (
            f"{name} has version {number} alone, and nothing to compare it with until another one is trained; "
            f"what its gates said: vaewatch versions {name} {number}"
        )
    others = f"name another one; there are {n_versions}: vaewatch versions {name}"
    return f"{name}: version {number} would be compared with itself; {others}"


def history(here: Installation, dataset_name: str) -> list[dict[str, Any]]:
    """What was trained, judged, promoted and rolled back, by whom, why and on what evidence, and where its
    threshold was changed; oldest first.
    """
    dataset = here.dataset(dataset_name)
    events = here.registry.history(dataset.name)
    for version in here.registry.versions(dataset.name):
        trained = {"what": "trained", "at": version.created_at.isoformat(timespec="milliseconds")}
        found = [trained | {"by": "vaewatch", "reason": f"batches {version.tags.get('window', '')}"}]
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


def _chosen(here: Installation, dataset: Dataset, version: int | None) -> ModelVersion:
    if version is not None:
        return here.registry.version(dataset.name, version)
    found = place.candidate(here.registry.versions(dataset.name))
    if found is None:
        raise NotReady(f"{dataset.name} has no model yet; train one (vaewatch train {dataset.name})")
    return found


def _window(here: Installation, dataset: Dataset) -> Window:
    from pipeline.records import verdicts
    from pipeline.records.window import choose_window

    batches = list(here.ledger.current(dataset.name).values())
    return choose_window(dataset, batches, *verdicts.judged(here.ledger, dataset.name))


def _key(dataset: Dataset, window: Window, champion: ModelVersion | None) -> str:
    """Same records, same champion, same gates: same evaluation."""
    parts = [
        window.fingerprint,
        str(champion.version if champion else None),
        dataset.promote.model_dump_json(exclude={"mode"}),
        dataset.flag.model_dump_json(),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _judged(
    here: Installation,
    dataset: Dataset,
    window: Window,
    chosen: ModelVersion,
    champion: ModelVersion | None,
    *,
    serves: bool = True,
) -> tuple[Evidence, Decision]:
    """Measure and decide. serves: whether what stands in the champion's place is the champion."""
    from pipeline.evaluation import decide
    from pipeline.evaluation.measurement import measure
    from pipeline.records import holdout
    from pipeline.training import training_set

    tables, threads = here.tables(dataset), here.settings.cores
    share = min(
        dataset.promote.holdout,
        *(float(v.tags.get("holdout", 0)) for v in (chosen, champion) if v is not None),
    )
    train = dataset.train.model_copy(update={"max_records": MOST_LEARNED})
    few = dataset.model_copy(update={"train": train})
    challenger, other = _contender(here, chosen), _contender(here, champion) if champion else None
    since, days = window.after(chosen.tags.get("window", "").rpartition("..")[2])
    shadow = since if champion and dataset.promote.shadow_days else ()
    with here.scratch(dataset, "evaluate") as scratch:
        held = holdout.read(dataset, window, share, tables, newest=shadow, scratch=scratch, threads=threads)
        learned = training_set.read_window(few, window, tables, scratch=scratch, threads=threads).table
        seed = _another_seed(here, dataset, window)
    evidence = measure(
        dataset,
        held,
        challenger,
        other,
        batches=(window.batch_ids[0], window.batch_ids[-1]),
        at=datetime.now(UTC),
        learned=learned if share and dataset.promote.gates.baselines.level != "off" else None,
        other_seed=seed,
        shadow_days=days if shadow else 0.0,
        changed=_changed(here, chosen, champion) if champion else None,
        serves=serves,
    )
    return evidence, decide(evidence, dataset.promote.gates, shadow_days=dataset.promote.shadow_days)


def _changed(here: Installation, chosen: ModelVersion, champion: ModelVersion) -> dict[str, tuple[str, str]]:
    """Settings that are not the champion's; none where they were not noted."""
    from pipeline.training import provenance

    try:
        now, was = (here.registry.note(chosen.dataset, one.version)[1] for one in (chosen, champion))
    except ModelUnusable:
        return {}
    return provenance.settings_between(was["settings"], now["settings"])


def _contender(here: Installation, version: ModelVersion) -> Contender:
    from pipeline.evaluation.measurement import Contender

    n_learned = sum(int(version.metrics.get(name, 0)) for name in ("n_training", "n_calibrating"))
    return Contender(here.detector(version), version.version, n_learned)


def _another_seed(here: Installation, dataset: Dataset, window: Window) -> Detector | None:
    """The same training from another start, where the gate asks for it."""
    if dataset.promote.gates.seed_variance.level == "off":
        return None
    from pipeline.training import experiment

    train = dataset.train.model_copy(update={"seed": dataset.train.seed + 1})
    other = dataset.model_copy(update={"train": train})
    tables, threads = here.tables(dataset), here.settings.cores
    with here.scratch(dataset, "seed") as scratch:
        return experiment.fit(other, window, tables, scratch, scratch / "checkpoints", threads, None).trained


def _tags(evidence: Evidence, decision: Decision) -> dict[str, str]:
    one = evidence.challenger
    held = {"n": evidence.n_holdout, "recall": one.recall, "negative_elbo": one.negative_elbo}
    return {
        "evaluated_holdout": json.dumps({name: value for name, value in held.items() if value is not None}),
        "decision": decision.outcome,
        "decision_reason": decision.sentence,
        "decision_notes": json.dumps(decision.notes),
        "evaluated_against": str(decision.against) if evidence.champion else "",
        "evaluated_at": evidence.measured_at,
    }
