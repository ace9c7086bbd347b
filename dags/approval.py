"""A question to a person whose answer is handed on, yes or no.

Belongs here: the operator, which DAG files import only where it is used, and that nothing is asked twice at once. Does not: what is
asked, or what follows (models.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Variable


class Approval(ApprovalOperator):
    """Airflow's approval. On a rejection that one skips what follows, and who rejected, and why, is never returned."""

    TASK = "approve"

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """The answer: chosen_options, params_input, responded_at, responded_by_user (None where time was up)."""
        return super(ApprovalOperator, self).execute_complete(context, event)


ENDED = {"success", "failed", "skipped", "removed", "upstream_failed"}


@dataclass(frozen=True)
class Question:
    """What was asked last of a dataset."""

    version: int
    run_id: str

    @property
    def warning(self) -> str:
        """For who is asked about another version meanwhile, in Markdown."""
        return (
            f"The question about version {self.version} is **still open** (run `{self.run_id}`). That version is not the challenger any "
            "more: an approval there promotes nothing. Reject it there, or let its time run out."
        )


def open_question(ti: Any, dataset: str) -> Question | None:
    """The last question of another run, where it still waits for an answer."""
    known = Variable.get(_name(dataset), default={}, deserialize_json=True)
    if not known or known["run_id"] == ti.run_id:
        return None
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[Approval.TASK], run_ids=[known["run_id"]])
    tasks = states.get(known["run_id"], {})
    return Question(**known) if tasks and tasks.get(Approval.TASK) not in ENDED else None


def remember(ti: Any, dataset: str, version: int | None) -> None:
    """From now on it is this run that asks."""
    asks = {"version": version, "run_id": ti.run_id}
    told = "the question that is open or was the last"
    Variable.set(_name(dataset), asks, description=told, serialize_json=True)


def _name(dataset: str) -> str:
    return f"vaewatch.{dataset}.asked"
