"""Where a local installation keeps its running parts, and what each of them is told.

Belongs here: folders, ports, secrets, environment variables, command lines. Does not: starting or watching
(supervisor.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.config.settings import Settings

REPOSITORY = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LOOPBACK = "127.0.0.1"
USER = "admin"
DEFAULT_PORTS = {"airflow": 8080, "mlflow": 5000}
POOLS = {"gpu": (1, "one training at a time")}


@dataclass(frozen=True)
class Layout:
    """One installation: home folder, datasets, whether MLflow's pages are served, and a demo's dataset."""

    home: Path
    datasets: Path
    mlflow_ui: bool = True
    demo: str | None = None

    @property
    def airflow(self) -> Path:
        return self.home / "airflow"

    @property
    def airflow_database(self) -> Path:
        return self.airflow / "airflow.db"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def state_file(self) -> Path:
        return self.run / "stack.json"

    @property
    def lock_file(self) -> Path:
        return self.run / "stack.lock"

    @property
    def password_file(self) -> Path:
        return self.airflow / "passwords.json"

    @property
    def jwt_file(self) -> Path:
        return self.airflow / "jwt_secret"

    @cached_property
    def settings(self) -> Settings:
        return Settings(home=self.home, datasets=self.datasets)

    @property
    def serves_mlflow(self) -> bool:
        """Whether we serve MLflow: its pages are wanted, and it is a database here, no server elsewhere."""
        return self.mlflow_ui and not self.settings.tracking.startswith(("http", "databricks"))

    def prepare(self) -> None:
        """Make the folders and, once, the secrets, which only this user can read."""
        for folder in (self.home, self.airflow, self.logs, self.run):
            folder.mkdir(parents=True, exist_ok=True)
        for private in (self.run, self.airflow):
            private.chmod(0o700)
        if not self.password_file.exists():
            write_private(self.password_file, json.dumps({USER: secrets.token_urlsafe(18)}) + "\n")
        if not self.jwt_file.exists():
            write_private(self.jwt_file, secrets.token_urlsafe(64))

    def password(self) -> str:
        return str(json.loads(self.password_file.read_text(encoding="utf-8"))[USER])

    def choose_ports(self) -> dict[str, int]:
        """Choose last time's ports where they are free, else the usual ones, else any; remember them."""
        memory = self.run / "ports.json"
        last: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError):
            last = json.loads(memory.read_text(encoding="utf-8"))
        ports: dict[str, int] = {}
        for name, usual in DEFAULT_PORTS.items():
            wanted = [port for port in (last.get(name), usual) if port and port not in ports.values()]
            ports[name] = next((port for port in wanted if is_free(port)), None) or any_free_port()
        write_private(memory, json.dumps(ports))
        return ports

    def urls(self, ports: Mapping[str, int]) -> dict[str, str]:
        urls = {"airflow": f"http://{LOOPBACK}:{ports['airflow']}"}
        if self.serves_mlflow:
            urls["mlflow"] = f"http://{LOOPBACK}:{ports['mlflow']}"
        return urls

    def environment(self, ports: Mapping[str, int]) -> dict[str, str]:
        """Return the environment of every component, without the Airflow settings of another installation."""
        url = f"http://{LOOPBACK}:{ports['airflow']}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "_AIRFLOW_", "PYTEST_"))}
        nearby = ",".join(filter(None, [kept.get("NO_PROXY") or kept.get("no_proxy"), LOOPBACK, "localhost"]))
        slots = min(4, max(2, self.settings.cores))
        return kept | {
            "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', os.defpath)}",
            "NO_PROXY": nearby,
            "no_proxy": nearby,
            "VAEWATCH_HOME": str(self.home),
            "VAEWATCH_DATASETS": str(self.datasets),
            **({"VAEWATCH_DEMO": self.demo} if self.demo else {}),
            **({"VAEWATCH_MLFLOW_PAGE": self.urls(ports)["mlflow"]} if self.serves_mlflow else {}),
            "AIRFLOW_HOME": str(self.airflow),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API__HOST": LOOPBACK,
            "AIRFLOW__API__PORT": str(ports["airflow"]),
            "AIRFLOW__API_AUTH__JWT_SECRET_CMD": f"cat '{self.jwt_file}'",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": str(slots),  # the default forks 32 workers at once
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.password_file),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "15",
            "MLFLOW_BACKEND_STORE_URI": self.settings.tracking,  # in argv, ps would show a password
            "MLFLOW_DEFAULT_ARTIFACT_ROOT": str(self.home / "mlartifacts"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }

    def commands(self, ports: Mapping[str, int]) -> dict[str, list[str]]:
        """Return the components' command lines, in the order in which they start.

        Airflow's log servers are left out: they listen on every address, and on one machine the API server
        reads the files itself.
        """
        airflow = str(BIN / "airflow")
        commands = {
            "api-server": [airflow, "api-server"],
            "dag-processor": [airflow, "dag-processor"],
            "scheduler": [airflow, "scheduler", "--skip-serve-logs"],
            "triggerer": [airflow, "triggerer", "--skip-serve-logs"],
        }
        if self.serves_mlflow:
            address = ["--host", LOOPBACK, "--port", str(ports["mlflow"])]
            commands["mlflow"] = [str(BIN / "mlflow"), "server", "--workers", "1", *address]
        return commands


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically, readable by this user only."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        out.write(text)
    draft.replace(path)


def read_state(path: Path) -> dict[str, Any]:
    """Return what the supervisor last wrote; empty where there is nothing."""
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return state


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def any_free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
