"""Starting, small batches and validation for `make bench-speed`. As a program: one measurement, printed as
JSON.

Processes are timed from outside, floor and ours in turn.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.speed import Line, Plan, child, interleaved

REPOSITORY = Path(__file__).resolve().parents[2]
N_DATASETS, N_SMALL, N_WAITING = 50, 1_000, 1_000
COLUMNS = """\
key: [id]
columns:
  id: {type: string, required: true}
  a: {type: float, role: numeric, required: true}
  b: {type: float, role: numeric, required: true}
  c: {type: string, role: categorical, values: [x, y, z]}
"""
FAST = "train: {min_records: 300, recipe: {steps: 60}}\n"
HEAVY = (
    *("airflow.dag_processing.dagbag", "torch", "mlflow", "great_expectations"),
    *("duckdb", "deltalake", "pyarrow.dataset"),
)
EMPTY = """\
from airflow.sdk import dag, task

@dag(dag_id="empty", schedule=None)
def empty():
    @task
    def pass_on(x=None): ...

    pass_on(pass_on(pass_on()))

empty()
"""
BARE = f"""\
from airflow.sdk import DAG, Asset, CronTriggerTimetable, Param, PartitionedAssetTimetable, task

SHAPES = [  # of a dataset's DAGs: tasks, parameters with a schema, whether assets ring for it
    ("discover", 1, 0, False), ("score", 3, 1, True), ("train", 2, 1, False),
    ("promote", 1, 2, True), ("rescore", 1, 3, False), ("prune", 1, 1, False),
]
for i in range({N_DATASETS}):
    for verb, n_tasks, n_params, rung in SHAPES:
        when = (
            PartitionedAssetTimetable(assets=Asset(f"d{{i}}.{{verb}}"))
            if rung
            else CronTriggerTimetable("0 2 * * *", timezone="UTC")
        )
        params = {{f"p{{k}}": Param(None, type=["null", "string"]) for k in range(n_params)}}
        with DAG(f"d{{i}}.{{verb}}", schedule=when, params=params):
            for k in range(n_tasks):
                task(task_id=f"t{{k}}", multiple_outputs=False)(lambda: None)()
"""
MIXED = 10  # columns of each kind, of 20


def _environment(root: Path) -> dict[str, str]:
    theirs = {k: v for k, v in os.environ.items() if not k.startswith(("VAEWATCH_", "MLFLOW_", "AIRFLOW_"))}
    return theirs | {
        "VAEWATCH_HOME": str(root / "home"),
        "VAEWATCH_DATASETS": str(root / "datasets"),
        "AIRFLOW_HOME": str(root / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root / 'airflow.db'}",
        "PYTHONPATH": str(REPOSITORY),
    }


def _seconds(environment: dict[str, str], *command: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def _write_dataset(root: Path, name: str, more: str = "") -> Path:
    incoming = root / "incoming" / name
    incoming.mkdir(parents=True, exist_ok=True)
    (root / "datasets").mkdir(exist_ok=True)
    head = f"dataset: {name}\nincoming: {{path: {incoming}, settle_seconds: 0}}\n"
    (root / "datasets" / f"{name}.yaml").write_text(head + more + COLUMNS, encoding="utf-8")
    return incoming


def _write_batch(folder: Path, batch_id: str, n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    a = random.normal(size=n)
    columns = {
        "id": [f"{batch_id}-{i}" for i in range(n)],
        "a": a,
        "b": 2 * a + random.normal(scale=0.1, size=n),
        "c": random.choice(["x", "y", "z"], size=n),
    }
    pq.write_table(pa.table(columns), folder / f"{batch_id}.parquet")


def command_lines(plan: Plan) -> list[Line]:
    """What a person waits for at the prompt, over the start of Python; many small files to parse, over
    Airflow's own import, and beside DAGs of the same shape made of Airflow's parts alone.
    """
    root = plan.scratch / "commands"
    root.mkdir()
    (root / "bare.py").write_text(BARE, encoding="utf-8")
    for i in range(N_DATASETS):
        _write_dataset(root, f"d{i:02}")
    there = _environment(root)
    bare = there | {"PYTHONPATH": str(root)}
    works = {
        "nothing": lambda: _seconds(there, "-c", "pass"),
        "help": lambda: _seconds(there, "-m", "pipeline.cli", "--help"),
        "status": lambda: _seconds(there, "-m", "pipeline.cli", "status"),
        "sdk": lambda: _seconds(there, "-c", "import airflow.sdk"),
        "bare": lambda: _seconds(bare, "-c", "import airflow.sdk, bare"),
        "dags": lambda: _seconds(there, "-c", "import airflow.sdk, dags.vaewatch"),
    }
    for work in works.values():
        work()  # caches, the ledger
    found = interleaved(works, 3 * plan.repeats)
    lines = []
    for name, work, floor, reach in (
        ("help", "`vaewatch --help`", "nothing", 0.5),
        ("status", f"`vaewatch status`, {N_DATASETS} datasets", "nothing", 1.5),
        ("dags", f"parse all DAGs of {N_DATASETS} datasets", "sdk", 0.3),
    ):
        over = [a - b for a, b in zip(found[name], found[floor], strict=True)]
        ours, least = float(np.median(found[name])), float(np.median(found[floor]))
        text = "`python -c pass`" if floor == "nothing" else "`import airflow.sdk`"
        lines.append(Line(work, f"{text} {least:.2f} s", f"{ours:.2f} s", over, reach, False, "s more"))
    own, theirs = (np.subtract(found[name], found["sdk"]) for name in ("dags", "bare"))
    alone = "DAGs of that shape, of Airflow's parts alone, over its import"
    lines.append(
        Line(
            f"the same {6 * N_DATASETS} DAGs beside Airflow's own part",
            f"{alone} {np.median(theirs):.2f} s",
            f"{np.median(own):.2f} s",
            list(own / theirs),
            1.5,
            False,
        )
    )
    return lines


def batch_lines(plan: Plan) -> list[Line]:
    """A small batch through its three tasks, in a process of its own; and a backlog.

    Beside a process that only imports what it needs, and one in which Airflow runs three empty tasks as well.
    """
    root = plan.scratch / "batches"
    root.mkdir()
    incoming = _write_dataset(root, "orders", FAST)
    there = _environment(root)
    _write_batch(incoming, "day-000", N_SMALL, 0)
    _seconds(there, "-m", "pipeline.cli", "run", "orders")
    _seconds(there, "-m", "tests.bench.speed_start", "prepare")
    nothing = root / "nothing"
    nothing.mkdir()
    (nothing / "empty.py").write_text(EMPTY, encoding="utf-8")
    rounds = []
    for i in range(1, plan.repeats + 1):
        _write_batch(incoming, f"day-{i:03}", N_SMALL, i)
        rounds.append((
            _seconds(there, "-c", f"import {', '.join(HEAVY)}"),
            _seconds(
                there | {"AIRFLOW__CORE__DAGS_FOLDER": str(nothing)}, "-m", "tests.bench.speed_start", "empty"
            ),
            _seconds(there, "-m", "tests.bench.speed_start", "dag", f"day-{i:03}"),
        ))
    floor, empty, ours = np.median(rounds, axis=0)
    lines = [
        Line(
            f"{N_SMALL} records end to end in Airflow{more}",
            f"{what} {seconds:.1f} s",
            f"{ours:.1f} s",
            [found[-1] / found[place] for found in rounds],
            1.5,
            False,
        )
        for place, (more, what, seconds) in enumerate((
            ("", "process and imports", floor),
            (", beside Airflow's own part", "the same and three empty tasks", empty),
        ))
    ]
    n_waiting = N_WAITING if plan.records >= 10_000_000 else N_WAITING // 10
    for i in range(n_waiting):
        _write_batch(incoming, f"late-{i:04}", 50, i)
    sweep = _seconds(there, "-m", "pipeline.cli", "run", "orders")
    lines.append(
        Line(
            f"{n_waiting} batches of 50 records waiting, one sweep",
            f"{n_waiting} process starts {n_waiting * floor:.0f} s",
            f"{sweep:.0f} s",
            [sweep / (n_waiting * floor)],
            1.0,
            False,
        )
    )
    return lines


def _mixed(folder: Path, n: int) -> None:
    """n records of 20 mixed columns."""
    folder.mkdir(parents=True)
    for part in range(max(1, n // 1_000_000)):
        random, m = np.random.default_rng(part), min(n, 1_000_000)
        columns: dict[str, Any] = {"id": np.arange(part * m, part * m + m)}
        columns |= {f"x{i}": random.normal(size=m) for i in range(MIXED)}
        columns |= {f"n{i}": random.integers(0, 1000, m) for i in range(4)}
        columns |= {f"c{i}": pa.array(["red", "green", "blue"]).take(pa.array(random.integers(0, 3, m))) for i in range(4)}  # fmt: skip
        columns["code"] = pa.array([f"AB-{i:06}" for i in range(1000)]).take(
            pa.array(random.integers(0, 1000, m))
        )
        pq.write_table(pa.table(columns), folder / f"part{part:02}.parquet", row_group_size=250_000)


MIXED_RULES = {
    "id": "{type: int, required: true}",
    **{f"x{i}": "{type: float, role: numeric, required: true, min: -50, max: 50}" for i in range(MIXED)},
    **{f"n{i}": "{type: int, role: numeric, min: 0, max: 1000}" for i in range(4)},
    **{f"c{i}": "{type: string, role: categorical, values: [red, green, blue]}" for i in range(4)},
    "code": '{type: string, pattern: "AB-[0-9]{6}"}',
}
COUNTED = [  # the same rules, as one would count them by hand in one pass over the files
    "count(*), count(*) FILTER (id IS NULL), count(DISTINCT id)",
    *(f"count(*) FILTER (x{i} IS NULL), count(*) FILTER (x{i} < -50 OR x{i} > 50 OR isnan(x{i}))" for i in range(MIXED)),
    *(f"count(*) FILTER (n{i} < 0 OR n{i} > 1000)" for i in range(4)),
    *(f"count(*) FILTER (c{i} NOT IN ('red', 'green', 'blue'))" for i in range(4)),
    "count(*) FILTER (NOT regexp_full_match(code, 'AB-[0-9]{6}'))",
]  # fmt: skip


def _mixed_dataset(root: Path, n: int) -> Path:
    files = root / "incoming" / "mixed" / "day1"
    if not files.exists():
        _mixed(files, n)
        (root / "datasets").mkdir()
        text = "".join(f"  {name}: {rule}\n" for name, rule in MIXED_RULES.items())
        head = f'dataset: mixed\nincoming: {{path: {files.parent}, files: "{{batch_id}}/*.parquet", settle_seconds: 0}}\n'
        (root / "datasets" / "mixed.yaml").write_text(f"{head}key: [id]\ncolumns:\n{text}", encoding="utf-8")
    return files


def _timed(query: str) -> float:
    import duckdb

    start = time.perf_counter()
    duckdb.sql("SET threads = 2")
    if (found := duckdb.sql(query)) is not None:
        found.fetchall()
    return time.perf_counter() - start


def validate_floor(root: Path, n: int) -> dict[str, Any]:
    """Seconds: one DuckDB pass that counts every rule's faults; a DuckDB copy."""
    files = f"read_parquet('{_mixed_dataset(root, n)}/*.parquet')"
    counted = _timed(f"SELECT {', '.join(COUNTED)} FROM {files}")
    copied = _timed(f"COPY (FROM {files}) TO '{root / 'copy.parquet'}' (FORMAT parquet)")
    return {"counted": counted, "copied": copied}


def validate(root: Path, n: int) -> dict[str, Any]:
    """Seconds: `steps.validate` but for publishing; publishing. Its peak, MB, without what the floor takes (a
    copy: 1.8 GB).
    """
    from pipeline import steps
    from pipeline.config.settings import Settings
    from pipeline.installation import Installation
    from pipeline.storage.tables import Tables

    _mixed_dataset(root, n)
    replace, publishing = Tables.replace, [0.0]

    def watched(*arguments: Any, **settings: Any) -> None:
        began = time.perf_counter()
        replace(*arguments, **settings)
        publishing[0] += time.perf_counter() - began

    Tables.replace = watched  # type: ignore[method-assign]
    settings = Settings(home=root / "home", datasets=root / "datasets", threads=2)
    start = time.perf_counter()
    receipt = steps.validate(Installation(settings), "mixed", force=True)
    seconds = time.perf_counter() - start
    if receipt.batches[0].outcome != "accepted":
        raise RuntimeError(f"the sample was to be accepted, is {receipt}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds - publishing[0], "publishing": publishing[0], "peak": peak}


def validate_lines(plan: Plan) -> list[Line]:
    """Mixed columns through their contract; and published."""
    root = plan.scratch / "validate"
    root.mkdir()
    found = [
        child("speed_start", "floor", root, plan.records)
        | child("speed_start", "validate", root, plan.records)
        for _ in range(max(1, plan.repeats - 1))
    ]
    middle = {key: float(np.median([x[key] for x in found])) for key in found[0]}
    peaks = [x["peak"] / 1024 for x in found]
    work = f"validate {plan.records / 1e6:g} M records of 20 mixed columns"
    return [
        Line(
            f"{work}, every expectation, Great Expectations imported and its page written",
            f"one DuckDB pass that counts the same faults {middle['counted']:.1f} s",
            f"{middle['seconds']:.1f} s",
            [x["seconds"] / x["counted"] for x in found],
            4.0,
            False,
        ),
        Line(
            f"{work}: publishing them as a Delta table, with keys",
            f"DuckDB's copy of the files {middle['copied']:.1f} s",
            f"{middle['publishing']:.1f} s",
            [x["publishing"] / x["copied"] for x in found],
            4.0,
            False,
        ),
        Line(f"{work}: memory", "", f"{max(peaks) * 1024:.0f} MB", peaks, 1.5, False, "GB"),
    ]


def dag(batch_id: str) -> None:
    """Run the scoring DAG of `orders` for one batch, in this process."""
    from airflow.dag_processing.dagbag import DagBag

    of = DagBag(REPOSITORY / "dags").dags["orders.score"]
    of.deadline = None  # Airflow 3.3 cannot store one from a run in process
    state = str(of.test(run_conf={"batch": batch_id}).state)
    if state != "success":
        raise RuntimeError(f"the run of {batch_id} ended as {state}")


def empty() -> None:
    """What Airflow itself takes for three tasks, with everything imported that ours need."""
    for module in HEAVY:
        importlib.import_module(module)
    from airflow.dag_processing.dagbag import DagBag

    DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).dags["empty"].test()


def main() -> None:
    """One measurement."""
    what, *others = sys.argv[1:]
    if what == "prepare":
        from airflow.utils import db

        db.initdb()
    elif what == "dag":
        dag(others[0])
    elif what == "empty":
        empty()
    else:
        work = {"floor": validate_floor, "validate": validate}[what]
        print(json.dumps(work(Path(others[0]), int(others[1]))))


ROWS = {"start": command_lines, "batch": batch_lines, "validate": validate_lines}


if __name__ == "__main__":
    main()
