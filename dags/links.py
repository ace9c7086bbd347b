"""Links beside a task in Airflow's pages: to reports, records to review, and the model version in MLflow.

Belongs here: addresses, and handing them to Airflow. Does not: the pages (the review page serves them,
review_plugin.py). A link's address is known when the task has run: the task shows it, and Airflow keeps it
with the task's other results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from airflow.sdk import BaseOperatorLink

from dags.review_plugin import PREFIX

if TYPE_CHECKING:
    from pipeline.steps.receipts import Receipt, Trained


class Link(BaseOperatorLink):
    """A link whose address the task gives; a task that gives none has no link."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def xcom_key(self) -> str:
        return f"_link_{self._name.lower().replace(' ', '_')}"

    def show(self, address: str | None) -> None:
        """Set the address that the link has for the running task."""
        from airflow.sdk import get_current_context

        if address:
            get_current_context()["ti"].xcom_push(self.xcom_key, address)

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002  # Airflow's signature
        from airflow.sdk.execution_time.xcom import XCom

        return str(XCom.get_value(key=self.xcom_key, ti_key=ti_key) or "")


REPORT, RECORDS = Link("Batch report"), Link("Records to review")
TRAINING, VERSION = Link("Training report"), Link("Model version")


def attach(task: Any, *links: Link) -> Any:
    """Give a task its links, and return it."""
    task.operator.operator_extra_links = links
    return task


def show_checked(receipt: Receipt) -> None:
    """Link to the page of the first refused batch, else to what the contract said of the newest one."""
    if refused := receipt.with_outcome("refused"):
        REPORT.show(_report(receipt.dataset, refused[0].batch_id, "run.html"))
    elif receipt.batches:
        REPORT.show(_report(receipt.dataset, receipt.batches[-1].batch_id, "index.html"))


def show_scored(receipt: Receipt) -> None:
    """Link to the newest scored batch's page, and to its records, or the dataset's if several were scored."""
    scored = [batch for batch in receipt.batches if batch.model_version is not None]
    if scored:
        REPORT.show(_report(receipt.dataset, scored[-1].batch_id, "run.html"))
        asked = {"dataset": receipt.dataset} | ({"batch": scored[0].batch_id} if len(scored) == 1 else {})
        RECORDS.show(f"{_page()}/?{urlencode(asked)}")


def show_trained(receipt: Trained) -> None:
    """Link to the training's page, and to the version in MLflow, where MLflow has pages."""
    from pipeline.installation import Installation

    if receipt.model_version is None:
        return
    key = receipt.training_key
    TRAINING.show(f"{_page()}/training/{quote(receipt.dataset)}/{key}")
    VERSION.show(Installation().model_page(receipt.dataset, receipt.model_version))


def _report(dataset: str, batch_id: str, page: str) -> str:
    return f"{_page()}/report/{quote(dataset)}/{quote(batch_id)}/{page}"


def _page() -> str:
    """Return the address of the review page inside this Airflow."""
    from airflow.sdk.configuration import conf

    return str(conf.get("api", "base_url", fallback="")).rstrip("/") + PREFIX
