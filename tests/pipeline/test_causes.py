"""What a refusal is put down to where the records themselves say it: no curve has to be looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.dataset import Dataset
from pipeline.config.gates import Gates
from pipeline.detection.features import Features
from pipeline.evaluation import Difference, Excess, decide
from pipeline.evaluation.measurement import constant, far

from .evidence_data import evidence_of

SENSORS = Dataset.model_validate({
    "dataset": "orders",
    "incoming": {"path": "."},
    "columns": {
        "level": {"type": "float", "role": "numeric"},
        "flow": {"type": "float", "role": "numeric"},
        "mode": {"type": "string", "role": "categorical"},
    },
})
N = 400


def readings(seed: int = 1, **given: Any) -> pa.Table:
    random = np.random.default_rng(seed)
    usual = {
        "level": random.normal(700, 10, N),
        "flow": random.lognormal(3, 1, N),
        "mode": random.choice(["a", "b"], N).tolist(),
    }
    return pa.table(usual | given)


def learned(**given: Any) -> Features:
    return Features.fit(SENSORS, readings(**given))


def test_columns_that_do_not_vary_any_more_are_known_by_what_the_champion_learned() -> None:
    """One that never varied is no news; without a champion it takes half of all to break a model."""
    stuck = learned(level=np.full(N, 700.0), mode=["a"] * N)
    assert constant(stuck, learned()) == ("level", "mode")
    assert constant(stuck, learned(level=np.full(N, 650.0))) == ("mode",)
    assert constant(learned(seed=2), learned()) == ()
    assert constant(stuck, None) == ("level", "mode")
    assert constant(learned(level=np.full(N, 700.0)), None) == ()
    missing = learned(level=np.full(N, np.nan))
    assert constant(missing, learned()) == ("level",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, ()),
        ({"level": np.random.default_rng(3).normal(700, 10, N) * 1000}, ("level",)),
        ({"level": np.random.default_rng(3).normal(760, 10, N)}, ()),  # another regime, not another scale
        ({"flow": np.where(np.arange(N) < N // 3, 1e12, 20.0)}, ()),  # not most of them
        ({"flow": np.where(np.arange(N) < N // 2, -1e12, 20.0)}, ("flow",)),
        ({"level": np.full(N, np.nan)}, ()),
        ({"flow": np.full(N, np.inf)}, ("flow",)),
    ],
)
def test_columns_of_another_scale_are_those_far_outside_of_what_the_champion_learned(
    given: dict[str, Any], said: tuple[str, ...]
) -> None:
    assert far(readings(2, **given), learned()) == said


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (
            {"constant": ("level", "mode")},
            "columns do not vary in the records that it learned, and varied when the champion learned: level, mode; look at",
        ),
        (
            {"far": ("a", "b", "c", "d")},
            "most values of the newest days lie far outside of all that the champion learned: a, b, c and 1 more; look whether",
        ),
        (
            {"learned": Excess(0.31, 8000, 1000)},
            "it learned many odd ones, at least 26% of its records: their values go together as in no record held out",
        ),
    ],
)
def test_what_the_records_say_comes_before_what_the_training_may_have_been(
    seen: dict[str, Any], words: str
) -> None:
    """Neither more steps nor a look at curves would mend it."""
    usual = evidence_of(recall=0.1)
    less = {"recall": Difference(-0.5, 0.01, 900), "recall of shifted": Difference(0.0, 0.01, 900)}
    refused = replace(usual, changed={}, differences={**usual.differences, **less})
    assert decide(refused, Gates()).outcome == "refuse"
    assert not decide(refused, Gates()).cause.startswith(words)
    assert decide(replace(refused, **seen), Gates()).cause.startswith(words)


def test_no_setting_explains_records_that_are_not_those_held_out() -> None:
    """Settings that differ are named first but there."""
    settings = evidence_of()
    assert settings.changed
    odd = replace(settings, learned=Excess(0.31, 8000, 1000))
    assert decide(odd, Gates()).cause.startswith("it learned many odd ones")


def test_a_first_version_of_columns_that_do_not_vary_says_so() -> None:
    """Nobody can be held beside it, and its training did what it could."""
    first = evidence_of(against=None)
    broken = replace(first, challenger=replace(first.challenger, distinct=0.0))
    assert decide(broken, Gates()).cause.startswith("training broke down")
    cause = decide(replace(broken, constant=("level",)), Gates()).cause
    assert cause.startswith(
        "columns do not vary in the records that it learned: level; look at what the source delivers"
    )
