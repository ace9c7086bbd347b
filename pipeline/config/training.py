"""What a person may say of a dataset's training: when, on what, and by which recipe.

Belongs here: the settings and their bounds. Does not: what a setting of the recipe means, or which values it
takes (vae_core/recipe.py).
"""

from __future__ import annotations

import difflib
from contextlib import suppress
from datetime import date
from typing import Any

from pydantic import Field, field_validator

from pipeline import batch_keys
from pipeline.config.columns import Strict
from pipeline.config.cron import NIGHTLY, Cron

RECIPE = (  # vae_core.Recipe's, repeated because importing that takes torch; a test holds them equal
    "n_members", "width", "n_latents", "encoder", "posterior", "prior", "n_components", "noise", "column_noise", "sigma",
    "sigma_floor", "step_floor", "category_floor", "hidden_categories", "regulariser", "distance_weight", "reconstruction",
    "adversarial_weight", "kl_weight", "kl_warm_up", "kl_cycles", "free_nats", "samples", "steps", "minibatch", "learning_rate", "warm_up",
    "final_learning_rate", "gradient_clip", "trim", "trim_after", "known_margin", "weight_spread", "linear_records",
    "linear_trim", "recurring_share", "critic_steps",
)  # fmt: skip
# those whose values are words; all others but column_noise are numbers
IN_WORDS = {"encoder", "posterior", "prior", "noise", "regulariser", "reconstruction"}


class TrainingWhen(Strict):
    """When a night is worth a training: any one of these is enough; none given, every night is."""

    new_records: int | None = Field(None, ge=1, description="accepted since the newest version's window")
    new_share: float | None = Field(None, gt=0, description="the same, as a share of that window's records")
    new_verdicts: int | None = Field(None, ge=1, description="records judged otherwise than it has learned")
    age_days: float | None = Field(None, gt=0, description="of the newest version")
    drift: bool = Field(False, description="a batch since then has drifted, as monitoring tells it")


class Training(Strict):
    """When to retrain, on what, and how."""

    schedule: Cron = Field(NIGHTLY, description="cron, UTC")
    window_days: float = Field(30, gt=0, description="batches of the newest n days are learned from")
    leave_out: list[str] = Field(
        default_factory=list,
        description="batches that nothing is learned from, each a batch_id or first..last",
    )
    min_records: int = Field(1000, ge=50, description="no training below this many accepted records")
    max_records: int = Field(
        200_000, ge=50, description="sampled down to this many, the same ones every time"
    )
    calibration: float = Field(
        0.2, gt=0, lt=1, description="newest share of the window, kept from the first fit, to calibrate on"
    )
    seed: int = Field(7, ge=0)
    deadline_hours: float = Field(
        4, gt=0, description="a training still running after n hours raises an alert"
    )
    when: TrainingWhen = TrainingWhen()
    recipe: dict[str, float | int | str | dict[str, str] | None] = Field(
        default_factory=dict, description="overrides of vae_core's recipe, e.g. steps, trim, kl_weight"
    )

    @field_validator("leave_out", mode="before")
    @classmethod
    def _days_are_names(cls, keys: Any) -> Any:
        """Take what YAML reads as a date for the name that was written."""
        if not isinstance(keys, list):
            return keys
        return [key.isoformat() if type(key) is date else key for key in keys]

    @field_validator("leave_out")
    @classmethod
    def _ranges_hold_something(cls, keys: list[str]) -> list[str]:
        if faults := [fault for key in keys if (fault := batch_keys.fault(key))]:
            raise ValueError("; ".join(faults))
        return keys

    def leaves_out(self, batch_id: str) -> bool:
        """Return whether nothing is learned from a batch."""
        return any(batch_keys.names(key, batch_id) for key in self.leave_out)

    @field_validator("recipe")
    @classmethod
    def _known_settings(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        faults, read = [], dict(recipe)
        for setting, value in recipe.items():
            if setting not in RECIPE:
                near = difflib.get_close_matches(setting, RECIPE, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(RECIPE)}"
                faults.append(f"unknown setting {setting!r}; {hint}")
            elif isinstance(value, str) and setting not in {*IN_WORDS, "column_noise"}:
                read[setting] = _number(value)
                if read[setting] is None:
                    faults.append(f"{setting} must be a number, is {value!r}")
        if faults:
            raise ValueError("; ".join(faults))
        return read


def _number(text: str) -> int | float | None:
    """Return the number that a text spells, an integer if it is whole; None if it is none.

    YAML 1.1 reads 1e-3 and 1e3, without a point, as text.
    """
    with suppress(ValueError):
        value = float(text)
        return int(value) if value.is_integer() else value
    return None
