"""Requests to a running Airflow, over its REST API.

Belongs here: requests and waiting. Does not: starting Airflow (stack.py) or what a DAG does (dags/).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

DONE = ("success", "failed")
OURS = "vaewatch"  # the DAGs' logger, by which steps report their progress


class AirflowApi:
    """A small client: one user, one token, loopback only (no proxy is used)."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url, self._user, self._password = url, user, password
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> AirflowApi:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_up(self) -> bool:
        """Return whether the API server answers; nothing else need be running."""
        try:
            return self._http.get("/api/v2/version", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def health(self) -> dict[str, str]:
        """Return component → healthy, unhealthy or unknown; empty where nobody answers."""
        try:
            parts = self._http.get("/api/v2/monitor/health", timeout=15).raise_for_status().json()
        except httpx.HTTPError:
            return {}
        names = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return {name: parts.get(name, {}).get("status") or "unknown" for name in names}

    def is_healthy(self) -> bool:
        states = self.health()
        return bool(states) and all(state == "healthy" for state in states.values())

    def request(self, method: str, path: str, **kwargs: Any) -> Any:
        """Make one authenticated call below /api/v2; return its JSON.

        Raises:
            httpx.HTTPStatusError: with Airflow's reason in the message.
        """
        for pause in (1.0, 2.0, 4.0, 8.0, 0.0):
            answer = self._authorized(method, path, **kwargs)
            if answer.status_code == httpx.codes.UNAUTHORIZED:  # the token has expired
                self._http.headers.pop("Authorization", None)
                answer = self._authorized(method, path, **kwargs)
            if not answer.is_server_error:
                break
            # SQLite has one writer: on a busy machine Airflow gives up waiting, and has written nothing
            time.sleep(pause)
        if answer.is_error:
            raise httpx.HTTPStatusError(
                f"{method} {path}: {answer.status_code} {answer.text[:500]}",
                request=answer.request,
                response=answer,
            )
        return answer.json() if answer.content else None

    def _authorized(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        if "Authorization" not in self._http.headers:
            login = {"username": self._user, "password": self._password}
            token = self._http.post("/auth/token", json=login).raise_for_status().json()["access_token"]
            self._http.headers["Authorization"] = f"Bearer {token}"
        return self._http.request(method, f"/api/v2{path}", **kwargs)

    def set_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool; one that exists keeps the slots that somebody gave it."""
        body = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        try:
            self.request("POST", "/pools", json=body)
        except httpx.HTTPStatusError as fault:
            if fault.response.status_code != httpx.codes.CONFLICT:
                raise

    def dags(self) -> dict[str, dict[str, Any]]:
        """Return every DAG that Airflow knows and still finds in a file, by id."""
        return {dag["dag_id"]: dag for dag in self._pages("/dags", "dags")}

    def import_errors(self) -> list[str]:
        """Return what the DAG files complain of: the text that the home page shows."""
        return [error["stack_trace"] for error in self._pages("/importErrors", "import_errors")]

    def runs(self, dag_id: str = "~", **filters: Any) -> list[dict[str, Any]]:
        """Return the runs of one DAG or of all, oldest first. Filters are the API's, e.g. state="failed"."""
        return self._pages(f"/dags/{dag_id}/dagRuns", "dag_runs", order_by="run_after", **filters)

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        tasks = self._pages(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances")
        return {task["task_id"]: task["state"] for task in tasks}

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> str:
        """Return what a try of a task logged, and what it died of."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        said = []
        for line in self.request("GET", path)["content"]:
            if isinstance(line, dict):
                said.append(str(line.get("event", "")))
                said += [f"{e['exc_type']}: {e['exc_value']}" for e in line.get("error_detail") or []]
        return "\n".join(said)

    def state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run: queued, running, success or failed."""
        return str(self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def doing(self, dag_id: str, run_id: str) -> tuple[str, str]:
        """Return a run's task that is running now, and its step's last message; each may be empty."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        running = [task for task in self._pages(path, "task_instances") if task["state"] == "running"]
        if not running:
            return "", ""
        task_id, attempt = running[0]["task_id"], running[0]["try_number"]
        lines = self.request("GET", f"{path}/{task_id}/logs/{attempt}")["content"]
        said = [line["event"] for line in lines if isinstance(line, dict) and line.get("logger") == OURS]
        return task_id, said[-1] if said else ""

    def result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Return what a task returned (its XCom)."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.request("GET", path, params={"stringify": False})["value"]

    def trigger(
        self, dag_id: str, conf: dict[str, Any] | None = None, partition_key: str | None = None
    ) -> str:
        """Start a run now; return its run_id."""
        body = {"logical_date": None, "conf": conf or {}, "partition_key": partition_key}
        run: dict[str, Any] = self.request("POST", f"/dags/{dag_id}/dagRuns", json=body)
        return str(run["dag_run_id"])

    def pause(self, dag_id: str, paused: bool = True) -> None:
        self.request("PATCH", f"/dags/{dag_id}", json={"is_paused": paused})

    def wait_for_dags(self, *dag_ids: str, timeout: float = 120) -> None:
        """Wait until Airflow has read all of these DAGs from their files."""
        self.wait_until(lambda: set(dag_ids) <= set(self.dags()), f"DAGs {', '.join(dag_ids)}", timeout)

    def wait_for(
        self, dag_id: str, run_id: str, timeout: float = 600, meanwhile: Callable[[], None] = lambda: None
    ) -> str:
        """Wait until this run has ended; return "success" or "failed".

        Args:
            meanwhile: called at each look that finds the run unfinished.
        """

        def ended() -> str:
            state = self.state(dag_id, run_id)
            if state not in DONE:
                meanwhile()
            return state if state in DONE else ""

        state = self.wait_until(ended, f"the end of {dag_id} {run_id}", timeout)
        return str(state)

    def wait_until(self, ready: Callable[[], Any], what: str, timeout: float) -> Any:
        """Wait for the first truthy answer of `ready`, and return it.

        Raises:
            TimeoutError: says what did not happen, and what the DAG files complain of, if they do.
        """
        until = time.monotonic() + timeout
        while not (answer := ready()):
            if time.monotonic() > until:
                complaints = "".join(f"\n{error}" for error in self.import_errors())
                raise TimeoutError(f"waited {timeout:.0f} s in vain for {what}{complaints}")
            time.sleep(0.5)
        return answer

    def _pages(self, path: str, field: str, **filters: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self.request("GET", path, params={**filters, "limit": 100, "offset": len(found)})
            found += page[field]
            if not page[field] or len(found) >= page["total_entries"]:
                return found
