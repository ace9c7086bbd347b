"""The main job, whole, through Airflow's real scheduler: `make demo`, or `make demo DATA=<folder of
Parquet>`.

Belongs here: landing deliveries in the order of their days, driving the DAGs, and telling what came of it.
Does not: any step of the job. Run again it finds its work done, changes nothing and says so.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from infra.airflow_api import DONE, AirflowApi
from infra.demo_feed import Feed, own_data, sample_data
from infra.demo_outcome import exported, print_measured, print_places, typed, unserved
from infra.layout import REPOSITORY
from infra.stack import Stack
from infra.supervisor import StartFailed
from pipeline.config.dataset import Dataset
from pipeline.display.nightly import SHOWN, print_batches
from pipeline.display.review import print_queue
from pipeline.errors import VaewatchError
from pipeline.incoming import batches
from pipeline.installation import Installation
from pipeline.report.glance import glance, misses_most
from pipeline.results import views
from pipeline.review import queue
from pipeline.review.filters import Filters

PATIENCE = 1800.0
ENDING = 60.0  # seconds for a run to end once its batches are done
LOOK_AGAIN = 1.0  # seconds between looks at what a run is doing
QUIET = 15.0  # seconds after which a log repeats how far it is
LANDING = (
    TextColumn("{task.description}", markup=False),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("batches"),
    TimeElapsedColumn(),
)
console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder of Parquet files of your own")
    chosen = parser.parse_args()
    started = time.monotonic()
    os.chdir(REPOSITORY)
    try:
        here, feed = own_data(chosen.data, console.print) if chosen.data else sample_data(console.print)
        dataset = here.dataset(feed.dataset)
        for line in exported(here):
            console.print(line, soft_wrap=True)
        was_done = _is_done(here, dataset, feed)
        if not was_done:
            _play(here, dataset, feed)
    except (VaewatchError, StartFailed, httpx.HTTPError, RuntimeError, TimeoutError) as fault:
        console.print(f"[red]the demo stopped[/red]: {escape(str(fault))}", soft_wrap=True)
        return 1
    _report(here, dataset, feed)
    console.print(f"\ntook {time.monotonic() - started:.0f} s; {_left_running(here)}")
    if was_done:
        console.print(
            "[green]Everything was done already: nothing landed since, nothing was changed.[/green]"
        )
    return 0


def _left_running(here: Installation) -> str:
    up = Stack(here.settings.home, here.settings.datasets, mlflow_ui=False).is_running
    return "what `make up` started is still running (stop it: make down)" if up else "nothing is left running"


def _is_done(here: Installation, dataset: Dataset, feed: Feed) -> bool:
    landed = dataset.incoming_path
    if not all((landed / name).exists() for name in (*feed.history, *feed.following)):
        return False
    current = here.ledger.current(dataset.name)
    done = all(
        batch.batch_id in current
        and current[batch.batch_id].status != "accepted"
        and current[batch.batch_id].signature == batch.signature
        for batch in batches.landed(dataset, here.ledger)
    )
    return done and here.ledger.serving_version(dataset.name) is not None


def _play(here: Installation, dataset: Dataset, feed: Feed) -> None:
    dataset.incoming_path.mkdir(parents=True, exist_ok=True)
    console.print("starting Airflow (its own scheduler, SQLite, loopback only): up to a minute")
    stack = Stack(here.settings.home, here.settings.datasets, mlflow_ui=False, demo=feed.dataset)
    with stack.running(), stack.api as api:
        _log("Airflow is up and reads the DAGs")
        dags = [f"{feed.dataset}.{step}" for step in ("discover", "score", "train")]
        api.wait_for_dags(*dags)
        _land(here, api, dataset, feed, feed.history, "history: land → validate", scored=False)
        if here.ledger.serving_version(dataset.name) is None:
            _train(here, api, feed)
        _land(
            here,
            api,
            dataset,
            feed,
            feed.following,
            "score the history, then the following days: land → validate → score",
            scored=True,
        )
        _log("all is scored; waiting for the last run to end, then Airflow stops")
        with suppress(TimeoutError):  # the last batch is done before its run is
            score = f"{feed.dataset}.score"
            api.wait_until(lambda: not api.runs(score, state="running"), f"the end of {score}", ENDING)


def _train(here: Installation, api: AirflowApi, feed: Feed) -> None:
    dag = f"{feed.dataset}.train"
    started = time.monotonic()
    run = api.trigger(dag)
    state = _follow(api, dag, run)
    if state != "success":
        raise RuntimeError(
            f"{dag} ended as {state}; its logs are under {here.settings.home / 'airflow' / 'logs'}"
        )
    version = here.ledger.serving_version(feed.dataset)
    if version is None:
        raise RuntimeError(unserved(here, here.dataset(feed.dataset)))
    console.print(
        f"train → register → evaluate → promote: version {version} is champion ({time.monotonic() - started:.0f} s)"
    )


def _follow(api: AirflowApi, dag: str, run: str) -> str:
    """Wait until a run has ended; meanwhile a line shows the task, its step's last message and the time."""
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    told, log = f"{dag} waits for Airflow", _Log()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        line = progress.add_task(told)

        def tell() -> None:
            nonlocal told
            task, said = api.doing(dag, run)
            told = f"{task}: {said or 'starting'}" if task else told
            log.tell(told)
            progress.update(line, description=told)
            time.sleep(LOOK_AGAIN)

        return api.wait_for(dag, run, timeout=PATIENCE, meanwhile=tell)


class _Log:
    """Prints what a bar would show, where there is no terminal.

    A line appears for each thing that is done, and every QUIET seconds again with the time it has taken, so
    that a long one does not look like a hang.
    """

    def __init__(self) -> None:
        self._what, self._begun, self._at = "", 0.0, 0.0

    def tell(self, what: str, count: str = "") -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._begun, self._at = what, now, now
            _log(f"{what} {count}".rstrip())
        elif now - self._at >= QUIET:
            self._at = now
            _log(f"{f'{what} {count}'.rstrip()} ({now - self._begun:.0f} s)")


def _log(text: str) -> None:
    """Print a line where there is no terminal."""
    if not console.is_terminal:
        console.print(f"  {text}", markup=False)


def _land(
    here: Installation,
    api: AirflowApi,
    dataset: Dataset,
    feed: Feed,
    files: Sequence[str],
    title: str,
    *,
    scored: bool,
) -> None:
    """Deliver files, trigger the DAG that looks for them, and watch the ledger until they are done."""
    for name in files:
        _deliver(feed, name, dataset.incoming_path / name)
    still = dataset.incoming.settle_seconds if feed.truth else 0
    with Progress(*LANDING, console=console) as progress:
        bar = progress.add_task(f"landed; files count once unchanged for {still:g} s", total=None)
        time.sleep(still + 0.5 if still else 0)
        expected = {batch.batch_id for batch in batches.landed(dataset, here.ledger)}
        progress.update(bar, total=len(expected))

        def n_done() -> int:
            current = here.ledger.current(dataset.name)
            states = [current[batch_id].status for batch_id in expected & current.keys()]
            return sum(status in {"scored", "refused"} or not scored for status in states)

        dag = f"{feed.dataset}.discover"
        run = api.trigger(dag)
        waits = partial(_waits_for, api, dag, run)
        _watch(progress, bar, title, n_done, waits, lambda: _failed(api, feed))


def _deliver(feed: Feed, name: str, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if feed.truth:
        shutil.copyfile(feed.source / name, target.with_suffix(".tmp"))
        target.with_suffix(".tmp").rename(target)
    else:
        target.symlink_to(feed.source / name)


def _waits_for(api: AirflowApi, dag: str, run: str) -> str:
    if api.state(dag, run) in DONE:
        return "found; Airflow starts a process for each step of each batch"
    return f"landed; {dag} looks for them"


def _watch(
    progress: Progress,
    bar: TaskID,
    title: str,
    n_done: Callable[[], int],
    waits: Callable[[], str],
    failed: Callable[[], str],
) -> None:
    """Wait until all are done; the bar says what it waits for until the first one is, then what it counts."""
    total, log = progress.tasks[bar].total or 0, _Log()
    until = time.monotonic() + PATIENCE
    while (done := n_done()) < total:
        now = title if done else waits()
        log.tell(now, f"{done}/{total:.0f}" if done else "")
        progress.update(bar, completed=done, description=now)
        if why := failed():
            raise RuntimeError(why)
        if time.monotonic() > until:
            raise TimeoutError(f"{title}: only {done} of {total:.0f} batches done after {PATIENCE:.0f} s")
        time.sleep(LOOK_AGAIN)
    progress.update(bar, completed=total, description=title)


def _failed(api: AirflowApi, feed: Feed) -> str:
    """Say which step failed; a refused batch does not count, it is part of the show."""
    for run in api.runs(f"{feed.dataset}.score", state="failed"):
        states = api.task_states(run["dag_id"], run["dag_run_id"])
        broken = [task for task, state in states.items() if state == "failed" and task != "contract"]
        if broken:
            return (
                f"{run['dag_id']} {run.get('partition_key')}: {', '.join(broken)} failed; see Airflow's logs"
            )
    return ""


def _report(here: Installation, dataset: Dataset, feed: Feed) -> None:
    (found,) = views.status(here, feed.dataset)
    console.print()
    said = glance(here, dataset, SHOWN)
    said = replace(said, lines=tuple(map(typed, filter(None, [*said.lines, misses_most(here, dataset)]))))
    print_batches(found["batches"], said, whole=typed(f"vaewatch status {feed.dataset} --all"))
    console.print("\n[bold]Most anomalous records of the following days[/bold]")
    following = {b.batch_id for b in batches.landed(dataset, here.ledger)} - _history_ids(here, dataset, feed)
    flagged = queue.page(here.ledger, Filters(dataset=feed.dataset, kind="flagged"), limit=2000).rows
    worst = sorted((row for row in flagged if row.batch_id in following), key=lambda row: -row.severity)
    print_queue(worst[:10], "any", None, has_more=False) if worst else console.print("nothing flagged")
    if feed.truth:
        print_measured(console, here, dataset, feed.truth, following)
    print_places(console, here, found)


def _history_ids(here: Installation, dataset: Dataset, feed: Feed) -> set[str]:
    names = set(feed.history)
    return {
        batch.batch_id
        for batch in batches.landed(dataset, here.ledger)
        if any(file.relative in names for file in batch.files)
    }


if __name__ == "__main__":
    ended = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended)  # like the command line: native threads do not all survive an orderly exit
