"""A question to a person whose answer, yes or no, is handed on.

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
    """Airflow's approval, except that a rejection goes on to the next task, with who rejected and why."""

    TASK = "approve"

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Return chosen_options, params_input, responded_at and responded_by_user (None: nobody answered)."""
        return super(ApprovalOperator, self).execute_complete(context, event)


ENDED = {"success", "failed", "skipped", "removed", "upstream_failed"}


@dataclass(frozen=True)
class Question:
    """What a run asks and nobody has answered yet."""

    version: int
    run_id: str

    @property
    def warning(self) -> str:
        """In Markdown, for whoever is asked about another version meanwhile."""
        return (
            f"The question about version {self.version} is **still open** (run `{self.run_id}`). That version is not the challenger any "
            "more: an approval there promotes nothing. Reject it there, or let its time run out."
        )


def open_questions(ti: Any, dataset: str) -> dict[int, Question]:
    """Return what other runs ask about a dataset and nobody has answered, in the order of the versions."""
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
    """Record that this run asks about a version from now on; keep those of the others that are still open."""
    asks: dict[int | None, str] = {question.version: question.run_id for question in others.values()}
    asks[version] = ti.run_id
    told = "the run that asks about each version that is not answered yet"
    Variable.set(_name(dataset), asks, description=told, serialize_json=True)


def _name(dataset: str) -> str:
    return f"vaewatch.{dataset}.questions"
