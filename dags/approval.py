"""A question to a person whose answer is handed on, yes or no.

Belongs here: the operator, which DAG files import only where it is used. Does not: what is asked, or what follows (vaewatch.py).
"""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator


class Approval(ApprovalOperator):
    """Airflow's approval. On a rejection that one skips what follows, and who rejected, and why, is never returned."""

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """The answer: chosen_options, params_input, responded_at, responded_by_user (None where time was up)."""
        return super(ApprovalOperator, self).execute_complete(context, event)
