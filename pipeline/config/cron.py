"""When something is done again and again, as cron writes it.

Belongs here: the type of such a setting. Does not: which settings there are (dataset.py, training.py), or
doing it (dags/).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

NIGHTLY, OFTEN, WEEKLY = "0 2 * * *", "*/5 * * * *", "0 5 * * 0"


def _is_cron(schedule: str) -> str:
    if schedule in {NIGHTLY, OFTEN, WEEKLY}:  # so that most datasets are read without croniter
        return schedule
    from croniter import croniter  # what Airflow reads it with

    if not croniter.is_valid(schedule):
        raise ValueError(
            f"{schedule!r} is not a cron schedule: write minute, hour, day, month and weekday, like '{NIGHTLY}' for every "
            "night at two, UTC"
        )
    return schedule


Cron = Annotated[str, AfterValidator(_is_cron)]
