"""What is logged when a deadline passes."""

import pytest
from airflow.sdk.module_loading import import_string


def test_a_late_training_is_named_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    """Airflow finds the function by this dotted name, and hands it the run as a plain dictionary."""
    import_string("dags.alerts.training_late")(
        {"dag_run": {"dag_run_id": "nightly"}}, dataset="orders", hours=4.0
    )
    assert caplog.messages[0].startswith("orders: training run nightly is not done after 4 h")
    assert "`vaewatch status orders`" in caplog.text
