"""A step killed at any moment and run again ends as if it had never been killed."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Place

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # MLflow's
SEED = 7
BATCHES = 3  # enough for kills between batches and within one

N_KILLS = 8  # of each step


def start_small(place: Place) -> None:
    """Keep the first batches only: what is killed is a step of seconds, not of minutes."""
    for file in sorted(place.incoming.glob("*.parquet"))[BATCHES:]:
        file.unlink()
    place.edit("steps: 60", "steps: 600")  # two checkpoints on the way: a retry goes on from the last


def outcome(place: Place) -> dict[str, Any]:
    """All that a reader sees: tables, ledger, models; without times."""
    found: dict[str, Any] = {"ledger": place.ledger(), "models": place.models()}
    for name in place.versions():
        found[name] = place.table(name).to_pylist()
    return found


def kill_and_retry(
    place: Place, copy: Callable[[Place], Place], step: str, n_kills: int, rng: random.Random
) -> tuple[int, float]:
    """Kill a step's process n times, each time in a fresh copy and at another moment, then run it to its end.

    Moments are counted in the process's own CPU seconds: those are about the same on a busy machine.

    Returns:
        how many of the kills met a process that still ran, and the CPU seconds of the step undisturbed.
    """
    reference, before = copy(place), children_seconds()
    code, output, errors = reference.run(step, place.name)
    assert code == 0, output + errors
    whole, expected = children_seconds() - before, outcome(reference)
    n_hit = 0
    for i in range(n_kills):
        victim = copy(place)
        moment = whole * (i + rng.random()) / n_kills  # one in each n-th of the step
        n_hit += killed_at(victim.start(step, victim.name), moment)
        code, output, errors = victim.run(step, victim.name)
        at = f"{step} killed after {moment:.2f} of {whole:.2f} CPU seconds"
        assert code == 0, f"{at}: {output}{errors}"
        found = outcome(victim)
        for part, value in expected.items():
            assert found[part] == value, f"{part} differ: {at}"
        assert victim.left_over() == [], at
        assert steps_due(victim) == steps_due(reference), at
        victim.close()
    return n_hit, whole


def killed_at(process: subprocess.Popen[str], moment: float) -> bool:
    """Whether the process still ran when it had used so many CPU seconds, and was killed with its
    children.
    """
    while process.poll() is None and used_seconds(process.pid) < moment:
        time.sleep(0.005)
    hit = process.poll() is None
    if hit:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return hit


def used_seconds(pid: int) -> float:
    """CPU seconds of a process and of those of its children that have ended."""
    times = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:15]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def steps_due(place: Place) -> list[str]:
    from pipeline import steps

    return steps.discover(place.here, place.name)


def prepared(landed: Place, copy: Callable[[Place], Place]) -> dict[str, Place]:
    """The installation before each step."""
    start_small(landed)
    trained = copy(landed)
    trained.validate()
    before_training = copy(trained)
    trained.train()
    return {"validate": landed, "train": before_training, "score": trained}


def test_a_step_killed_once_and_run_again_ends_as_if_it_had_not_been(
    landed: Place, open_copy: Callable[[Place], Place]
) -> None:
    """Machines are restarted at night; nobody should have to look what was half done."""
    rng = random.Random(SEED)  # noqa: S311
    for step, place in prepared(landed, open_copy).items():
        assert kill_and_retry(place, open_copy, step, 1, rng)[0] == 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("step", ["validate", "train", "score"])
def test_a_step_killed_at_any_of_many_moments_ends_as_if_it_had_not_been(
    landed: Place, open_copy: Callable[[Place], Place], step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The moment that was not thought of is the one at which the power fails."""
    rng = random.Random(SEED)  # noqa: S311
    n_hit, whole = kill_and_retry(prepared(landed, open_copy)[step], open_copy, step, N_KILLS, rng)
    with capsys.disabled():
        print(f"\n{step}: {n_hit} of {N_KILLS} kills met it running; undisturbed {whole:.1f} CPU seconds")
    assert n_hit >= N_KILLS - 1  # the last may come after its end
