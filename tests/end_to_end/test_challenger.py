"""Who is challenger, with real parts: no version before it is judged, and never a refused one."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from pipeline import steps

from .conftest import Place
from .test_promotion import LENIENT, evaluate, promote, with_gates

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's
    pytest.mark.filterwarnings("ignore::vae_core.DataWarning"),
]


def challenger(place: Place) -> int | None:
    found = place.here.registry.challenger(place.name)
    return found.version if found else None


def test_a_night_that_is_refused_leaves_the_challenger_that_waits_for_an_answer(trained: Place) -> None:
    """Whoever is asked on Friday can still say yes on Monday, whatever the nights between have trained."""
    with_gates(trained, f"{LENIENT}\n  mode: approval")
    trained.edit("steps: 60", "steps: 70")
    steps.train(trained.here, trained.name)
    assert challenger(trained) is None
    code, output, errors = trained.run("promote", trained.name, "--by", "ann", "--reason", "early")
    assert code == 2, output
    assert "version 2, the newest, was not judged yet (vaewatch evaluate payments)" in errors
    assert (evaluate(trained).alias, challenger(trained)) == ("challenger", 2)

    trained.edit("margin: 30", "margin: 0")
    trained.edit("steps: 70", "steps: 60, kl_weight: 1000")
    steps.train(trained.here, trained.name)
    assert challenger(trained) == 2
    for _ in range(2):  # again, the answer is the same
        refused = evaluate(trained)
        assert (refused.outcome, refused.model_version, refused.alias) == ("refused", 3, "")
        said = "version 2 stays challenger: it passed and waits for somebody's word"
        assert said in refused.notes
        assert challenger(trained) == 2
    assert promote(trained, 2, as_challenger=True).model_version == 2


@pytest.mark.parametrize("moment", ["log_text", "set_model_version_tag", "set_registered_model_alias"])
def test_an_evaluation_killed_between_its_parts_is_completed_by_a_repeat(trained: Place, moment: str) -> None:
    """Killed as it makes one of MLflow's requests: nobody has the place; then whoever was judged has it."""
    with_gates(trained, LENIENT)
    trained.edit("steps: 60", "steps: 70")
    steps.train(trained.here, trained.name)
    code = f"""
        import os, signal
        from mlflow import MlflowClient
        from pipeline import steps
        from pipeline.installation import Installation
        setattr(MlflowClient, {moment!r}, lambda *_args, **_kwargs: os.kill(os.getpid(), signal.SIGKILL))
        steps.evaluate(Installation(), "payments")
        """
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=trained.environment, check=False, timeout=240
    )
    assert killed.returncode < 0
    assert challenger(trained) is None
    code_, output, errors = trained.run("evaluate", trained.name, "--json")
    assert code_ == 0, errors
    (receipt,) = json.loads(output)
    assert (receipt["outcome"], receipt["alias"]) == ("passed", "challenger")
    assert challenger(trained) == 2
