"""What a killed process leaves is removed; what a process is still at work in is not, wherever that runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.installation import Installation
from pipeline.storage.scratch import LONGEST_WORK, own_name


@pytest.fixture
def places(here: Installation) -> list[Path]:
    """Return the folders in which steps and copies of models work."""
    found = [here.settings.home / place / "payments" for place in ("work", "models")]
    for place in found:
        place.mkdir(parents=True, exist_ok=True)
    return found


def ended() -> int:
    """Return the number of a process that is gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


def test_what_a_killed_process_left_is_removed(here: Installation, places: list[Path]) -> None:
    """And nothing else: not what this process works in."""
    mine = own_name("train")
    left = mine.replace(f".{os.getpid()}.", f".{ended()}.")
    for place in places:
        (place / mine).mkdir()
        (place / left / "spill").mkdir(parents=True)
    here.tidy(here.dataset("payments"))
    assert [[one.name for one in place.iterdir()] for place in places] == [[mine], [mine]]


def test_what_another_machine_works_in_stays_until_nobody_can_be_at_it(
    here: Installation, places: list[Path]
) -> None:
    """Machines share a home folder, and the number of a process there may be nobody's here."""
    for place in places:
        for day in (0, 1):
            folder = place / f"train.another-machine.{ended()}.{day}.tmp"
            folder.mkdir()
            at = time.time() - day * (LONGEST_WORK + 60)
            os.utime(folder, (at, at))
    with here.scratch(here.dataset("payments"), "score-2026-01-31"):
        pass
    left = [[one.name.split(".")[-2] for one in place.iterdir()] for place in places]
    assert left == [["0"], ["0"]]
