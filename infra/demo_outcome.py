"""The outcome of a demo: how well planted anomalies were found, and where everything is.

Belongs here: counting against the generator's truth, and the words. Does not: the job (demo.py).
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.layout import REPOSITORY
from pipeline.config.dataset import Dataset
from pipeline.display import COMMAND
from pipeline.installation import Installation
from pipeline.report.training import path_of
from pipeline.results import views

PROGRAM = ".venv/bin/vaewatch"


def print_measured(
    console: Console, here: Installation, dataset: Dataset, truth_file: Path, following: set[str]
) -> None:
    """Print precision and recall at the review budget, by the generator's truth, on days not trained on."""
    import pyarrow.parquet as pq

    current = here.ledger.current(dataset.name)
    scored = {b for b in following if b in current and current[b].status == "scored"}
    truth = {
        (row["batch_id"], row["record_key"]): row["kind"]
        for row in pq.read_table(truth_file).to_pylist()
        if row["batch_id"] in scored
    }
    flags = {
        (row["batch_id"], row["record_key"])
        for row in views.flagged(here, dataset.name)
        if row["batch_id"] in scored
    }
    tables = here.tables(dataset)
    aside = {
        (batch_id, key)
        for batch_id in scored
        for key in tables.read("records", batch_id=batch_id, flag=True, columns=["record_key"])[
            "record_key"
        ].to_pylist()
    }
    for_model = {record for record, kind in truth.items() if kind != "duplicated_block"}
    hits = flags & for_model
    console.print(
        f"\n[bold]Against the generator's truth[/bold], over the {len(scored)} days scored after training, "
        f"review budget {dataset.flag.review_budget:g} a day:\n"
        f"  precision {len(hits) / max(1, len(flags)):.2f} ({len(hits)} of {len(flags)} flags are planted anomalies), "
        f"recall {len(hits) / max(1, len(for_model)):.2f} ({len(hits)} of {len(for_model)})"
    )
    table = Table("planted anomaly", "records", "flagged by the model", "set aside by the contract", box=None)
    for kind in sorted(set(truth.values())):
        records = {record for record, this in truth.items() if this == kind}
        table.add_row(kind, *(str(len(part)) for part in (records, records & flags, records & aside)))
    console.print(table)


def unserved(here: Installation, dataset: Dataset) -> str:
    """Say why no model serves after the first training, where to read more, and what to do next."""
    name, made = dataset.name, here.registry.versions(dataset.name)
    if not made:
        return "the training registered no version"
    newest = made[-1]
    lines = [f"the first model was {newest.tags.get('decision_reason', 'not judged')}"]
    if page := path_of(here, dataset, newest):
        lines.append(f"what it learned, and every gate: {near(page)}")
    return "\n".join([
        *lines,
        *exported(here),
        f"next: mend the contract ({near(here.settings.datasets / f'{name}.yaml')}), leave out columns that say nothing, and run the demo again;",
        f"or let it serve all the same, and run the demo again: {typed(f'vaewatch promote {name} --version {newest.version} --reason WHY')}",
    ])


def print_places(console: Console, here: Installation, found: dict[str, Any]) -> None:
    home, name = here.settings.home, found["dataset"]
    console.print("\n[bold]Where everything is[/bold]")
    places = {
        "scores and flagged records": Path(found["tables"]) / "scores",
        "every record read, with reasons": Path(found["tables"]) / "records",
        "checks, a page a batch": home / "reports" / name,
        "trainings, a page each": home / "trainings" / name,
        "models and runs (MLflow)": home / "mlflow.db",
        "contract": here.settings.datasets / f"{name}.yaml",
    }
    for what, place in places.items():
        console.print(f"  {what:32} {near(place)}")
    console.print("\n[bold]Look closer[/bold]")
    for line in exported(here):
        console.print(f"  {line}", soft_wrap=True)
    steps = {
        f"{PROGRAM} review": "the review page: records, groups, verdicts; prints the address to open",
        f"{PROGRAM} report {name}": "can the newest batch be trusted",
        f"{PROGRAM} review list {name}": "what to look at, without the page",
        "make up": "Airflow's and MLflow's pages",
    }
    for command, what in steps.items():
        console.print(f"  {command:44} {what}", soft_wrap=True)


def exported(here: Installation) -> list[str]:
    """Return what to type once in a shell, so that every later command uses the demo's installation.

    Empty where the commands use that installation by default.
    """
    home, datasets = here.settings.home, here.settings.datasets
    if home == Path("var").absolute():
        return []
    named = f"VAEWATCH_HOME={shlex.quote(str(home))} VAEWATCH_DATASETS={shlex.quote(str(datasets))}"
    return [f"once, for the commands in this shell: export {named}"]


def typed(text: str) -> str:
    """Return a text with its commands as they are typed in the repository's folder."""
    return COMMAND.sub(PROGRAM, text)


def near(path: Path) -> str:
    """Return a path as it is typed from the repository's folder."""
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)
