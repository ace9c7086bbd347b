"""A question to a person whose answer is handed on, yes or no.

Belongs here: the operator, which DAG files import only where it is used, and that nothing is asked twice at once. Does not: what is
asked, or what follows (models.py).
"""

from __future__ import annotations

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


def asked_already(ti: Any, dataset: str, version: int | None) -> str | None:
    """The other run that asks the same and still waits for an answer; None where there is none, and from now on it is this run."""
    name, asks = f"vaewatch.{dataset}.asked", {"version": version, "run_id": ti.run_id}
    known = Variable.get(name, default={}, deserialize_json=True)
    if known.get("version") == version and known["run_id"] != ti.run_id:
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[Approval.TASK], run_ids=[known["run_id"]])
        tasks = states.get(known["run_id"], {})
        if tasks and tasks.get(Approval.TASK) not in ENDED:
            return str(known["run_id"])
    Variable.set(name, asks, description="the question that is open or was the last", serialize_json=True)
    return None
