"""Records that one of two model versions flags and the other does not, as the challenger's evaluation kept
them.

Belongs here: which version's evidence is shown, and where its shadow stands. Does not: measuring
(evaluation/), or when a version is judged (steps/judging.py). Nothing is scored here: what is shown is as old
as the evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pipeline.config import Dataset
from pipeline.evaluation.decision import OUTCOME
from pipeline.installation import Installation
from pipeline.review import queue
from pipeline.verdicts import anomaly_id

if TYPE_CHECKING:
    from pipeline.registry import ModelVersion


@dataclass(frozen=True)
class Disagreement:
    """One record that one of the two alone flags.

    Attributes:
        flagged_by: the version that does.
        score, score_against: nats under the judged version, and under the one that it was measured beside,
            each in its own; None where the evaluation did not keep them.
        p_value, p_value_against: the same two, comparable.
        state: what verdicts come to; None where the record is not in the queue.
    """

    anomaly_id: str
    batch_id: str
    record_key: str
    flagged_by: int
    score: float | None
    score_against: float | None
    p_value: float
    p_value_against: float
    state: str | None


@dataclass(frozen=True)
class Shadow:
    """How long a challenger was measured beside the champion, in days of batches that landed after its
    training.

    Attributes:
        after: the last batch that it learned from.
        days, asked, left: so far, by `promote.shadow_days` as it is now, and from here on.
    """

    trained_at: datetime
    after: str
    days: float
    asked: float
    left: float


@dataclass(frozen=True)
class Measured:
    """What an evaluation says of two versions' flags.

    Attributes:
        against: the champion of that time. champion: the one of now.
        n_records, either, differ: records of the newest days; those that one or both flag; those that one
            alone flags.
        threshold, threshold_against: the score that each version flags above, nats; None where it was not
            kept.
        records: the most severe that one alone flags.
        shadow: None where none runs.
        in_shadow: the records are of batches that landed after its training.
    """

    version: int
    aliases: tuple[str, ...]
    against: int
    champion: int | None
    evaluated_at: datetime
    outcome: str
    last_batch: str
    n_records: int
    either: int
    differ: int
    threshold: float | None
    threshold_against: float | None
    records: tuple[Disagreement, ...]
    shadow: Shadow | None
    in_shadow: bool

    @property
    def share(self) -> float | None:
        return self.differ / self.either if self.either else None


@dataclass(frozen=True)
class Found:
    """What is known of a dataset; where nothing is, why, and the command that would change it."""

    measured: Measured | None = None
    why_not: str = ""
    command: str = ""


def newest(here: Installation, dataset: Dataset) -> Found:
    """Of the challenger, or where there is none of the version that was judged last.

    Raises:
        RegistryUnreachable, StorageFailed: a retry may help.
    """
    name, versions = dataset.dataset, here.registry.versions(dataset.dataset)
    if not versions:
        return Found(None, "no model version is registered yet", f"vaewatch train {name}")
    challenger = next((one for one in versions if "challenger" in one.aliases), None)
    if challenger and "decision" not in challenger.tags:
        why = f"version {challenger.version}, the challenger, was not evaluated yet"
        return Found(None, why, f"vaewatch evaluate {name}")
    judged = [one for one in versions if one.tags.get("evaluated_against")]
    chosen = challenger or max(judged, key=lambda one: one.tags["evaluated_at"], default=None)
    if chosen is None:
        why = "no version was measured beside another yet; train a second one, then evaluate it"
        return Found(None, why, f"vaewatch train {name} && vaewatch evaluate {name}")
    kept = here.registry.evaluation(chosen)
    if kept is None:
        anew = f"vaewatch compare {name} {chosen.version} {chosen.tags.get('evaluated_against', '')}".rstrip()
        return Found(None, f"the evidence of version {chosen.version} is gone; it can be measured anew", anew)
    evidence = kept["evidence"]
    if not evidence.get("churn"):
        why = evidence.get("incomparable") or "no other version served"
        said = f"version {chosen.version} was measured alone ({why}); what the gates said of it"
        return Found(None, said, f"vaewatch versions {name}")
    champion = next((one.version for one in versions if "champion" in one.aliases), None)
    return Found(_measured(here, dataset, chosen, champion, evidence))


def _measured(
    here: Installation,
    dataset: Dataset,
    version: ModelVersion,
    champion: int | None,
    evidence: Mapping[str, Any],
) -> Measured:
    churn, against = evidence["churn"], int(evidence["champion"]["version"])
    decision, days = version.tags["decision"], float(evidence.get("shadow_days", 0))
    runs = decision == "wait" and "challenger" in version.aliases
    asked = dataset.promote.shadow_days
    after = version.tags.get("window", "").rpartition("..")[2]
    shadow = Shadow(version.created_at, after, days, asked, max(0.0, asked - days)) if runs else None
    return Measured(
        version=version.version,
        aliases=version.aliases,
        against=against,
        champion=champion,
        evaluated_at=datetime.fromisoformat(evidence["measured_at"]),
        outcome=OUTCOME.get(decision, decision),
        last_batch=evidence["last_batch"],
        n_records=evidence["n_newest"],
        either=churn["either"],
        differ=churn["differ"],
        threshold=churn.get("threshold"),
        threshold_against=churn.get("threshold_champion"),
        records=_records(here, dataset.dataset, churn["examples"], version.version, against),
        shadow=shadow,
        in_shadow=days > 0,
    )


def _records(
    here: Installation, dataset: str, examples: Sequence[Mapping[str, Any]], version: int, against: int
) -> tuple[Disagreement, ...]:
    names = [anomaly_id(dataset, one["batch_id"], str(one["record_key"])) for one in examples]
    states = queue.states(here.ledger, names)
    return tuple(
        Disagreement(
            anomaly_id=name,
            batch_id=one["batch_id"],
            record_key=str(one["record_key"]),
            flagged_by=version if one["by"] == "challenger" else against,
            score=one.get("score"),
            score_against=one.get("score_champion"),
            p_value=one["p_value"],
            p_value_against=one["p_value_champion"],
            state=states.get(name),
        )
        for name, one in zip(names, examples, strict=True)
    )
