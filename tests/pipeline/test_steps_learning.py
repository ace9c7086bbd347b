"""The progress that the step train reports where nobody draws a bar."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.dataset import Dataset
from pipeline.steps.learning import follow
from vae_core import Progress

CALIBRATING = "calibrating, by records that it has not learned"
CRITIC = (
    "learning to tell which cell of a record is wrong, for the reasons; this takes about as long as a fit"
)


def dataset(**recipe: Any) -> Dataset:
    return Dataset.model_validate({
        "dataset": "payments",
        "incoming": {"path": "incoming"},
        "columns": {"amount": {"type": "float", "role": "numeric"}},
        "train": {"recipe": recipe},
    })


def steps(n: int) -> list[Progress]:
    """A fit of n steps, as it is looked at: every 25 and after the last."""
    looks = [*range(25, n, 25), n]
    return [Progress(step, n, 3.14159, 3.0, 0.1, 9.5, 0.001) for step in looks]


def test_each_fifth_of_a_fit_is_said_once_and_the_second_fit_by_its_name() -> None:
    """Minutes of silence in a task's log look like a task that hangs."""
    said: list[str] = []
    tell = follow(dataset(), said.append, None)
    for progress in [*steps(1010), *steps(1010)]:
        tell(progress)
    assert len(said) == 12
    assert said[0] == "trained 225 of 1,010 steps, loss 3.14 nats a record"
    assert said[4] == "trained 1,010 of 1,010 steps, loss 3.14 nats a record"
    assert said[5] == CALIBRATING
    assert said[6].startswith("trained again, with the records for calibration: 225 of 1,010 steps")


def test_a_fit_of_few_steps_is_said_when_it_ends() -> None:
    """One look, one line, and one more for the second fit."""
    said: list[str] = []
    tell = follow(dataset(), said.append, None)
    for progress in [*steps(20), *steps(20)]:
        tell(progress)
    assert said == [
        "trained 20 of 20 steps, loss 3.14 nats a record",
        CALIBRATING,
        "trained again, with the records for calibration: 20 of 20 steps, loss 3.14 nats a record",
        CRITIC,
    ]


@pytest.mark.parametrize(
    ("recipe", "said_after"), [({}, [CALIBRATING, CRITIC]), ({"critic_steps": 0}, [CALIBRATING])]
)
def test_what_comes_after_the_fits_is_said_beside_a_bar_too(
    recipe: dict[str, Any], said_after: list[str]
) -> None:
    """The critic takes as long as a fit, and the bar stands still meanwhile."""
    said: list[str] = []
    shown: list[Progress] = []
    tell = follow(dataset(**recipe), said.append, shown.append)
    for progress in (both := [*steps(100), *steps(100)]):
        tell(progress)
    assert (shown, said) == (both, said_after)
