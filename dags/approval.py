"""A question to a person whose answer, yes or no, is handed on.

Belongs here: the operator, which DAG files import only where it is used, that an answer is never lost, and
that nothing is asked twice at once. Does not: what is asked, or what follows (models.py).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from uuid import UUID

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Variable
from airflow.sdk.exceptions import AirflowRuntimeError, TaskAwaitingInput
from airflow.sdk.execution_time.hitl import get_hitl_detail_content_detail
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent


class Approval(ApprovalOperator):
    """Airflow's approval, but a rejection goes on to the next task, and a retry keeps the answer.

    An answer resumes the task under the number of the try that asked. If it comes before the scheduler has
    heard that the asking ended well (up to six seconds), Airflow 3.3.2 takes that late news for a task killed
    from outside, and tries again (apache/airflow#67287). Asking anew would wipe the answer on record.
    """

    TASK = "approve"

    def execute(self, context: Any) -> Any:
        """Ask; in a retry of Airflow's own, first look for an answer. After a person's clear, ask anew."""
        ti = context["ti"]
        if ti.try_number > ti.max_tries - (self.retries or 0) + 1:
            self.defer(trigger=Recorded(str(ti.id)), method_name=self.go_on.__name__)
        return super().execute(context)

    def go_on(self, context: Any, event: dict[str, Any]) -> Any:
        """Go on from what was found: no question, a question without an answer, or one just answered."""
        if "chosen_options" in event:
            return self.execute_complete(context, event)
        if event["asked"]:
            raise TaskAwaitingInput(method_name="execute_complete", timeout=self.response_timeout)
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Return chosen_options, params_input, responded_at and responded_by_user (None: nobody answered)."""
        return super(ApprovalOperator, self).execute_complete(context, event)

    @classmethod
    def answer(cls, ti: Any) -> dict[str, Any]:
        """Return what execute_complete returned, in a task that follows."""
        found = ti.xcom_pull(task_ids=cls.TASK)
        # what a trigger leaves is encoded twice by Airflow 3.3.2
        answer: dict[str, Any] = json.loads(found) if isinstance(found, str) else found
        return answer


class Recorded(BaseTrigger):
    """Ends an approval with the answer that is on record, without a worker: a resumed task could fail again.

    Without one it says whether the question was asked at all. Workers cannot read answers, the triggerer can.
    """

    def __init__(self, ti_id: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ti_id = ti_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class by name, and its arguments."""
        return "dags.approval.Recorded", {"ti_id": self.ti_id}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event."""
        try:
            found = await asyncio.to_thread(get_hitl_detail_content_detail, UUID(self.ti_id))
        except AirflowRuntimeError as fault:
            if (fault.error.detail or {}).get("status_code") != HTTPStatus.NOT_FOUND:
                raise
            yield TriggerEvent({"asked": False})  # type: ignore[no-untyped-call]
            return
        if found.response_received:
            answer = found.model_dump(mode="json", exclude={"response_received", "type"})
            yield TaskSuccessEvent(xcoms={"return_value": answer})
        else:
            yield TriggerEvent({"asked": True})  # type: ignore[no-untyped-call]


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
