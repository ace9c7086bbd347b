"""Two runs of a dataset at once: the second knows whom it waits for; a killed one keeps nobody waiting."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from subprocess import PIPE

from pipeline import steps
from pipeline.installation import Installation
from pipeline.storage.turn import turn

HOLDS = """
import sys, time
from pathlib import Path
from pipeline.storage.turn import turn
with turn(Path(sys.argv[1]), print):
    print("holds", flush=True)
    time.sleep(600)
"""


def test_of_two_runs_of_a_dataset_the_second_says_who_is_at_it_and_waits(here: Installation) -> None:
    """Both would read, check and train the same; and none of the steps that Airflow calls waits for a run."""
    (dataset := here.dataset("payments")).incoming_path.mkdir(parents=True)
    said, waits, done = list[str](), threading.Event(), list[list[str]]()

    def told(line: str) -> None:
        said.append(line)
        waits.set()

    def second() -> None:
        done.append([one.outcome for one in steps.run(here, "payments", say=told)])

    with here.turn(dataset, print):
        assert steps.validate(here, "payments").outcome == "unchanged"
        (thread := threading.Thread(target=second)).start()
        assert waits.wait(60)
        assert done == []
    thread.join(60)
    assert done == [["unchanged", "unchanged", "waiting"]]
    assert len(said) == 1
    assert f"another run of payments is under way (process {os.getpid()} on " in said[0]


def test_a_killed_process_lets_go_of_its_turn(tmp_path: Path) -> None:
    """And what it wrote of itself is not said of the next."""
    file, said = tmp_path / "locks" / "payments", list[str]()
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(file)], stdout=PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "holds\n"
        assert f"process {process.pid} on " in file.read_text()
        process.kill()
    with turn(file, said.append):
        assert said == []
        assert file.read_text().startswith(f"process {os.getpid()} on ")
