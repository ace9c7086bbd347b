"""Starts Airflow's four parts and MLflow's pages, watches each by itself, and stops them in the right order.

Belongs here: order, waiting, restarts, the state file. Does not: what a component is told (layout.py), or
talking to the person who asked (stack.py).

The order matters. Tasks talk to the API server, so it is up before the scheduler starts anything, and
outlives it. A dead component is restarted only after its whole session has been ended: what it leaves behind
holds its ports.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from infra.airflow_api import AirflowApi
from infra.layout import BIN, POOLS, USER, Layout, read_state, write_private
from infra.processes import Child, Mark, backoff, end_session

START_PATIENCE = 300.0  # seconds until all is healthy; takes 16 on a quiet machine
STEADY = 300.0  # seconds that a component must live for its failures to be forgotten
GRACE = {  # seconds; ten for the others
    "scheduler": 20.0,  # waits for running tasks; one that is cut short is tried again after the next start
    "triggerer": 5.0,  # often waits ten for a child of its own that has nothing to lose
}
ALREADY_RUNNING = 75
STOP_ORDER = (("scheduler",), ("triggerer", "dag-processor", "mlflow"), ("api-server",))  # each group at once
OPEN_REGISTRY = """
from pipeline.installation import Installation
here = Installation()
here.registry
here.ledger.clear_claims()  # nothing is in flight yet
"""
FORGET_DAGS = """
from airflow.models.dag import DagModel
from airflow.utils.session import create_session
from sqlalchemy import update
with create_session() as session:
    session.execute(update(DagModel).values(is_stale=True))
"""  # Airflow's own mark for DAGs that are in no file any more; reading their file removes it

log = logging.getLogger("supervisor")


class StartFailed(Exception):
    """The system did not come up; the message says what to read."""


class Interrupted(Exception):
    """Asked to stop while starting."""


@dataclass
class Supervisor:
    """Runs one installation until it is asked to stop.

    Args:
        guardian: stop as soon as this process is gone (tests and demos leave nothing behind).
    """

    layout: Layout
    guardian: Mark | None = None
    children: dict[str, Child] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    phase: str = "starting"
    fault: str = ""
    signals: int = 0

    def run(self) -> int:
        """Start, watch, stop; return the exit code."""
        self.layout.prepare()
        with self._only_one() as alone:
            if not alone:
                log.info("another supervisor is already running for %s", self.layout.home)
                return ALREADY_RUNNING
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, self._on_signal)
            end_leftovers(self.layout)
            try:
                self._start()
                self._watch()
            except Interrupted:
                pass
            except (StartFailed, OSError, TimeoutError, httpx.HTTPError) as fault:
                self.fault = str(fault)
                log.exception("the system cannot run")
            finally:
                self._stop()
        return 1 if self.fault else 0

    def _on_signal(self, number: int, _frame: object) -> None:
        self.signals += 1
        log.info("signal %s", signal.Signals(number).name)

    @property
    def _asked_to_stop(self) -> bool:
        return self.signals > 0 or (self.guardian is not None and not self.guardian.is_alive)

    @contextmanager
    def _only_one(self) -> Iterator[bool]:
        with self.layout.lock_file.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def _start(self) -> None:
        self.ports = self.layout.choose_ports()
        environment = self.layout.environment(self.ports)
        logs = self.layout.logs
        knows_dags = self.layout.airflow_database.exists()
        self._run_once(
            Child("migrate", [str(BIN / "airflow"), "db", "migrate"], environment, logs / "migrate.log"),
            Child("registry", [sys.executable, "-c", OPEN_REGISTRY], environment, logs / "registry.log"),
        )
        if self.layout.demo and knows_dags:  # else the scheduler runs other datasets' for a minute
            forget = [sys.executable, "-c", FORGET_DAGS]
            self._run_once(Child("forget-dags", forget, environment, logs / "forget-dags.log"))
        for name, command in self.layout.commands(self.ports).items():
            self.children[name] = Child(name, command, environment, logs / f"{name}.log")
        with AirflowApi(self.layout.urls(self.ports)["airflow"], USER, self.layout.password()) as api:
            self._launch("api-server")
            self._wait(api.is_up, "api-server")
            for pool, (slots, description) in POOLS.items():
                api.set_pool(pool, slots, description)
            self._launch(*(name for name in self.children if name != "api-server"))
            self._wait(api.is_healthy, *self.children)
        if "mlflow" in self.children:
            self._wait(self._mlflow_answers, "mlflow")
        self._write("healthy")

    def _run_once(self, *jobs: Child) -> None:
        for job in jobs:
            self.children[job.name] = job
        self._launch(*(job.name for job in jobs))
        while any(job.returncode is None for job in jobs):
            self._pause()
        for job in jobs:
            if job.returncode:
                raise StartFailed(f"{job.name} failed (exit {job.returncode}), see {job.log}\n{tail(job)}")
            del self.children[job.name]

    def _launch(self, *names: str) -> None:
        for name in names:
            self.children[name].start()
            self._write(self.phase)
            log.info("%s started, process %d", name, self._pid(name))

    def _pid(self, name: str) -> int:
        mark = self.children[name].mark
        return mark.pid if mark else 0

    def _wait(self, ready: Callable[[], bool], *names: str) -> None:
        """Wait until ready; a component that dies meanwhile stops the start: the installation is at fault."""
        until = time.monotonic() + START_PATIENCE
        while not ready():
            for child in (self.children[name] for name in names):
                if child.returncode is not None:
                    raise StartFailed(
                        f"{child.name} ended at once (exit {child.returncode}), see {child.log}\n{tail(child)}"
                    )
            if time.monotonic() > until:
                raise StartFailed(f"not healthy after {START_PATIENCE:.0f} s: see {self.layout.logs}")
            self._pause()

    def _pause(self, seconds: float = 0.25) -> None:
        time.sleep(seconds)
        if self._asked_to_stop:
            raise Interrupted

    def _mlflow_answers(self) -> bool:
        try:
            url = self.layout.urls(self.ports)["mlflow"]
            return httpx.get(f"{url}/health", timeout=5, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def _watch(self) -> None:
        started = dict.fromkeys(self.children, time.monotonic())
        while not self._asked_to_stop:
            for name, child in self.children.items():
                now = time.monotonic()
                if child.process is not None and child.returncode is not None:
                    self._bury(child, steady=now - started[name] > STEADY)
                if child.process is None and now >= child.not_before:
                    self._launch(name)
                    started[name] = now
            time.sleep(0.25)

    def _bury(self, child: Child, *, steady: bool) -> None:
        assert child.mark is not None  # noqa: S101  (a started child has its mark)
        code, left = child.returncode, end_session(child.mark)
        child.process = child.mark = None
        child.failures = 1 if steady else child.failures + 1
        wait = backoff(child.failures)
        child.not_before = time.monotonic() + wait
        log.warning(
            "%s ended by itself (exit %s), %d processes that it left were killed; it starts again in %.0f s; log: %s",
            child.name,
            code,
            left,
            wait,
            child.log,
        )
        self._write(self.phase)

    def _stop(self) -> None:
        self._write("stopping")
        known = {name for group in STOP_ORDER for name in group}
        for group in (tuple(self.children.keys() - known), *STOP_ORDER):
            children = [self.children[name] for name in group if name in self.children]
            for child in children:
                child.ask_to_stop()
            for child in children:
                how = child.stop(GRACE.get(child.name, 10.0), hurry=lambda: self.signals > 1)
                log.info("%s %s", child.name, how)
            self._write("stopping")
        self._write("failed" if self.fault else "stopped")

    def _write(self, phase: str) -> None:
        self.phase = phase
        marks = {name: child.mark.as_dict() for name, child in self.children.items() if child.mark}
        state: dict[str, Any] = {
            "phase": phase,
            "fault": self.fault,
            "supervisor": Mark.of(os.getpid()).as_dict(),
            "children": marks,
            "ports": self.ports,
            "urls": self.layout.urls(self.ports) if self.ports else {},
        }
        write_private(self.layout.state_file, json.dumps(state, indent=1))


def tail(child: Child, lines: int = 15) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(child.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    return ""


def end_leftovers(layout: Layout) -> int:
    """End what a killed supervisor has left running; return how many processes that were."""
    children = read_state(layout.state_file).get("children", {})
    order = [name for group in STOP_ORDER for name in group]
    ended = 0
    for name in sorted(children, key=lambda name: order.index(name) if name in order else -1):
        if count := end_session(Mark(**children[name])):
            log.warning("%s was still running without a supervisor: %d processes ended", name, count)
            ended += count
    return ended
