"""A question to a person whose answer is handed on, yes or no.

Belongs here: the operator, which DAG files import only where it is used, and that nothing is asked twice at
once. Does not: what is asked, or what follows (models.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Variable


class Approval(ApprovalOperator):
    """Airflow's approval. On a rejection that one skips what follows, and who rejected, and why, is never
    returned.
    """

    TASK = "approve"

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """The answer: chosen_options, params_input, responded_at, responded_by_user (None where time was
        up).
        """
        return super(ApprovalOperator, self).execute_complete(context, event)


ENDED = {"success", "failed", "skipped", "removed", "upstream_failed"}


@dataclass(frozen=True)
class Question:
    """What a run asks, and has no answer to yet."""

    version: int
    run_id: str

    @property
    def warning(self) -> str:
        """For who is asked about another version meanwhile, in Markdown."""
        return (
            f"The question about version {self.version} is **still open** (run `{self.run_id}`). That version is not the challenger any "
            "more: an approval there promotes nothing. Reject it there, or let its time run out."
        )


def open_questions(ti: Any, dataset: str) -> dict[int, Question]:
    """What other runs ask of a dataset and nobody has answered, by version: the oldest first."""
    known = {
        int(version): Question(int(version), run_id)
        for version, run_id in Variable.get(_name(dataset), default={}, deserialize_json=True).items()
        if run_id != ti.run_id
    }
    if not known:
        return {}
    run_ids = [question.run_id for question in known.values()]
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[Approval.TASK], run_ids=run_ids)
    return {
        version: question
        for version, question in sorted(known.items())
        if (tasks := states.get(question.run_id)) and tasks.get(Approval.TASK) not in ENDED
    }


def remember(ti: Any, dataset: str, version: int | None, others: Mapping[int, Question]) -> None:
    """From now on it is this run that asks about a version; of the others those that are still open are
    kept.
    """
    asks: dict[int | None, str] = {question.version: question.run_id for question in others.values()}
    asks[version] = ti.run_id
    told = "run that asks, by version, as far as it is not answered"
    Variable.set(_name(dataset), asks, description=told, serialize_json=True)


def _name(dataset: str) -> str:
    return f"vaewatch.{dataset}.questions"
