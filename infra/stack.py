"""The whole system on this machine: `python -m infra.stack up`, `down`, `status`; from Python, `Stack`.

Belongs here: the answers to the person or the program that asks. Does not: running components, which a
process of its own does (supervisor.py).

    with Stack(home, mlflow_ui=False).running() as stack:
        run_id = stack.api.trigger("orders.train")
        assert stack.api.wait_for("orders.train", run_id) == "success"
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.airflow_api import AirflowApi
from infra.layout import REPOSITORY, USER, Layout, read_state
from infra.processes import Mark
from infra.supervisor import ALREADY_RUNNING, START_PATIENCE, StartFailed, Supervisor, end_leftovers
from pipeline.config.settings import load_settings

STOP_PATIENCE = 90.0


class Stack:
    """One installation, running or not."""

    def __init__(
        self,
        home: Path | None = None,
        datasets: Path | None = None,
        *,
        mlflow_ui: bool = True,
        demo: str | None = None,
    ) -> None:
        """Take the folders from the environment (VAEWATCH_HOME, VAEWATCH_DATASETS) where none are given.

        Args:
            demo: work on this dataset alone.
        """
        settings = load_settings()
        self.layout = Layout(
            (home or settings.home).absolute(), (datasets or settings.datasets).absolute(), mlflow_ui, demo
        )
        self._api: AirflowApi | None = None
        self._spawned: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> dict[str, Any]:
        """What the supervisor last wrote: phase, ports, urls, processes."""
        return read_state(self.layout.state_file)

    @property
    def is_running(self) -> bool:
        """Whether a supervisor lives, whatever its components do."""
        return (mark := self._supervisor()) is not None and mark.is_alive

    @property
    def urls(self) -> dict[str, str]:
        return dict(self.state.get("urls", {}))

    @property
    def api(self) -> AirflowApi:
        """A client of the running Airflow; `down` closes it."""
        url = self.urls["airflow"]
        if self._api is None or self._api.url != url:
            self._close()
            self._api = AirflowApi(url, USER, self.layout.password())
        return self._api

    def up(self, *, guardian: int | None = None) -> bool:
        """Start everything and wait until it is healthy; return False where it was up already.

        Args:
            guardian: a process; when it is gone, the system stops by itself.

        Raises:
            StartFailed: with the component's last output and the place of its log.
        """
        if self.is_running and self.state["phase"] == "healthy":
            return False
        self.layout.prepare()
        self._spawned = self._spawn(guardian)
        self._wait_until_healthy(self._spawned)
        return True

    def down(self) -> bool:
        """Stop everything, and what a killed supervisor left; return False where nothing ran."""
        self._close()
        mark = self._supervisor()
        was_running = mark is not None and mark.is_alive
        if mark is not None and was_running:
            os.kill(mark.pid, signal.SIGTERM)
            until = time.monotonic() + STOP_PATIENCE
            while mark.is_alive and time.monotonic() < until:
                time.sleep(0.1)
            if mark.is_alive:
                os.kill(mark.pid, signal.SIGKILL)
        if self._spawned is not None:
            self._spawned.wait()
            self._spawned = None
        return end_leftovers(self.layout) > 0 or was_running

    def _close(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None

    @contextmanager
    def running(self) -> Iterator[Stack]:
        """Keep the system up within the block, and stop it after that, even if this process is killed.

        What was up before stays up.
        """
        started = self.up(guardian=os.getpid())
        try:
            yield self
        finally:
            self.down() if started else self._close()

    def _supervisor(self) -> Mark | None:
        recorded = self.state.get("supervisor")
        return Mark(**recorded) if recorded else None

    def _spawn(self, guardian: int | None) -> subprocess.Popen[bytes]:
        layout = self.layout
        command = [sys.executable, "-m", "infra.stack", "serve"]
        command += ["--home", str(layout.home), "--datasets", str(layout.datasets)]
        command += [] if layout.mlflow_ui else ["--no-mlflow-ui"]
        command += ["--demo", layout.demo] if layout.demo else []
        command += ["--while-alive", str(guardian)] if guardian else []
        with (layout.logs / "supervisor.log").open("ab") as out:
            return subprocess.Popen(
                command,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_until_healthy(self, supervisor: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START_PATIENCE + 60
        while time.monotonic() < until:
            code = supervisor.poll()
            if self.is_running and self.state["phase"] == "healthy":
                return
            if code is not None and not (code == ALREADY_RUNNING and self.is_running):
                why = self.state.get("fault") or f"the supervisor ended (exit {code})"
                raise StartFailed(f"{why}\nsee {self.layout.logs / 'supervisor.log'}")
            time.sleep(0.1)
        self.down()
        raise StartFailed(f"not healthy in time: see {self.layout.logs}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    asked = _parser().parse_args(arguments)
    stack = Stack(asked.home, asked.datasets, mlflow_ui=not asked.no_mlflow_ui, demo=asked.demo)
    if asked.verb == "serve":
        return _serve(stack.layout, asked.while_alive)
    if asked.verb == "down":
        print("stopped" if stack.down() else "nothing was running")  # noqa: T201
        return 0
    if asked.verb == "status":
        print(_status(stack))  # noqa: T201
        return 0 if stack.is_running else 3
    try:
        fresh = stack.up()
    except StartFailed as fault:
        print(fault, file=sys.stderr)  # noqa: T201
        return 1
    print(_status(stack) if fresh else f"already up\n{_status(stack)}")  # noqa: T201
    return 0


def _serve(layout: Layout, guardian: int | None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    mark = None
    if guardian is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(guardian, 0)
            mark = Mark.of(guardian)
        if mark is None:
            return 0
    return Supervisor(layout, mark).run()


def _status(stack: Stack) -> str:
    if not stack.is_running:
        return "not running; start with: make up"
    layout, state = stack.layout, stack.state
    pages = {"mlflow": "/#/models"}  # its front page is about something else
    lines = [f"{name:8} {url}{pages.get(name, '')}" for name, url in stack.urls.items()]
    lines.append(f"login    {USER}, password in {layout.password_file}")
    lines.append(f"home     {layout.home}   datasets {layout.datasets}   logs {layout.logs}")
    if state["phase"] != "healthy":
        lines.append(f"phase    {state['phase']}")
    elif not (api := stack.api).is_healthy():
        lines.append(f"health   {api.health() or 'no answer'}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra.stack", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("verb", choices=["up", "down", "status", "serve"])
    parser.add_argument("--home", type=Path, help="default: VAEWATCH_HOME, else ./var")
    parser.add_argument("--datasets", type=Path, help="default: VAEWATCH_DATASETS, else ./dags/datasets")
    parser.add_argument("--no-mlflow-ui", action="store_true", help="leave MLflow's pages out")
    parser.add_argument("--demo", metavar="DATASET", help="work on this dataset alone")
    parser.add_argument("--while-alive", type=int, metavar="PID", help="stop when this process is gone")
    return parser


if __name__ == "__main__":
    sys.exit(main())
