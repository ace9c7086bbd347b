"""The supervisor of a local installation: it leaves nothing behind, ends no stranger, and shows no secret."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra.layout import Layout, any_free_port, is_free, read_state
from infra.processes import Child, Mark, backoff, end_session
from infra.stack import Stack
from infra.supervisor import Supervisor, end_leftovers

from .conftest import DatasetFile

FAMILY = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import os, time; os.setpgid(0, 0); time.sleep(600)"])
time.sleep(600)
"""  # a component with a child in a process group of its own, as Airflow's tasks are


def until(ready: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "home", tmp_path / "datasets")
    made.prepare()
    return made


@pytest.fixture
def component(layout: Layout) -> Iterator[Child]:
    """A started component with one child, both surely gone afterwards."""
    child = Child(
        "scheduler", [sys.executable, "-c", FAMILY], dict(os.environ), layout.logs / "scheduler.log"
    )
    child.start()
    mark, process = child.mark, child.process
    assert mark
    assert process
    until(lambda: len(mark.session()) == 2)
    yield child
    end_session(mark)
    process.wait()


def test_ending_a_component_ends_what_it_started(component: Child) -> None:
    """A task that outlives its scheduler goes on writing, and its log server keeps the port."""
    mark = component.mark
    assert mark
    os.kill(mark.pid, signal.SIGKILL)
    assert component.process
    component.process.wait()
    assert not mark.is_alive
    assert end_session(mark) == 1
    assert mark.session() == []


def test_a_stranger_with_the_number_of_ours_is_left_alone(component: Child) -> None:
    """Numbers of processes come round again, after a restart of the machine at the latest."""
    mark = component.mark
    assert mark
    for stranger in (replace(mark, ticks=mark.ticks - 1), replace(mark, boot="another life")):
        assert not stranger.is_alive
        assert end_session(stranger) == 0
    assert len(mark.session()) == 2


def test_a_component_that_will_not_stop_is_ended(layout: Layout) -> None:
    """`make down` comes to an end whatever a component does with its signals."""
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    child = Child("deaf", [sys.executable, "-c", deaf], dict(os.environ), layout.logs / "deaf.log")
    child.start()
    until(lambda: "deaf" in child.log.read_text())
    child.ask_to_stop()
    assert "1 processes killed" in child.stop(grace=0.2)


def test_a_dead_component_is_restarted_and_its_rest_ended(layout: Layout, component: Child) -> None:
    """One part dying costs seconds, not the night, and needs nobody."""
    supervisor = Supervisor(layout, children={"scheduler": component}, phase="healthy")
    first = component.mark
    assert first
    os.kill(first.pid, signal.SIGKILL)
    watching = threading.Thread(target=supervisor._watch)
    watching.start()
    try:
        until(lambda: component.mark not in {None, first})
        assert first.session() == []
        assert read_state(layout.state_file)["children"]["scheduler"]["pid"] == component.mark.pid
    finally:
        supervisor.signals = 1
        watching.join()
        supervisor._stop()
    assert read_state(layout.state_file)["phase"] == "stopped"


def test_what_a_killed_supervisor_left_is_found_and_ended(layout: Layout, component: Child) -> None:
    """After `kill -9` of the supervisor the next `down` or `up` cleans up by what was written down."""
    Supervisor(layout, children={"scheduler": component})._write("healthy")
    assert end_leftovers(layout) == 2
    assert end_leftovers(layout) == 0


def test_restarts_are_spaced_out(layout: Layout) -> None:
    """A component that cannot start must not keep a core busy for the rest of the night."""
    assert [backoff(failures) for failures in (1, 2, 3, 6, 7, 50)] == [1, 2, 4, 32, 60, 60]


def test_secrets_are_made_once_and_for_this_user_only(layout: Layout) -> None:
    """A password that changes with every start is written on a note beside the screen."""
    password = layout.password()
    layout.prepare()
    assert layout.password() == password
    for secret in (layout.password_file, layout.jwt_file):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700


def test_no_secret_is_in_a_command_line_or_variable(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody on the machine can read command lines, and tasks print their environment."""
    monkeypatch.setenv("VAEWATCH_TRACKING_URI", "postgresql://us:hunter2@db/mlflow")
    ports = layout.choose_ports()
    commands = [part for command in layout.commands(ports).values() for part in command]
    secrets = (layout.password(), layout.jwt_file.read_text(), "hunter2")
    assert not [part for part in commands for secret in secrets if secret in part]
    told = layout.environment(ports).values()
    assert not [value for value in told for secret in secrets[:2] if secret in value]


def test_settings_of_another_airflow_are_not_passed_on(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell that was used for another Airflow must not have ours write to that one's database."""
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://elsewhere/airflow")
    monkeypatch.setenv("AIRFLOW_CONFIG", "/elsewhere/airflow.cfg")
    told = layout.environment(layout.choose_ports())
    assert not [value for value in told.values() if "elsewhere" in value]
    assert told["AIRFLOW_HOME"] == str(layout.home / "airflow")


def test_everything_listens_on_loopback(layout: Layout) -> None:
    """There is one password and no encryption: this is for one machine."""
    ports = layout.choose_ports()
    assert layout.environment(ports)["AIRFLOW__API__HOST"] == "127.0.0.1"
    for name, command in layout.commands(ports).items():
        assert name not in {"scheduler", "triggerer"} or "--skip-serve-logs" in command
        assert name != "mlflow" or command[command.index("--host") + 1] == "127.0.0.1"


def test_a_taken_port_is_replaced_and_remembered(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """8080 is everybody's favourite; a bookmark should still work after the next start."""
    taken = any_free_port()
    monkeypatch.setattr("infra.layout.DEFAULT_PORTS", {"airflow": taken, "mlflow": taken})
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken))
        other.listen()
        assert not is_free(taken)
        ports = layout.choose_ports()
    assert taken not in ports.values()
    assert len(set(ports.values())) == 2
    assert layout.choose_ports() == ports


def test_down_without_up_says_so(tmp_path: Path) -> None:
    """Asking twice is no error, and makes nothing."""
    assert Stack(tmp_path / "home", tmp_path).down() is False
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
def test_the_system_survives_its_parts_and_leaves_nothing(dataset_file: DatasetFile, tmp_path: Path) -> None:
    """Up, a part killed, the supervisor killed, down: with real Airflow and real MLflow."""
    datasets = dataset_file("orders").parent
    stack = Stack(tmp_path / "home", datasets)
    try:
        assert stack.up() is True
        assert stack.up() is False
        stack.api.wait_for_dags("orders.discover", "orders.train")
        assert stack.api.import_errors() == []
        marks = {name: Mark(**mark) for name, mark in stack.state["children"].items()}
        assert set(marks) == {"api-server", "dag-processor", "scheduler", "triggerer", "mlflow"}
        os.kill(marks["triggerer"].pid, signal.SIGKILL)
        until(
            lambda: (
                stack.state["children"].get("triggerer", {}).get("pid") not in {None, marks["triggerer"].pid}
            )
        )
        stack.api.wait_until(stack.api.is_healthy, "health after a part died", 120)
        assert listening(marks) <= {"127.0.0.1"}
        left = [Mark(**mark) for mark in stack.state["children"].values()]
        os.kill(stack.state["supervisor"]["pid"], signal.SIGKILL)
        until(lambda: not stack.is_running)
        assert any(mark.session() for mark in left)
    finally:
        assert stack.down() is True
    assert [mark.session() for mark in [*left, *marks.values()] if mark.session()] == []


@pytest.mark.slow
def test_a_demo_works_on_its_dataset_alone_and_stops_nothing_of_others(
    dataset_file: DatasetFile, tmp_path: Path
) -> None:
    """What an earlier `make up` has told Airflow of other datasets is not gone on with, and is there again
    afterwards.
    """
    datasets = dataset_file("orders").parent
    dataset_file("payments")
    everything = Stack(tmp_path / "home", datasets, mlflow_ui=False)
    shown = Stack(tmp_path / "home", datasets, mlflow_ui=False, demo="payments")

    def names(stack: Stack) -> set[str]:
        return {dag_id.partition(".")[0] for dag_id in stack.api.dags()}

    with everything.running():
        everything.api.wait_for_dags("orders.discover", "payments.discover", "payments.prune")
        with shown.running():
            assert names(shown) == {"orders", "payments"}
        assert everything.is_running
        assert everything.api.is_healthy()
    with shown.running():
        shown.api.wait_for_dags("payments.discover")
        assert names(shown) == {"payments"}
        assert "payments.prune" not in shown.api.dags()
    with everything.running():
        everything.api.wait_for_dags("orders.discover", "payments.prune")


def listening(marks: dict[str, Mark]) -> set[str]:
    """The addresses on which these components' sessions accept connections."""
    ours = {pid for mark in marks.values() for pid in mark.session()}
    lines = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()
    return {
        line.split()[3].rpartition(":")[0] for line in lines if any(f"pid={pid}," in line for pid in ours)
    }


def test_a_system_ends_with_the_program_that_wanted_it(layout: Layout, component: Child) -> None:
    """A test that is killed must not leave an Airflow behind."""
    program = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    supervisor = Supervisor(layout, Mark.of(program.pid), {"scheduler": component}, phase="healthy")
    assert not supervisor._asked_to_stop
    program.kill()
    program.communicate()
    supervisor._watch()
    supervisor._stop()
    assert component.mark is None
