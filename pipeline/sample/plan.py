"""What to generate, and what goes wrong on which day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

RANDOM_STREAMS = ("cards", "midnight", "records", "bad_rows", "drift")
HOSTILE = ("schema_drift", "truncated", "bad_rows", "lost_column", "empty")
DRIFTS = {  # what drifts -> the columns that move, or that no longer go together
    "slower": ("authorisation_ms",),
    "unmeasured": ("distance_km",),
    "other_mix": ("channel",),
    "decoupled": ("credit_limit", "monthly_spend"),
}
NOT_SCORED = ("truncated", "lost_column", "empty")


@dataclass(frozen=True)
class SamplePlan:
    """What to generate; equal plans give equal bytes."""

    days: int = 40
    records_per_day: int = 5000
    start: date = date(2026, 1, 1)
    seed: int = 7
    anomaly_share: float = 0.004
    hostile: bool = True
    drift: bool = False

    def __post_init__(self) -> None:
        """Refuse what can't be generated, with every fault in one message."""
        faults = [f"{x} must be at least 1" for x in ("days", "records_per_day") if getattr(self, x) < 1]
        if not 0 <= self.anomaly_share <= 0.2:
            faults.append(f"anomaly_share must be in [0, 0.2], is {self.anomaly_share}")
        if self.seed < 0:
            faults.append(f"seed must not be negative, is {self.seed}")
        if self.hostile and (self.days < 12 or self.records_per_day < 100):
            faults.append("hostile days need 12 days of 100 records; else set hostile to false")
        if self.drift and self.days < 36:
            faults.append("drift needs 36 days: the first two thirds, which a model learns from, have none")
        if faults:
            raise ValueError("sample plan: " + "; ".join(faults))

    def batch_id(self, day: int) -> str:
        """Return the name of a day's batch: its date."""
        return (self.start + timedelta(days=day)).isoformat()

    def hostile_days(self) -> dict[str, int]:
        """Return what goes wrong -> on which day, all different; empty for a friendly plan."""
        stride = max(1, (self.days // 3 - 1) // len(HOSTILE))
        first = self.days - 1 - stride * len(HOSTILE)
        return {name: first + stride * i for i, name in enumerate(HOSTILE)} if self.hostile else {}

    def drift_days(self) -> dict[str, int]:
        """Return what drifts -> on which day, all different and none hostile; empty without drift."""
        hostile = set(self.hostile_days().values())
        free = [day for day in range(self.days - self.days // 3, self.days) if day not in hostile]
        return (
            {name: free[i * len(free) // len(DRIFTS)] for i, name in enumerate(DRIFTS)} if self.drift else {}
        )

    def rng(self, stream: str, *place: int) -> np.random.Generator:
        """Return the random numbers of one stream at one place; no two share any."""
        return np.random.default_rng([self.seed, RANDOM_STREAMS.index(stream), *place])


DEFAULT_PLAN = SamplePlan()
