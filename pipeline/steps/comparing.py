"""Two versions measured on records that neither has learned, and what the gates decide.

Belongs here: which records and which models are measured. Does not: measuring and deciding (evaluation/), or
keeping the result and acting on it (evaluating.py): nothing is kept here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.contracts import contract_hash
from pipeline.config.dataset import Dataset
from pipeline.errors import ModelUnusable, NotReady
from pipeline.installation import Installation
from pipeline.steps.challenger import candidate

if TYPE_CHECKING:
    from pipeline.detection.detector import Detector
    from pipeline.evaluation import Decision, Evidence
    from pipeline.evaluation.contenders import Contender, Offered
    from pipeline.evaluation.told import Told
    from pipeline.records.window import Window
    from pipeline.registry import ModelVersion

MOST_LEARNED = 8_000  # training records that are read again, for the baselines and for `learned`


@dataclass(frozen=True)
class Comparison:
    """Two versions, measured as an evaluation would.

    champion: what it is compared with; None where none serves.
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
    """Measure a version (default: an evaluation's) against another (default: the champion); keep nothing.

    Raises:
        NotReady: there is no such version, or none to compare with.
    """
    dataset = here.dataset(dataset_name)
    champion = here.registry.champion(dataset.name)
    beside = champion if other is None else here.registry.version(dataset.name, other)
    chosen = chosen_version(here, dataset, one)
    if beside and beside.version == chosen.version:
        raise NotReady(_alone(dataset, chosen, len(here.registry.versions(dataset.name))))
    serves = beside is None or (champion is not None and champion.version == beside.version)
    window = window_of(here, dataset)
    return Comparison(
        chosen, beside, *measure_and_decide(here, dataset, window, chosen, beside, serves=serves)
    )


def _alone(dataset: Dataset, chosen: ModelVersion, n_versions: int) -> str:
    """Say why there is nothing to compare a version with."""
    name, number = dataset.name, chosen.version
    if n_versions == 1:
        return (
            f"{name} has only version {number}: there is nothing to compare it with until another one is trained; "
            f"what its gates said: vaewatch versions {name} {number}"
        )
    others = f"name another one; there are {n_versions}: vaewatch versions {name}"
    return f"{name}: version {number} would be compared with itself; {others}"


def chosen_version(here: Installation, dataset: Dataset, version: int | None) -> ModelVersion:
    if version is not None:
        return here.registry.version(dataset.name, version)
    found = candidate(here.registry.versions(dataset.name))
    if found is None:
        raise NotReady(f"{dataset.name} has no model yet; train one (vaewatch train {dataset.name})")
    return found


def window_of(here: Installation, dataset: Dataset) -> Window:
    """Return the batches that a training would learn from now."""
    from pipeline.records import verdicts
    from pipeline.records.window import choose_window

    batches = list(here.ledger.current(dataset.name).values())
    return choose_window(dataset, batches, *verdicts.judged(here.ledger, dataset.name))


def measure_and_decide(
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
        offered = _offered(here, few, window, chosen, scratch) if share else None
        if offered and len(offered.batch_ids) == len(window.batches):
            learned = offered.records
        else:
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
        offered=offered,
        other_seed=seed,
        shadow_days=days if shadow else 0.0,
        changed=_changed(here, chosen, champion) if champion else None,
        serves=serves,
    )
    return evidence, decide(evidence, dataset.promote.gates, shadow_days=dataset.promote.shadow_days)


def _changed(here: Installation, chosen: ModelVersion, champion: ModelVersion) -> dict[str, tuple[str, str]]:
    """Return settings that differ from the champion's; none where they were not noted."""
    from pipeline.training import provenance

    try:
        now, was = (here.registry.note(chosen.dataset, one.version)[1] for one in (chosen, champion))
    except ModelUnusable:
        return {}
    return provenance.settings_between(was["settings"], now["settings"])


def _offered(
    here: Installation, dataset: Dataset, window: Window, chosen: ModelVersion, scratch: Path
) -> Offered | None:
    """Read what a version's training read of this window's batches, as they were delivered then.

    None where the gate is off, where that is not on record, or not there any more.
    """
    if dataset.promote.gates.learned.level == "off":
        return None
    from pipeline.evaluation.contenders import Offered
    from pipeline.training import provenance, training_set

    try:
        then = provenance.Note.of(here.registry.note(dataset.name, chosen.version)[1])
        contract = contract_hash(then.dataset(dataset))
    except ModelUnusable:
        return None
    same, tables = window.among({batch["batch_id"] for batch in then.batches}), here.tables(dataset)
    if not same.batches:
        return None
    if provenance.changed_batches(then, here.ledger.current(dataset.name)):
        tables = replace(tables, as_of=then.records_version)
        if contract != contract_hash(dataset) or not tables.still_holds(same.batch_ids):
            return None
    read = training_set.read_window(dataset, same, tables, scratch=scratch, threads=here.settings.cores)
    return Offered(read.table, same.batch_ids)


def _contender(here: Installation, version: ModelVersion) -> Contender:
    from pipeline.evaluation.contenders import Contender

    n_learned = sum(int(version.metrics.get(name, 0)) for name in ("n_training", "n_calibrating"))
    return Contender(here.detector(version), version.version, n_learned)


def _another_seed(here: Installation, dataset: Dataset, window: Window) -> Detector | None:
    """Train the same from another seed, where the gate asks for it."""
    if dataset.promote.gates.seed_variance.level == "off":
        return None
    from pipeline.training import experiment

    train = dataset.train.model_copy(update={"seed": dataset.train.seed + 1})
    other = dataset.model_copy(update={"train": train})
    tables, threads = here.tables(dataset), here.settings.cores
    with here.scratch(dataset, "seed") as scratch:
        return experiment.fit(other, window, tables, scratch, scratch / "checkpoints", threads, None).trained
