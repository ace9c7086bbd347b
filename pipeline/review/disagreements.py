"""Records that only one of two model versions flags, as the challenger's evaluation kept them.

Belongs here: which version's evidence is shown, and where its shadow stands. Does not: measuring
(evaluation/), or when a version is judged (steps/evaluating.py). Nothing is scored here: what is shown is as
old as the evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pipeline.config.dataset import Dataset
from pipeline.evaluation.decision import OUTCOME
from pipeline.installation import Installation
from pipeline.records.verdicts import State, anomaly_id, name_of
from pipeline.review import queue
from pipeline.review.queued import Reason

if TYPE_CHECKING:
    from pipeline.registry import ModelVersion


@dataclass(frozen=True)
class Disagreement:
    """A record that one of two versions alone flags: its score under each, in that version's own nats."""

    anomaly_id: str
    batch_id: str
    record_key: str
    row_number: Annotated[int | None, Field(description="position in the delivery; null: not kept")]
    flagged_by: Annotated[int, Field(description="model version")]
    score: Annotated[float | None, Field(description="nats, under the judged version; null: not kept")]
    score_against: Annotated[
        float | None,
        Field(description="nats, under the version that it was measured beside; null: not kept"),
    ]
    p_value: Annotated[float, Field(description="under the judged version")]
    p_value_against: Annotated[float, Field(description="under the version that it was measured beside")]
    reasons: Annotated[
        tuple[Reason, ...] | None, Field(description="of the version that flags it; null: not kept")
    ]
    state: Annotated[State | None, Field(description="null: not in the queue")]

    @property
    def name(self) -> str:
        """What people know it by, see `name_of`; its key where its place was not kept."""
        if self.row_number is None:
            return self.record_key
        return name_of(self.record_key, self.batch_id, self.row_number)


@dataclass(frozen=True)
class Shadow:
    """How long a challenger was measured beside the champion, in days of batches that landed after its
    training.
    """

    trained_at: datetime
    after: Annotated[str, Field(description="the last batch that was learned from")]
    days: float
    asked: Annotated[float, Field(description="by promote.shadow_days as it is now")]
    left: float


@dataclass(frozen=True)
class TwoMeasured:
    """What an evaluation says of two versions' flags."""

    version: int
    aliases: tuple[str, ...]
    against: Annotated[int, Field(description="the champion of that time")]
    champion: Annotated[int | None, Field(description="the version that serves now")]
    evaluated_at: datetime
    outcome: str
    last_batch: str
    n_records: Annotated[int, Field(description="of the newest days")]
    either: Annotated[int, Field(description="records that one or both flag")]
    differ: Annotated[int, Field(description="records that one alone flags")]
    threshold: Annotated[
        float | None, Field(description="score that the judged version flags above, nats; null: not kept")
    ]
    threshold_against: Annotated[float | None, Field(description="the same of the other version")]
    records: Annotated[tuple[Disagreement, ...], Field(description="the most severe of these")]
    shadow: Annotated[Shadow | None, Field(description="null: none runs")]
    in_shadow: Annotated[bool, Field(description="the records are of batches that landed after the training")]

    @property
    def share(self) -> float | None:
        return self.differ / self.either if self.either else None


@dataclass(frozen=True)
class TwoVersions:
    """Where two versions disagree; where nothing is known, why, and a command that changes it."""

    measured: TwoMeasured | None
    why_not: str
    command: str


def newest(here: Installation, dataset: Dataset) -> TwoVersions:
    """Return the disagreements of the challenger, or if there is none, of the version that was judged last.

    Raises:
        RegistryUnreachable, StorageFailed: a retry may help.
    """
    name, versions = dataset.name, here.registry.versions(dataset.name)
    if not versions:
        return TwoVersions(None, "no model version is registered yet", f"vaewatch train {name}")
    challenger = next((one for one in versions if "challenger" in one.aliases), None)
    if challenger and "decision" not in challenger.tags:
        why = f"version {challenger.version}, the challenger, was not evaluated yet"
        return TwoVersions(None, why, f"vaewatch evaluate {name}")
    judged = [one for one in versions if one.tags.get("evaluated_against")]
    chosen = challenger or max(judged, key=lambda one: one.tags["evaluated_at"], default=None)
    if chosen is None:
        why = "no version was measured beside another yet; train a second one, then evaluate it"
        return TwoVersions(None, why, f"vaewatch train {name} && vaewatch evaluate {name}")
    kept = here.registry.evaluation(chosen)
    if kept is None:
        anew = f"vaewatch compare {name} {chosen.version} {chosen.tags.get('evaluated_against', '')}".rstrip()
        return TwoVersions(
            None, f"the evidence of version {chosen.version} is gone; it can be measured anew", anew
        )
    evidence = kept["evidence"]
    if not evidence.get("churn"):
        why = evidence.get("incomparable") or "no other version served"
        said = f"version {chosen.version} was measured alone ({why}); what the gates said of it"
        return TwoVersions(None, said, f"vaewatch versions {name}")
    champion = next((one.version for one in versions if "champion" in one.aliases), None)
    return TwoVersions(_measured(here, dataset, chosen, champion, evidence), "", "")


def _measured(
    here: Installation,
    dataset: Dataset,
    version: ModelVersion,
    champion: int | None,
    evidence: Mapping[str, Any],
) -> TwoMeasured:
    churn, against = evidence["churn"], int(evidence["champion"]["version"])
    decision, days = version.tags["decision"], float(evidence.get("shadow_days", 0))
    runs = decision == "wait" and "challenger" in version.aliases
    asked = dataset.promote.shadow_days
    after = version.tags.get("window", "").rpartition("..")[2]
    shadow = Shadow(version.created_at, after, days, asked, max(0.0, asked - days)) if runs else None
    return TwoMeasured(
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
        records=_records(here, dataset.name, churn["examples"], version.version, against),
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
            row_number=one.get("row_number"),
            flagged_by=version if one["by"] == "challenger" else against,
            score=one.get("score"),
            score_against=one.get("score_champion"),
            p_value=one["p_value"],
            p_value_against=one["p_value_champion"],
            reasons=tuple(Reason(**why) for why in one["reasons"]) if "reasons" in one else None,
            state=states.get(name),
        )
        for name, one in zip(names, examples, strict=True)
    )
