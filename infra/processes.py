"""Processes of ours: start one in a session of its own, tell it from a stranger, end it with all it started.

Belongs here: pids, sessions, signals, logs. Does not: which processes there are, or in which order
(stack.py).

Every child leads a session (setsid). What it starts stays in that session even if it makes its own process
group, as Airflow's tasks do, or outlives its parent. So we end the session, never a name. Read from Linux's
/proc.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LOG_BYTES = 20_000_000  # a component's log is rotated at its start if it has more than this
PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """What we need to know of a process, ours or not, from /proc."""

    pid: int
    state: str
    session: int
    ticks: int  # start time in clock ticks since boot: never the same twice for one pid

    @classmethod
    def read(cls, pid: int) -> Process | None:
        """Read a process; None where there is no such process."""
        try:
            line = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = line.rpartition(")")[2].split()  # a process's name may hold brackets and blanks
        return cls(pid, state=fields[0], session=int(fields[3]), ticks=int(fields[19]))

    @property
    def is_living(self) -> bool:
        return self.state not in "ZX"


@dataclass(frozen=True)
class Mark:
    """Tells one process from any other, including a later one with the same pid."""

    pid: int
    ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Mark:
        """Return the mark of a process.

        Raises:
            ProcessLookupError: there is none.
        """
        process = Process.read(pid)
        if process is None:
            raise ProcessLookupError(f"no process {pid}")
        return cls(pid, process.ticks, boot_id())

    @property
    def is_alive(self) -> bool:
        process = Process.read(self.pid)
        return process is not None and process.is_living and self._is(process)

    def _is(self, process: Process) -> bool:
        return process.ticks == self.ticks and self.boot == boot_id()

    def session(self) -> list[int]:
        """Return the living processes of the session that this one opened, whether or not it lives itself."""
        leader = Process.read(self.pid)
        if self.boot != boot_id() or (leader is not None and not self._is(leader)):
            return []  # the pid belongs to a stranger, which happens only once the whole session is gone
        everyone = (Process.read(int(entry.name)) for entry in PROC.iterdir() if entry.name.isdigit())
        ours = (p for p in everyone if p and p.session == self.pid and p.ticks >= self.ticks)
        return sorted(process.pid for process in ours if process.is_living)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def boot_id() -> str:
    """Return an id that stays the same until this machine starts again."""
    return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def end_session(leader: Mark, patience: float = 10) -> int:
    """Kill every process of a session and wait until it is gone; return how many there were.

    Raises:
        TimeoutError: some survive `patience` seconds of SIGKILL.
    """
    ended: set[int] = set()
    until = time.monotonic() + patience
    while members := leader.session():
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended.update(members)
        if time.monotonic() > until:
            raise TimeoutError(f"processes {members} survived {patience:g} s of SIGKILL; look with ps")
        time.sleep(0.05)
    return len(ended)


@dataclass
class Child:
    """One component: how to start it, and the process that runs it now."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    mark: Mark | None = None
    failures: int = 0
    not_before: float = 0  # monotonic time of the next start

    def start(self) -> None:
        """Start it in a session of its own; its output is appended to its log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.mark = Mark.of(self.process.pid)

    @property
    def returncode(self) -> int | None:
        """None while it runs, and before it was started."""
        return self.process.poll() if self.process else None

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the component itself, which stops what it has started."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self, grace: float, hurry: Callable[[], bool] = lambda: False) -> str:
        """Wait `grace` seconds (less in a hurry) after asking, then end its session; say how that went."""
        if self.process is None or self.mark is None:
            return "was not running"
        began = time.monotonic()
        while self.process.poll() is None and time.monotonic() - began < grace and not hurry():
            time.sleep(0.05)
        willing = self.process.poll()
        killed = end_session(self.mark)
        self.process.wait()
        took = f"{time.monotonic() - began:.1f} s"
        self.process = self.mark = None
        return f"ended in {took}" + (f", {killed} processes killed" if killed else f" (exit {willing})")


def backoff(failures: int) -> float:
    """Return the seconds to wait before the next start: 1, 2, 4 … 60."""
    return float(min(60, 2 ** max(0, failures - 1)))
