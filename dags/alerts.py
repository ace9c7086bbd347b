"""What happens when a deadline passes. It runs in an executor slot of its own, named by its dotted path."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("vaewatch.alerts")


def training_late(context: dict[str, Any], dataset: str, hours: float) -> None:
    """Log that a training is still not done."""
    run_id = (context.get("dag_run") or {}).get("dag_run_id", "?")
    log.error(
        "%s: training run %s is not done after %g h; the champion serves on. Look at the run's log and at the pool "
        "'gpu'; `vaewatch status %s` says how old the champion is",
        dataset,
        run_id,
        hours,
        dataset,
    )
