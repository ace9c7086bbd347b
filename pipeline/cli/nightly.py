"""A verb for each step of a night, and verbs that show how things stand.

Belongs here: arguments, and what a person or a machine reads. Does not: any work (steps/, results/views.py).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.arguments import (
    AnyDataset,
    AsJson,
    DatasetName,
    Key,
    finish,
    print_json,
    say,
    told,
    training_progress,
)

verbs = typer.Typer()


@verbs.command()
def init(
    path: Annotated[Path, typer.Argument(help="folder of Parquet files, a sample of what will land")],
    name: Annotated[str | None, typer.Option(help="the dataset's name; default: the folder's")] = None,
    force: Annotated[bool, typer.Option(help="replace a file that is there")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a dataset's YAML file from a sample: types, roles, rules and bounds, each guess with its
    reason.
    """
    import shutil

    from pipeline.errors import ConfigError, StorageFailed
    from pipeline.incoming.batches import unsettled
    from pipeline.inference import default_name, propose
    from pipeline.installation import Installation

    here = Installation()
    settings = here.settings
    folder = path.expanduser().absolute()
    dataset = default_name(folder) if name is None else name
    target, scratch = settings.datasets / f"{dataset}.yaml", settings.home / "work" / f"init-{dataset}"
    if target.exists() and not force:
        raise ConfigError(f"{target} is there already; choose another --name, or --force to replace it")
    try:
        proposal = propose(
            folder, dataset, relative_to=settings.datasets, threads=settings.cores, scratch=scratch
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(proposal.text, encoding="utf-8")
    if as_json:
        return print_json({"dataset": dataset, "file": str(target), "warnings": list(proposal.warnings)})
    typer.echo(f"wrote {target} from {proposal.looked_at.words}")
    for warning in proposal.warnings:
        say(f"  look at {warning}")
    try:
        left = unsettled(here.dataset(dataset))
    except StorageFailed as fault:  # the file is written: what else there is to say must not fail
        left = None
        typer.echo(f"  look at the folder: {fault}")
    settling = f" (in {left.settled_in} s: {left.files} may still be written until then)" if left else ""
    return say(f"next: read it, then `vaewatch run {dataset}`{settling}")


@verbs.command()
def validate(
    dataset: DatasetName,
    batch: Key = None,
    force: Annotated[bool, typer.Option(help="check again what was checked")] = False,
    as_json: AsJson = False,
) -> None:
    """Check batches against their contract: accept them, set records aside, or refuse them whole."""
    from pipeline import steps
    from pipeline.installation import Installation

    finish([told(as_json, partial(steps.validate, Installation(), dataset, batch, force=force))], as_json)


@verbs.command()
def train(
    dataset: DatasetName,
    force: Annotated[bool, typer.Option(help="train even where `train.when` finds no occasion")] = False,
    as_json: AsJson = False,
) -> None:
    """Train on the accepted records of the newest days; log and register the model."""
    from pipeline import steps
    from pipeline.installation import Installation

    with training_progress(as_json) as on_progress:
        receipt = told(
            as_json, partial(steps.train, Installation(), dataset, force=force, on_progress=on_progress)
        )
    finish([receipt], as_json)


@verbs.command()
def score(
    dataset: DatasetName,
    batch: Key = None,
    force: Annotated[bool, typer.Option(help="score again what was scored")] = False,
    as_json: AsJson = False,
) -> None:
    """Score accepted batches with the champion; publish scores and flagged records."""
    from pipeline import steps
    from pipeline.installation import Installation

    finish([told(as_json, partial(steps.score, Installation(), dataset, batch, force=force))], as_json)


@verbs.command()
def run(
    dataset: AnyDataset = None,
    as_json: AsJson = False,
) -> None:
    """Do everything that is due: validate, train where it is time, promote, score. Without a name, every
    dataset's; one that fails does not stop the others.
    """
    from pipeline import steps
    from pipeline.display import console
    from pipeline.display.nightly import NO_DATASETS
    from pipeline.installation import Installation

    here = Installation()
    work = partial(steps.run, here, dataset) if dataset else partial(steps.run_all, here)
    receipts = told(as_json, work)
    if not receipts and not as_json:
        console().print(NO_DATASETS)
    finish(receipts, as_json)


@verbs.command()
def status(
    dataset: AnyDataset = None,
    whole: Annotated[bool, typer.Option("--all", help="every batch of DATASET, not only the newest")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what landed, what was accepted, set aside and flagged, and which model serves."""
    from pipeline.display.nightly import SHOWN, print_status
    from pipeline.installation import Installation
    from pipeline.report.glance import glance, in_doubt
    from pipeline.results import views

    here = Installation()
    found = views.status(here, dataset)
    if as_json:
        return print_json(found)
    if dataset:
        most = len(found[0]["batches"]) if whole else SHOWN
        return print_status(found, glance(here, here.dataset(dataset), most), {}, whole=whole)
    scored = {
        one["dataset"]: [b["batch_id"] for b in one["batches"][-SHOWN:] if b["status"] == "scored"]
        for one in found
    }
    doubted = {name: in_doubt(here, one, scored.get(name, [])) for name, one in here.datasets().items()}
    return print_status(found, None, doubted, whole=False)


@verbs.command()
def doctor(as_json: AsJson = False) -> None:
    """Look at settings, folders, ledger, registry and datasets, and say what to mend."""
    from pipeline.display import print_findings
    from pipeline.doctor import examine

    findings = examine()
    print_json(findings) if as_json else print_findings(findings)
    if any(not finding["ok"] for finding in findings):
        raise typer.Exit(1)


@verbs.command()
def schema() -> None:
    """Print the JSON Schema of a dataset file, for editors."""
    from pipeline.config.dataset import Dataset

    print_json(Dataset.model_json_schema())


@verbs.command()
def report(
    dataset: DatasetName,
    batch: Annotated[str | None, typer.Argument(metavar="[BATCH]", help="default: the newest")] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a batch can be trusted: write its page again, print its first lines and where it is."""
    from pipeline.installation import Installation
    from pipeline.report import newest
    from pipeline.report.batch import rewrite

    here = Installation()
    chosen = here.dataset(dataset)
    written = rewrite(here, chosen, batch)
    batches = here.ledger.current(chosen.name).values()
    newest.follow(here, chosen, {written.batch_id}, batches, lambda line: say(line, err=True))
    if as_json:
        return print_json(written.as_dict())
    said = written.trust
    told = " ".join(filter(None, [f"{said.headline}.", said.why, said.unscored, said.learned, said.finds]))
    say(f"{dataset} {written.batch_id}: {told}")
    return typer.echo(written.path)


@verbs.command()
def metrics(
    out: Annotated[
        Path | None, typer.Option(help="file to write, replaced as a whole; default: print them")
    ] = None,
) -> None:
    """Print how every dataset stands, in Prometheus' text format; <home>/metrics/vaewatch.prom has it after
    every step.
    """
    from pipeline.installation import Installation
    from pipeline.report.metrics import exposition, write

    here = Installation()
    typer.echo(write(here, out) if out else exposition(here), nl=bool(out))


@verbs.command()
def trace(
    anomaly_id: Annotated[
        str,
        typer.Argument(metavar="ID", help="of a record in the review queue; the first letters are enough"),
    ],
    as_json: AsJson = False,
) -> None:
    """Show the chain behind a flagged record: scores, verdicts, batch, files, contract, model, and what the
    model learned from.
    """
    from pipeline.display import print_lines
    from pipeline.installation import Installation
    from pipeline.report.trace import as_lines
    from pipeline.report.trace import trace as follow

    found = follow(Installation(), anomaly_id)
    print_json(found.as_dict()) if as_json else print_lines(as_lines(found))
